"""What a model is worth on the dev texts, and how far it agrees with the model it came from.

    classification   accuracy, macro_f1 (against labels); agreement (same class as the reference)
    embedding        spearman: rank correlation of the cosines of all pairs of texts with the reference's
                     recall@10: share of the reference's ten nearest texts that are among the model's ten
    mlm              masked_accuracy, pseudo_perplexity (against the masked tokens); agreement (same token as the
                     reference)

All in float32 and over every dev text (embedding: at most `MAX_PAIRED`, since pairs grow with the square). For the
reference itself the figures of likeness are 1 by definition and stand there as the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from bertshrink.errors import CheckFailed, RequestError
from bertshrink.model.batches import by_length, predict
from bertshrink.model.labels import map_labels, match_classes
from bertshrink.model.task import TASKS
from bertshrink.report.measurement import Better, Conditions, Measurement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bertshrink.model.artifact import Artifact
    from bertshrink.model.batches import Row
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.texts import Split, Texts

    Floats = NDArray[np.floating[Any]]

MAX_PAIRED = 2000
"""Two million pairs. A choice, not a bound: pairs grow with the square of the texts."""

NEIGHBOURS = 10
MASK_SHARE = 0.15
MASKED_BATCH_TOKENS = 1024
"""Their logits over BERT's vocabulary take 125 MB, over XLM-RoBERTa's 1 GB."""


@dataclass
class Exam:
    """The dev texts of a run and the reference's answers.

    Every model reads the texts with its own tokenizer and up to its own longest input. Only masked tokens bind all
    models to one vocabulary: they are the question itself.

    Attributes:
        task: a name in `TASKS`.
        dev: the texts.
        max_length: cap on tokens per text; None: each model's own.
        labels: the reference's class names, in whose order logits are compared.
        rows: the dev texts as the reference's tokenizer cuts them; for MLM with masks in place.
        truth: class numbers, or for MLM the masked positions' tokens per row; None where nothing is labelled.
        positions: MLM: masked positions per row.
        conditions: data set, split, number of texts.
        reference: the first model's answers, set by its own sitting.
    """

    task: str
    dev: Split
    max_length: int | None
    labels: tuple[str, ...]
    rows: list[Row]
    truth: list[Any] | None
    positions: list[list[int]] | None
    conditions: Conditions
    reference: Floats | None = None

    @classmethod
    def prepare(cls, model: Encoder | Artifact, texts: Texts, max_length: int | None, seed: int) -> Exam:
        """Set the questions to the reference.

        Raises:
            RequestError: labels that are not the model's.
        """
        dev = texts.dev.first(MAX_PAIRED) if model.task == "embedding" else texts.dev
        rows = model.tokenize(dev.texts, dev.pairs, max_length)
        conditions = Conditions(dataset=texts.name, split="dev", num_examples=len(rows))
        truth: list[Any] | None = None
        positions = None
        if model.task == "classification" and dev.labels is not None:
            truth = list(map_labels(dev.labels, model.labels, texts.name, dev.label_names))
        elif model.task == "mlm":
            rows, positions, truth = _mask(rows, model.tokenizer, seed)
        return cls(model.task, dev, max_length, model.labels, rows, truth, positions, conditions)

    def sit(self, model: Encoder | Artifact) -> list[Measurement]:
        """The model's figures; the first model to sit becomes the reference.

        Raises:
            CheckFailed: the model's outputs are not finite.
            RequestError: its classes, or for MLM its tokens, are others than the reference's.
        """
        import numpy as np

        answers = self._fill_in(model) if self.positions is not None else self._answers(model)
        if not np.isfinite(answers).all():
            raise CheckFailed(
                f"the outputs of `{model.source}` are not finite on the dev texts",
                hint="the model is damaged, or its training diverged: train it with a lower learning rate",
            )
        if self.reference is None:
            self.reference = answers
        return self._judge(answers, self.reference)

    def _answers(self, model: Encoder | Artifact) -> Floats:
        """(N, C) logits in the order of the reference's classes, or (N, H) sentence vectors."""
        import numpy as np

        rows = model.tokenize(self.dev.texts, self.dev.pairs, self.max_length)
        (name,) = TASKS[self.task].outputs
        answers: Floats = np.stack([out[name].astype(np.float32) for out in model.predict(rows)])
        if self.task == "classification":
            answers = answers[:, match_classes(model.labels, self.labels, model.source)]
        return answers

    def _fill_in(self, model: Encoder | Artifact) -> Floats:
        """(M, 2) for the M masked positions of all texts: the token chosen and the log-likelihood of the right one.

        Reduced batch by batch: the logits of two thousand short texts over BERT's vocabulary would take 6 GB.
        """
        import numpy as np

        assert self.positions is not None and self.truth is not None
        if self._masked(model) != [row["input_ids"] for row in self.rows]:
            raise RequestError(
                f"`{model.source}` cuts the dev texts into other tokens than the first model does, so that there are "
                "no masked tokens to compare them by",
                hint="compare masked language models of one vocabulary, or leave out `data`",
            )
        name, session, pad_id = TASKS[self.task].outputs[0], model.session(), model.tokenizer.pad_token_id or 0
        found: list[Floats] = [np.empty((0, 2)) for _ in self.rows]
        for batch in by_length([len(row["input_ids"]) for row in self.rows], MASKED_BATCH_TOKENS):
            outputs = predict(session, [self.rows[i] for i in batch], pad_id, MASKED_BATCH_TOKENS, per_token=True)
            for i, out in zip(batch, outputs, strict=True):
                logits = out[name][self.positions[i]]
                chosen, right = logits.argmax(axis=1), likelihood(logits, np.asarray(self.truth[i], dtype=int))
                found[i] = np.stack([chosen, right], axis=1)
        return np.concatenate(found)

    def _masked(self, model: Encoder | Artifact) -> list[list[int]]:
        """The dev texts' tokens as the model's own tokenizer gives them, the masks in place."""
        assert self.positions is not None
        found = [row["input_ids"] for row in model.tokenize(self.dev.texts, self.dev.pairs, self.max_length)]
        for ids, at in zip(found, self.positions, strict=True):
            for i in (i for i in at if i < len(ids)):
                ids[i] = model.tokenizer.mask_token_id
        return found

    def _judge(self, answers: Floats, reference: Floats) -> list[Measurement]:
        import numpy as np

        found: list[tuple[str, str, float, Better]] = []
        if self.task == "embedding":
            found = [
                ("spearman", "", pair_spearman(answers, reference), "higher"),
                (f"recall@{NEIGHBOURS}", "fraction", neighbour_recall(answers, reference, NEIGHBOURS), "higher"),
            ]
        else:
            is_mlm = self.task == "mlm"
            chosen, theirs = (a[:, 0].astype(int) if is_mlm else a.argmax(axis=1) for a in (answers, reference))
            if self.truth is not None:
                truth = np.asarray(list(chain.from_iterable(self.truth)) if is_mlm else self.truth)
                found.append(
                    ("masked_accuracy" if is_mlm else "accuracy", "fraction", float((chosen == truth).mean()), "higher")
                )
                if is_mlm:
                    found.append(("pseudo_perplexity", "", pseudo_perplexity(answers[:, 1]), "lower"))
                else:
                    from sklearn.metrics import f1_score

                    found.append(("macro_f1", "fraction", float(f1_score(truth, chosen, average="macro")), "higher"))
            found.append(("agreement", "fraction", float((chosen == theirs).mean()), "higher"))
        return [
            Measurement.single(name, unit, value, better, conditions=self.conditions)
            for name, unit, value, better in found
        ]


