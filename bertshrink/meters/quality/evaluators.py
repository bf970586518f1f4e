"""What a model is worth on the texts that judge, and how far it agrees with the model it came from.

    classification        accuracy, macro_f1; agreement (same class as the reference)
    multi-label           micro_f1, macro_f1 (a class is chosen from probability 0.5 on); agreement (same decision)
    regression            spearman, pearson with the right scores; agreement (rank correlation with the reference),
                          score_difference (mean, from the reference's); of a cross-encoder all of scores, not logits
    token-classification  f1, precision, recall over entities; agreement (same tag of a word)
    question-answering    f1, exact_match; agreement (same answer)
    embedding             spearman: rank correlation of the similarities of all pairs of texts with the reference's
                          recall@10: share of the reference's ten nearest texts that are among the model's ten
                          sts_spearman: of the similarities of scored pairs with their scores, where the data has them
                          spearman@64d ...: the same of vectors truncated to 64 dimensions, with the reference's whole
    sparse-embedding      recall@10: the same; where a model does not say how its vectors are compared, by products
                          active_dimensions: numbers of a vector that are not 0, the mean: what an index has to hold
                          term_overlap: share of the reference's 32 heaviest tokens of a text that are the model's, too
                          sts_spearman: as of embedding
    mlm                   masked_accuracy, pseudo_perplexity (against the masked tokens); agreement (same token)

Where a text is one question with one answer (accuracy, exact_match, their agreement), the outcome of each is kept. Tags
and masked tokens of one text hang together, so that counting them one by one would prove too much.

All in float32 and over every text (embedding: at most `MAX_PAIRED`, since pairs grow with the square). Rows without a
label count for likeness only. For the reference itself the figures of likeness are 1 by definition and are there as
the scale. The metrics themselves are in `metrics`, what other texts would have given in `intervals`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from bertshrink.data.encoding import EncodedRows, answers_of, encode, tags_of
from bertshrink.data.labels.labels import match_classes
from bertshrink.errors import UserError
from bertshrink.meters.quality import metrics
from bertshrink.meters.quality.base_evaluator import Evaluator, Score, share_of
from bertshrink.meters.quality.intervals import Correlation, Groups, Sums, groups_of, quotient
from bertshrink.meters.quality.similarities import paired_similarities, similarity_table
from bertshrink.model.batches import batch_by_length, predict
from bertshrink.model.tasks import TASKS
from bertshrink.report.measurement import Conditions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bertshrink.data.texts import Split, TextDataset
    from bertshrink.model.artifact import Artifact
    from bertshrink.model.batches import Row
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.folder.pooling import Similarity

    Floats = NDArray[np.floating[Any]]

MAX_PAIRED = 2000
"""Two million pairs. A choice, not a bound: pairs grow with the square of the texts."""

NEIGHBOURS = 10
TERMS = 32
"""About as many as a text's own tokens: the heaviest, which decide what a search finds."""
MASK_SHARE = 0.15
MASKED_BATCH_TOKENS = 1024
"""Their logits over BERT's vocabulary take 125 MB, over XLM-RoBERTa's 1 GB."""


class _LogitsEvaluator(Evaluator):
    """One output for a text: (N, C) logits or scores in the order of the reference's classes."""

    def answer(self, model: Encoder | Artifact) -> Floats:
        """The logits; of a cross-encoder the scores that it makes of them."""
        import numpy as np

        has_labels = TASKS[self.task].has_labels
        order = match_classes(model.labels, self.labels, model.source) if has_labels else [0]
        rows = model.tokenize(self.split.texts, self.split.pairs, self.max_length)
        answers: Floats = np.stack([row["logits"][order] for row in self.outputs(model, rows)])
        is_bent = TASKS[self.task].is_score and model.activation == "sigmoid"
        return 1 / (1 + np.exp(-answers.astype(np.float64))) if is_bent else answers


class ClassificationEvaluator(_LogitsEvaluator):
    """One class of each text."""

    def judge(self, answers: Floats, reference: Floats) -> list[Score]:
        """Metrics against labels, then likeness."""
        import numpy as np
        from sklearn.metrics import f1_score

        at, truth = self.labelled()
        scores: list[Score] = []
        chosen, theirs = answers.argmax(axis=1), reference.argmax(axis=1)
        if at:
            right = np.asarray(truth)
            macro = float(f1_score(right, chosen[at], average="macro"))
            often, num = np.unique(right, return_counts=True)
            share = float(num.max() / len(right))
            classes = np.union1d(often, chosen[at])
            mine_NC, right_NC = (side[:, None] == classes for side in (chosen[at], right))
            spread = Sums(2.0 * (mine_NC & right_NC), mine_NC.astype(float) + right_NC)
            constant = 2 * share / (1 + share) / len(often)
            scores = [
                share_of("accuracy", chosen[at] == right, share),
                Score("macro_f1", "fraction", macro, "higher", spread=spread, chance=constant),
            ]
        return [*scores, share_of("agreement", chosen == theirs, is_likeness=True)]


