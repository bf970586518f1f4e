"""A task's texts as rows of token ids with labels, and a model's answers back as tags of words and spans of text.

One row a text (or pair), except where a text is longer than the model reads: tagged texts and the contexts of questions
are then cut into windows that overlap (a quarter of their length, at most `STRIDE` tokens), so that every word is read
with text on both sides of it.

    token-classification   the first token of a word carries its tag, all others none; tokens belong to words by the
                           characters they cover, so any fast tokenizer serves
    question-answering     start and end token of the first answer; the first token (CLS) where the window does not
                           hold the whole answer, or where there is none (arXiv:1810.04805, SQuAD 2.0)

Back: a word's tag comes from the window in which it is farthest from an edge; a question's answer is the span with
the highest sum of start and end logit over all its windows, of at most `MAX_ANSWER_TOKENS` tokens, among the `N_BEST`
starts and ends of each (the procedure of the BERT paper's published code).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertshrink.data.labels.labels import match_labels
from bertshrink.errors import UserError
from bertshrink.model.batches import preserving_tokenizer, tokenize
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from bertshrink.data.texts import Split
    from bertshrink.model.batches import Row

IGNORED = -100
"""The label of a token that has none; cross-entropy passes over it."""
STRIDE = 128
QA_LENGTH = 384
"""Tokens of a question with a part of its context, where nothing else is asked for."""
N_BEST = 20
MAX_ANSWER_TOKENS = 30


@dataclass(frozen=True)
class EncodedRows:
    """Rows of token ids, with what leads back to the texts.

    Attributes:
        rows: ids and masks of each row.
        labels: one a row, as the task's loss reads it: int, float, tuple of 0.0 and 1.0, tuple of ints (one a token),
            (start, end); None where the row is unlabelled.
        examples: the number of the text that each row comes from.
        words: token-classification: per row and token, the number of the word that begins with it, else -1.
        spans: question-answering: per row and token, first and last character in the context (last excluded); (-1, -1)
            for tokens of no context.
    """

    rows: list[Row]
    labels: list[Any]
    examples: list[int]
    words: list[list[int]] | None = None
    spans: list[list[tuple[int, int]]] | None = None


def encode(
    task: str,
    tokenizer: PreTrainedTokenizerBase,
    split: Split,
    max_length: int,
    label_names: Sequence[str],
    where: str,
    prompt: str = "",
) -> EncodedRows:
    """Tokenize a side of the data for a task.

    Args:
        tokenizer: a fast one where the task needs the places of tokens.
        max_length: tokens of a row at most, special tokens included.
        label_names: the model's, in the order of its logits.
        prompt: what the model reads before every text; of texts, not of tagged words or questions.

    Raises:
        UserError: labels that the model does not have; texts of another kind than the task's; a slow tokenizer where
            tokens must be found in the text.
    """
    if TASKS[task].per_token and not TASKS[task].is_masked and not tokenizer.is_fast:
        raise UserError(
            f"the slow tokenizer `{type(tokenizer).__name__}` does not tell where its tokens are in a text, which "
            f"`{task}` has to know",
            where=tokenizer.name_or_path,
            hint="save the model with a fast tokenizer, one with a tokenizer.json",
        )
    asked = _Asked(task, tokenizer, split, max_length, label_names, where, prompt)
    with preserving_tokenizer(tokenizer):
        return ENCODERS[task](asked)


@dataclass(frozen=True)
class _Asked:
    """What `encode` is asked for."""

    task: str
    tokenizer: PreTrainedTokenizerBase
    split: Split
    max_length: int
    label_names: Sequence[str]
    where: str
    prompt: str

    @property
    def values(self) -> Sequence[Any]:
        """The label of each text, None where it has none."""
        return self.split.labels if self.split.labels is not None else (None,) * len(self.split)

    def labels(self) -> list[Any]:
        """The same as numbers of the model's classes."""
        return match_labels(self.task, self.values, self.label_names, self.where, self.split.label_names)


def _encode_unlabelled(asked: _Asked) -> EncodedRows:
    split = asked.split
    rows = tokenize(asked.tokenizer, split.texts, split.pairs, asked.max_length, asked.prompt)
    return EncodedRows(rows, [None] * len(rows), list(range(len(rows))))