def pair_spearman(answers: Floats, reference: Floats) -> float:
    """Rank correlation of the cosines of all pairs of rows, (N, H) against (N, G)."""
    import numpy as np
    from scipy.stats import spearmanr

    if len(answers) < 3:
        return 1.0 if np.allclose(answers, reference) else 0.0
    upper = np.triu_indices(len(answers), 1)
    return float(spearmanr(_cosines(answers)[upper], _cosines(reference)[upper]).statistic)


def neighbour_recall(answers: Floats, reference: Floats, num: int) -> float:
    """Mean share of the reference's `num` nearest rows that are among the model's `num` nearest."""
    import numpy as np

    num = min(num, len(answers) - 1)
    if num < 1:
        return 1.0
    nearest = []
    for vectors in (answers, reference):
        cosines = _cosines(vectors)
        np.fill_diagonal(cosines, -np.inf)
        nearest.append(np.argpartition(-cosines, num - 1, axis=1)[:, :num])
    shared = [len(set(a) & set(b)) for a, b in zip(*(n.tolist() for n in nearest), strict=True)]
    return float(np.mean(shared)) / num


def likelihood(logits_NV: NDArray[Any], truth_N: NDArray[Any]) -> Floats:
    """The log-likelihood (N,) of each row's right token."""
    import numpy as np
    from scipy.special import log_softmax

    found: Floats = log_softmax(logits_NV.astype(np.float64), axis=1)[np.arange(len(truth_N)), truth_N]
    return found


def pseudo_perplexity(likelihood_N: Floats) -> float:
    """Exp of the mean negative log-likelihood of the masked tokens (arXiv:1910.14659, with all masks of a text at
    once).
    """
    import numpy as np

    return float(np.exp(-likelihood_N.mean()))


def _cosines(vectors: Floats) -> Floats:
    import numpy as np

    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    product: Floats = unit @ unit.T
    return product


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