class MultiLabelEvaluator(_LogitsEvaluator):
    """Any number of classes of each text."""

    def judge(self, answers: Floats, reference: Floats) -> list[Score]:
        """Metrics against labels, then likeness."""
        import numpy as np

        at, truth = self.labelled()
        scores: list[Score] = []
        chosen, theirs = answers > 0, reference > 0
        if at:
            right = np.asarray(truth) > 0
            micro, macro = metrics.label_f1(chosen[at], right)
            both_NC, all_NC = 2.0 * (chosen[at] & right), chosen[at].astype(float) + right
            of_all = quotient(both_NC.sum(axis=1), all_NC.sum(axis=1))
            of_each = Sums(both_NC, all_NC, num_parts=right.shape[1])
            scores = [
                Score("micro_f1", "fraction", micro, "higher", spread=of_all),
                Score("macro_f1", "fraction", macro, "higher", spread=of_each),
            ]
        return [*scores, _agreement(chosen == theirs)]


class RegressionEvaluator(_LogitsEvaluator):
    """A score of each text."""

    def judge(self, answers: Floats, reference: Floats) -> list[Score]:
        """Metrics against scores, then likeness."""
        import numpy as np

        at, truth = self.labelled()
        scores: list[Score] = []
        if at:
            mine, right = answers[at, 0], np.asarray(truth)
            pearson = float(np.corrcoef(mine, right)[0, 1]) if np.ptp(mine) and np.ptp(right) else 0.0
            rho = metrics.rank_correlation(mine, right)
            scores = [_correlation("spearman", mine, right, rho), _correlation("pearson", mine, right, pearson)]
        likeness = metrics.rank_correlation(answers[:, 0], reference[:, 0])
        apart = np.abs(answers[:, 0] - reference[:, 0])
        name, mean = "score_difference", float(apart.mean())
        return [
            *scores,
            Score(name, "", mean, "lower", spread=quotient(apart), is_likeness=True),
            _correlation("agreement", answers[:, 0], reference[:, 0], likeness),
        ]


def _agreement(same: Iterable[Sequence[bool] | NDArray[np.bool_]]) -> Score:
    """The share of decisions that are the reference's, of all of them together, a row for each text."""
    counts = [(sum(row), len(row)) for row in same]
    value = sum(num_same for num_same, _ in counts) / max(1, sum(num for _, num in counts))
    spread = quotient(*zip(*counts, strict=True)) if counts else None
    return Score("agreement", "fraction", float(value), "higher", spread=spread, is_likeness=True)


def _correlation(metric: str, mine: Floats, right: Floats, value: float) -> Score:
    spread = Correlation(mine, right, value, is_of_ranks=metric != "pearson")
    return Score(metric, "", value, "higher", spread=spread, is_likeness=metric == "agreement")


class _WindowExam(Evaluator):
    """Texts that may be longer than the model reads."""

    def encoded(self, model: Encoder | Artifact) -> EncodedRows:
        """The texts as the model's tokenizer cuts them, without labels."""
        limit = min(self.max_length or model.max_length, model.max_length)
        bare, where = replace(self.split, labels=None), str(self.conditions.dataset)
        return encode(self.task, model.tokenizer, bare, limit, model.labels, where)


class TokenClassificationEvaluator(_WindowExam):
    """Tags of words: one list of names per text."""

    def answer(self, model: Encoder | Artifact) -> list[list[str]]:
        """The tags' names, in the reference's spelling."""
        order = match_classes(model.labels, self.labels, model.source)
        encoded = self.encoded(model)
        logits = [row["logits"][:, order] for row in self.outputs(model, encoded.rows)]
        outside = self.labels.index("O") if "O" in self.labels else 0
        words = self.split.words if self.split.words is not None else [text.split() for text in self.split.texts]
        tags = tags_of(encoded, logits, [len(row) for row in words], outside)
        return [[self.labels[tag] for tag in row] for row in tags]

    def judge(self, answers: list[list[str]], reference: list[list[str]]) -> list[Score]:
        """Entities against labels, then likeness word by word."""
        import numpy as np

        at, truth = self.labelled()
        scores: list[Score] = []
        if at:
            right = [[self.labels[tag] for tag in row] for row in truth]
            mine = [answers[i] for i in at]
            precision, recall, f1 = metrics.entity_scores(mine, right)
            both, own, true = np.asarray(metrics.entity_counts(mine, right)).reshape(-1, 3).T
            scores = [
                Score("f1", "fraction", f1, "higher", spread=quotient(2 * both, own + true)),
                Score("precision", "fraction", precision, "higher", spread=quotient(both, own)),
                Score("recall", "fraction", recall, "higher", spread=quotient(both, true)),
            ]
        pairs = zip(answers, reference, strict=True)
        return [*scores, _agreement([[a == b for a, b in zip(*pair, strict=True)] for pair in pairs])]


