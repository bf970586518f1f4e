"""Training batches: rows of like length, padded, with labels of the task's shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from bertshrink.data.encoding import IGNORED
from bertshrink.model.batches import Row, pad
from bertshrink.training.rows.masking import TokenMasker

BUCKET_BATCHES = 50
"""Rows are sorted by length within this many batches, and batches stay random: at 32 rows a batch padding is 4.5 % of
the tokens on SST-2 and 2.2 % on `builtin:pydoc`."""

Item = tuple[Row, Any, int, int]
"""A training row: token ids, label, its number, the epoch."""


class LengthBucketSampler(Sampler[list[int]]):
    """Batches of row numbers, shuffled again each epoch, each of rows of like length.

    Several processes cut the same batches and each takes its share of every one of them, so that a run has the same
    batches whatever their number is.

    Args:
        lengths: tokens of each row.
        batch_size: rows per batch at most, over all processes.
        max_tokens_per_batch: tokens per batch at most, padding included; None: no limit.
        seed: with the epoch, decides everything.
        rank: the number of this process.
        world_size: how many there are.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        max_tokens_per_batch: int | None,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.max_tokens_per_batch = max_tokens_per_batch
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._num_batches = len(self._batches(0))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[list[int]]:
        # Every epoch must have as many batches as the first, or the schedule and a resumed run would be off. Cutting by
        # rows alone keeps that; a cap on tokens moves the count by a few, which are left out or come twice.
        batches = self._batches(self.epoch)
        for batch in (batches + batches)[: self._num_batches]:
            # A batch of fewer rows than processes gives a row to each, some of them the same.
            yield batch[self.rank :: self.world_size] or batch[:1]

    def _batches(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng((self.seed, epoch))
        order = generator.permutation(len(self.lengths))
        size = self.batch_size * BUCKET_BATCHES
        batches: list[list[int]] = []
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            chunk = chunk[np.argsort(-self.lengths[chunk], kind="stable")]
            batches += self._cut(chunk)
        generator.shuffle(batches)
        return batches

    def _cut(self, rows: np.ndarray) -> list[list[int]]:
        batches: list[list[int]] = []
        for row in rows.tolist():
            if batches:
                last = batches[-1]
                tokens = int(self.lengths[last[0]]) * (len(last) + 1)
                if len(last) < self.batch_size and (
                    self.max_tokens_per_batch is None or tokens <= self.max_tokens_per_batch
                ):
                    last.append(row)
                    continue
            batches.append([row])
        return batches


class TokenizedRows(torch.utils.data.Dataset[Item]):
    """Tokenized rows with their labels, numbered; knows the epoch, which the masks depend on.

    Args:
        rows: token ids and masks of each.
        labels: one a row, None where it has none.
    """

    def __init__(self, rows: Sequence[Row], labels: Sequence[Any]) -> None:
        self.rows, self.labels = rows, labels
        self.epoch = 0

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row["input_ids"]) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> Item:
        return self.rows[at], self.labels[at], at, self.epoch


class Collator:
    """Rows to padded tensors: each name int64 (B, L), `rows` (B,), and `labels` in the task's shape.

    Under masks the labels are the masked tokens; a label that a row has besides (of its two segments) goes to `pairs`.

    Args:
        task: a name in `TASKS`.
        pad_id: of the tokenizer.
        num_labels: C, for multi-label.
        masker: MLM: throws the masks, which are the labels.
    """

    def __init__(self, task: str, pad_id: int, num_labels: int = 0, masker: TokenMasker | None = None) -> None:
        self.task = task
        self.pad_id = pad_id
        self.num_labels = num_labels
        self.masker = masker

    def __call__(self, items: list[Item]) -> dict[str, Tensor]:
        """A batch."""
        rows, labels = [row for row, *_ in items], [label for _, label, *_ in items]
        if self.masker is not None:
            thrown = [self.masker(row["input_ids"], epoch, number) for row, _, number, epoch in items]
            rows = [row | {"input_ids": ids.tolist()} for row, (ids, _) in zip(rows, thrown, strict=True)]
            labels = [targets.tolist() for _, targets in thrown]
        arrays = pad(rows, self.pad_id)
        batch = {name: torch.from_numpy(block) for name, block in arrays.items()}
        batch["rows"] = torch.tensor([number for _, _, number, _ in items])
        if self.masker is not None and items[0][1] is not None:
            batch["pairs"] = torch.tensor([label for _, label, *_ in items])
        tensor = LABEL_TENSORS[self.task]
        if tensor is not None:
            batch["labels"] = tensor(labels, batch["input_ids"].shape[1], self.num_labels)
        return batch


def _scores(labels: Sequence[Any], length: int, num_labels: int) -> Tensor:
    return torch.tensor([math.nan if label is None else label for label in labels])


def _sets(labels: Sequence[Any], length: int, num_labels: int) -> Tensor:
    return torch.tensor([(math.nan,) * num_labels if label is None else label for label in labels])


def _ends(labels: Sequence[Any], length: int, num_labels: int) -> Tensor:
    return torch.tensor([(IGNORED, IGNORED) if label is None else label for label in labels])


def _classes(labels: Sequence[Any], length: int, num_labels: int) -> Tensor:
    return torch.tensor([IGNORED if label is None else label for label in labels])


def _tokens(labels: Sequence[Any], length: int, num_labels: int) -> Tensor:
    labels_BL = torch.full((len(labels), length), IGNORED)
    for row, label in zip(labels_BL, labels, strict=True):
        if label is not None:
            row[: len(label)] = torch.tensor(label)
    return labels_BL


LABEL_TENSORS: dict[str, Callable[[Sequence[Any], int, int], Tensor] | None] = {
    "classification": _classes,
    "multi-label": _sets,
    "regression": _scores,
    "token-classification": _tokens,
    "question-answering": _ends,
    "embedding": None,
    "sparse-embedding": None,
    "mlm": _tokens,
}
"""(a batch's labels, its length, number of classes) -> tensor; `IGNORED`, or NaN for scores, where there is none."""