def _encode_texts(asked: _Asked) -> EncodedRows:
    encoded = _encode_unlabelled(asked)
    return replace(encoded, labels=asked.labels())


def _encode_words(asked: _Asked) -> EncodedRows:
    tokenizer, split, max_length = asked.tokenizer, asked.split, asked.max_length
    words = split.words if split.words is not None else tuple(tuple(text.split()) for text in split.texts)
    texts = [" ".join(row) for row in words]
    tags = asked.labels()
    for number, (row, own) in enumerate(zip(words, tags, strict=True), start=1):
        if own is not None and len(row) != len(own):
            raise UserError(f"row {number} has {len(row)} words and {len(own)} tags", where=asked.where)
    encoding = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        stride=min(STRIDE, max_length // 4),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    rows, examples = _rows_of(encoding, tokenizer), list(encoding["overflow_to_sample_mapping"])
    owners = [_word_of_characters(row) for row in words]
    begins = [
        _first_tokens(offsets, owners[at]) for offsets, at in zip(encoding["offset_mapping"], examples, strict=True)
    ]
    labels = [
        None if tags[at] is None else tuple(tags[at][word] if word >= 0 else IGNORED for word in first)
        for first, at in zip(begins, examples, strict=True)
    ]
    return EncodedRows(rows, labels, examples, words=begins)


def _word_of_characters(words: Sequence[str]) -> list[int]:
    """The number of the word at each character of the words joined by one blank; -1 at spaces."""
    owners: list[int] = []
    for number, word in enumerate(words):
        owners += ([-1] if number else []) + [number] * len(word)
    return owners


def _first_tokens(offsets: Sequence[tuple[int, int]], owners: Sequence[int]) -> list[int]:
    """Per token the word that begins with it, else -1. A window may begin inside a word: that word is not begun."""
    begins, before, is_first = [], -1, True
    for start, end in offsets:
        word = owners[end - 1] if end > start else -1
        begun = word >= 0 and word != before
        if begun and is_first:
            # Some tokenizers count the blank before a word as part of its first token.
            begun = start == 0 or owners[start] != word or owners[start - 1] != word
            is_first = False
        begins.append(word if begun else -1)
        before = word if word >= 0 else before
    return begins


def _encode_questions(asked: _Asked) -> EncodedRows:
    tokenizer, split, values, where = asked.tokenizer, asked.split, asked.values, asked.where
    max_length = min(asked.max_length, QA_LENGTH)
    if split.pairs is None:
        raise UserError(
            "question answering needs a context for each question",
            where=where,
            hint="give SQuAD files, or name the columns with `text:` and `pair:` under `data:`",
        )
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 2:
        raise UserError(
            f"{max_length} tokens are too few for a question with part of its context",
            where=where,
            hint="give `max_length` under `data:` a larger number, or leave it out",
        )
    limit = room // 2
    encoding = tokenizer(
        _short_questions(tokenizer, split.texts, limit),
        list(split.pairs),
        truncation="only_second",
        max_length=max_length,
        stride=min(STRIDE, max_length // 4, room - limit - 1),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    rows, examples = _rows_of(encoding, tokenizer), list(encoding["overflow_to_sample_mapping"])
    spans, labels = [], []
    for number, (offsets, at) in enumerate(zip(encoding["offset_mapping"], examples, strict=True)):
        sides = encoding.sequence_ids(number)
        spans.append([span if side == 1 else (-1, -1) for span, side in zip(offsets, sides, strict=True)])
        labels.append(None if values[at] is None else _answer_tokens(spans[-1], values[at]))
    return EncodedRows(rows, labels, examples, spans=spans)


ENCODERS: dict[str, Callable[[_Asked], EncodedRows]] = {
    "classification": _encode_texts,
    "multi-label": _encode_texts,
    "regression": _encode_texts,
    "token-classification": _encode_words,
    "question-answering": _encode_questions,
    "embedding": _encode_unlabelled,
    "sparse-embedding": _encode_unlabelled,
    "mlm": _encode_unlabelled,
}


def _short_questions(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], limit: int) -> list[str]:
    """The questions, those of more than `limit` tokens cut, so that a part of the context always fits beside them."""
    short = list(questions)
    at = list(range(len(short)))
    while at:  # a text that was cut may fall into more tokens than it had as part of the whole
        encoding = tokenizer([short[i] for i in at], add_special_tokens=False, return_offsets_mapping=True)
        over = [(i, offsets) for i, offsets in zip(at, encoding["offset_mapping"], strict=True) if len(offsets) > limit]
        for i, offsets in over:
            short[i] = short[i][: min(offsets[limit][0], len(short[i]) - 1)].rstrip()
        at = [i for i, _ in over]
    return short


def _answer_tokens(spans: Sequence[tuple[int, int]], answers: Sequence[tuple[str, int]]) -> tuple[int, int]:
    """First and last token of the first answer; (0, 0) where there is none or the window does not hold all of it."""
    if not answers:
        return 0, 0
    text, first = answers[0]
    first += len(text) - len(text.lstrip())
    last = first + len(text.strip())
    held = [i for i, (start, end) in enumerate(spans) if end > start >= 0]
    if not held or first == last or spans[held[0]][0] > first or spans[held[-1]][1] < last:
        return 0, 0
    inside = [i for i in held if spans[i][1] > first and spans[i][0] < last]
    if not inside:  # the tokenizer drops every character of it
        return 0, 0
    return inside[0], inside[-1]


def _rows_of(encoding: Any, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    names = [name for name in tokenizer.model_input_names if name in encoding]
    return [{name: encoding[name][i] for name in names} for i in range(len(encoding["input_ids"]))]


def tags_of(
    encoded: EncodedRows, logits: Sequence[NDArray[Any]], num_words: Sequence[int], outside: int
) -> list[list[int]]:
    """The tag number of every word of every text.

    Args:
        logits: (L, C) of each row.
        outside: the tag of a word that no token begins (the tokenizer drops it).
    """
    assert encoded.words is not None
    tags = [[outside] * number for number in num_words]
    depth = [[-1] * number for number in num_words]
    for row_logits, first, at in zip(logits, encoded.words, encoded.examples, strict=True):
        best = row_logits.argmax(axis=-1)
        for token, word in enumerate(first):
            inner = min(token, len(first) - 1 - token)
            if word >= 0 and inner > depth[at][word]:
                tags[at][word], depth[at][word] = int(best[token]), inner
    return tags


def answers_of(
    encoded: EncodedRows, outputs: Sequence[Mapping[str, NDArray[Any]]], contexts: Sequence[str], *, may_be_none: bool
) -> list[str]:
    """The answer to every question, as it is in its context.

    Args:
        outputs: `start_logits` and `end_logits` (L,) of each row.
        may_be_none: answer with nothing where the first token scores higher than every span (SQuAD 2.0, threshold 0).
    """
    assert encoded.spans is not None
    best: list[tuple[float, str]] = [(-float("inf"), "")] * len(contexts)
    null = [float("inf")] * len(contexts)
    for row, spans, at in zip(outputs, encoded.spans, encoded.examples, strict=True):
        start_L, end_L = row["start_logits"], row["end_logits"]
        null[at] = min(null[at], float(start_L[0]) + float(end_L[0]))
        score, first, last = best_span(start_L, end_L, [i for i, (a, b) in enumerate(spans) if b > a >= 0])
        if score > best[at][0]:
            # Some tokenizers count the blank before a word as part of it.
            best[at] = (score, contexts[at][spans[first][0] : spans[last][1]].strip())
    return ["" if may_be_none and null[i] > score else text for i, (score, text) in enumerate(best)]


def best_span(start_L: NDArray[Any], end_L: NDArray[Any], allowed: Sequence[int]) -> tuple[float, int, int]:
    """(score, first, last token) of the best span within `allowed`; minus infinity where there is none."""
    import numpy as np

    if not allowed:
        return -float("inf"), 0, 0
    places = np.asarray(allowed)
    starts = places[np.argsort(-start_L[places], kind="stable")[:N_BEST]]
    ends = places[np.argsort(-end_L[places], kind="stable")[:N_BEST]]
    scores = start_L[starts][:, None].astype(np.float64) + end_L[ends][None, :]
    length = ends[None, :] - starts[:, None] + 1
    scores[(length < 1) | (length > MAX_ANSWER_TOKENS)] = -np.inf
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[row, column]), int(starts[row]), int(ends[column])