class QuestionAnsweringEvaluator(_WindowExam):
    """Answers to questions: one text each."""

    def answer(self, model: Encoder | Artifact) -> list[str]:
        """The answers, as they are in their contexts."""
        encoded = self.encoded(model)
        may_be_none = any(label == () for label in self.split.labels or ())
        assert self.split.pairs is not None
        return answers_of(encoded, self.outputs(model, encoded.rows), self.split.pairs, may_be_none=may_be_none)

    def judge(self, answers: list[str], reference: list[str]) -> list[Score]:
        """Words against labels, then likeness answer by answer."""
        import numpy as np

        at, truth = self.labelled()
        scores: list[Score] = []
        if at:
            exact, f1_N = metrics.answer_scores([answers[i] for i in at], truth)
            chance = sum(not any(metrics.plain(text) for text, _ in right) for right in truth) / len(truth) or None
            scores = [
                Score("f1", "fraction", float(np.mean(f1_N)), "higher", spread=quotient(f1_N), chance=chance),
                share_of("exact_match", exact, chance),
            ]
        same = [a == b for a, b in zip(answers, reference, strict=True)]
        return [*scores, share_of("agreement", same, is_likeness=True)]


class _Vectors(NamedTuple):
    """Vectors of texts (N, H); of scored pairs the first texts', then the second texts'; and how they are compared."""

    values: Floats
    by: Similarity

    def cut(self, number: int) -> _Vectors:
        """Their first numbers."""
        return self._replace(values=self.values[:, :number])

    def first(self, number: int) -> _Vectors:
        """Those of the first texts."""
        return self._replace(values=self.values[:number])

    def table(self) -> Floats:
        """(N, N) how near each is to each."""
        return similarity_table(self.values, self.by)


class EmbeddingEvaluator(Evaluator):
    """Sentence vectors, each model's compared as it says, since that is how it is used; else as the reference's are."""

    usual: ClassVar[Similarity] = "cosine"

    def answer(self, model: Encoder | Artifact) -> _Vectors:
        """The vectors."""
        texts = self.split.texts + (self.split.pairs or ())
        rows = model.tokenize(texts, None, self.max_length)
        theirs = self.reference.by if self.reference is not None else self.usual
        return _Vectors(self.vectors(model, rows), model.similarity or theirs)

    def vectors(self, model: Encoder | Artifact, rows: list[Row]) -> Floats:
        """(N, H) of tokenized texts."""
        import numpy as np

        values: Floats = np.stack([row["sentence_embedding"] for row in self.outputs(model, rows)])
        return values

    def judge(self, answers: _Vectors, reference: _Vectors) -> list[Score]:
        """Scored pairs against their scores, then likeness; then both of truncated vectors."""
        scores = self._judge(answers, reference)
        for number in self.dimensions:
            width = answers.values.shape[1]
            if number >= width:
                raise UserError(
                    f"`dimensions` has {number}, and the sentence vectors have {width} numbers",
                    where="`measure.dimensions`",
                    hint="give smaller numbers",
                )
            cut = self._judge(answers.cut(number), reference)
            scores += [one._replace(metric=f"{one.metric}@{number}d") for one in cut]
        return scores

    def _judge(self, answers: _Vectors, reference: _Vectors) -> list[Score]:
        scores = self.of_pairs(answers)
        if scores:
            answers, reference = (vectors.first(MAX_PAIRED) for vectors in (answers, reference))
        mine, theirs = answers.table(), reference.table()
        alike = metrics.pair_spearman(mine, theirs)
        parts = tuple(metrics.pair_spearman(mine[part, part], theirs[part, part]) for part in groups_of(len(mine)))
        return [
            *scores,
            Score("spearman", "", alike, "higher", spread=Groups(alike, parts), is_likeness=True),
            _recall(mine, theirs),
        ]

    def of_pairs(self, answers: _Vectors) -> list[Score]:
        """Scored pairs against their scores; empty where there are none."""
        import numpy as np

        known = [(i, v) for i, v in enumerate(self.split.labels or ()) if v is not None] if self.split.is_scored else []
        if not known:
            return []
        first, second = np.split(answers.values, 2)
        near = paired_similarities(first, second, answers.by)[[i for i, _ in known]]
        right = np.asarray([value for _, value in known], dtype=float)
        return [_correlation("sts_spearman", near, right, metrics.rank_correlation(near, right))]

    def headline_of(self, scores: Sequence[Score]) -> Score:
        """Agreement with scores where there are any, else with the reference."""
        return scores[0]


class SparseEmbeddingEvaluator(EmbeddingEvaluator):
    """Sparse vectors (N, V); of scored pairs as `EmbeddingEvaluator`."""

    usual: ClassVar[Similarity] = "dot"

    def vectors(self, model: Encoder | Artifact, rows: list[Row]) -> Floats:
        """The vectors, from batches as small as masked tokens': the model computes as many logits."""
        import numpy as np

        outputs = model.predict(rows, MASKED_BATCH_TOKENS)
        values: Floats = np.stack([row["sentence_embedding"].astype(np.float32) for row in outputs])
        self.require_finite(model, bool(np.isfinite(values).all()))
        return values

    def _judge(self, answers: _Vectors, reference: _Vectors) -> list[Score]:
        scores = self.of_pairs(answers)
        if scores:
            answers, reference = (vectors.first(MAX_PAIRED) for vectors in (answers, reference))
        active = (answers.values != 0).sum(axis=1)
        terms = metrics.term_overlap(answers.values, reference.values, TERMS)
        return [
            *scores,
            _recall(answers.table(), reference.table()),
            Score("active_dimensions", "count", float(active.mean()), "lower", spread=quotient(active)),
            Score("term_overlap", "fraction", float(terms.mean()), "higher", spread=quotient(terms), is_likeness=True),
        ]


def _recall(mine_NN: Floats, theirs_NN: Floats) -> Score:
    near = metrics.neighbour_recall(mine_NN, theirs_NN, NEIGHBOURS)
    value, name = float(near.mean()), f"recall@{NEIGHBOURS}"
    return Score(name, "fraction", value, "higher", spread=quotient(near), is_likeness=True)


class MaskedLMEvaluator(Evaluator):
    """Masked tokens: (M, 2) for all masked positions, the token chosen and the log-likelihood of the right one."""

    def set(self, model: Encoder | Artifact) -> None:
        """Put the masks in place."""
        rows = model.tokenize(self.split.texts, self.split.pairs, self.max_length)
        self.rows, self.positions, self.hidden = _mask(rows, model.tokenizer, self.seed)

    def answer(self, model: Encoder | Artifact) -> Floats:
        """The filled-in tokens.

        Reduced batch by batch: the logits of two thousand short texts over BERT's vocabulary would take 6 GB.
        """
        import numpy as np

        if self._masked(model) != [row["input_ids"] for row in self.rows]:
            raise UserError(
                f"`{model.source}` tokenizes the dev texts differently from the reference, so that masked tokens "
                "cannot be compared",
                hint="compare masked language models with the same vocabulary, truncate texts with `max_length`, or "
                "leave out `data`",
            )
        session, pad_id = model.session(), model.tokenizer.pad_token_id or 0
        filled: list[Floats] = [np.empty((0, 2)) for _ in self.rows]
        for batch in batch_by_length([len(row["input_ids"]) for row in self.rows], MASKED_BATCH_TOKENS):
            rows = [self.rows[i] for i in batch]
            outputs = predict(session, rows, pad_id, MASKED_BATCH_TOKENS, per_token=True)
            for i, out in zip(batch, outputs, strict=True):
                logits = out["logits"][self.positions[i]]
                right = metrics.likelihood(logits, np.asarray(self.hidden[i], dtype=int))
                filled[i] = np.stack([logits.argmax(axis=1), right], axis=1)
        answers = np.concatenate(filled)
        self.require_finite(model, bool(np.isfinite(answers).all()))
        return answers

    def judge(self, answers: Floats, reference: Floats) -> list[Score]:
        """Tokens against those that were masked, then likeness."""
        import numpy as np

        chosen, theirs = answers[:, 0].astype(int), reference[:, 0].astype(int)
        truth = np.asarray(list(chain.from_iterable(self.hidden)))
        lengths = [len(row) for row in self.hidden]
        ends = np.cumsum(lengths)[:-1]
        right, loss = chosen == truth, answers[:, 1]
        rows, losses = (np.array([part.sum() for part in np.split(side, ends)]) for side in (right, loss))
        often = float(np.unique(truth, return_counts=True)[1].max() / len(truth)) if len(truth) else None
        accuracy, perplexity = float(right.mean()), metrics.pseudo_perplexity(loss)
        of_loss = quotient(losses, lengths, is_loss=True)
        return [
            Score("masked_accuracy", "fraction", accuracy, "higher", spread=quotient(rows, lengths), chance=often),
            Score("pseudo_perplexity", "", perplexity, "lower", spread=of_loss),
            _agreement(np.split(chosen == theirs, ends)),
        ]

    def _masked(self, model: Encoder | Artifact) -> list[list[int]]:
        """The texts' tokens as the model's own tokenizer gives them, the masks in place."""
        token_ids = [row["input_ids"] for row in model.tokenize(self.split.texts, self.split.pairs, self.max_length)]
        for ids, at in zip(token_ids, self.positions, strict=True):
            for i in (i for i in at if i < len(ids)):
                ids[i] = model.tokenizer.mask_token_id
        return token_ids


EXAMS: dict[str, type[Evaluator]] = {
    "classification": ClassificationEvaluator,
    "multi-label": MultiLabelEvaluator,
    "regression": RegressionEvaluator,
    "token-classification": TokenClassificationEvaluator,
    "question-answering": QuestionAnsweringEvaluator,
    "embedding": EmbeddingEvaluator,
    "sparse-embedding": SparseEmbeddingEvaluator,
    "mlm": MaskedLMEvaluator,
}


def prepare(
    model: Encoder | Artifact,
    texts: TextDataset,
    max_length: int | None,
    seed: int,
    split: Split | None = None,
    dimensions: tuple[int, ...] = (),
) -> Evaluator:
    """Set the questions to the reference.

    Args:
        model: the reference.
        max_length: cap on tokens per text; None: each model's own.
        split: another side than the one that judges.
        dimensions: to which sentence vectors are truncated besides.

    Raises:
        UserError: labels that are not the model's.
    """
    chosen = texts.judged if split is None else split
    if TASKS[model.task].is_vector and not chosen.is_scored:
        chosen = chosen.first(MAX_PAIRED)
    name = texts.judged_name if split is None else "choice"
    conditions = Conditions(dataset=texts.name, split=name, num_examples=len(chosen))
    exam = EXAMS[model.task](model.task, chosen, max_length, model.labels, conditions, seed, dimensions)
    exam.set(model)
    return exam


def chooser(
    reference: Callable[[], Encoder | Artifact] | None, texts: TextDataset, max_length: int | None, seed: int
) -> Callable[[Encoder | Artifact], float]:
    """The headline metric on the side that is kept for choosing, as a function of a model.

    Args:
        reference: gives what the models to come are compared with where the metric is a likeness; None: they are with
            the first of them.
        max_length: cap on tokens per text.
    """
    exams: list[Evaluator] = []

    def choose(candidate: Encoder | Artifact) -> float:
        if not exams:
            teacher = reference() if reference is not None else None
            exam = prepare(teacher or candidate, texts, max_length, seed, texts.choosing()[1])
            if teacher is not None:
                exam.sit(teacher)
            exams.append(exam)
        figure = exams[0].headline(candidate)
        if figure is None:
            raise UserError(
                f"early stopping needs labelled dev data; `{texts.name}` has none",
                hint="leave `early_stopping_patience` out",
            )
        return figure

    return choose


def _mask(rows: Sequence[Row], tokenizer: Any, seed: int) -> tuple[list[Row], list[list[int]], list[list[int]]]:
    """Replace a fixed choice of tokens by the mask; at least one in every row that has a free token."""
    import numpy as np

    generator = np.random.default_rng(seed)
    special = set(tokenizer.all_special_ids)
    masked, positions, truth = [], [], []
    for row in rows:
        free = [i for i, token in enumerate(row["input_ids"]) if token not in special]
        number = min(len(free), max(1, round(MASK_SHARE * len(free))))
        at = sorted(generator.choice(free, size=number, replace=False).tolist()) if free else []
        ids = list(row["input_ids"])
        truth.append([ids[i] for i in at])
        for i in at:
            ids[i] = tokenizer.mask_token_id
        masked.append(row | {"input_ids": ids})
        positions.append(at)
    return masked, positions, truth
