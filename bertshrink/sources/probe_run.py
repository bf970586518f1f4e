"""What a model file does when it is run: which batches and lengths it takes, what its outputs' axes are, which token
ids it knows. Exporters write these things in too many ways to be read off a graph, and a declared size may be wrong:

    batch, length   declared, or open where two of each run and the outputs follow; a size that is baked into the graph
                    without a word is found because others do not run
    vocabulary      the ids run up to a largest one: a lookup beyond its table is an error in ONNX Runtime. What the
                    graph says (`onnx_checks.table_rows`) is tried first; without it the largest id is searched for
    longest input   likewise, and only where no config.json tells (`longest_input`)

A graph that clips its ids, or has no table, takes any id: then nothing is known of its vocabulary. It runs in the
child process only (see `probe_child`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.engines import engine
from bertshrink.errors import UnsafeModel
from bertshrink.sources.probe_limits import _MADE_AGAIN, check_finite

if TYPE_CHECKING:
    from bertshrink.engines import Arrays

_LENGTH, _LONGER = 5, 8
_BAKED_LENGTHS = (128, 512, 256, 384, 64, 32)
"""Those that exporters trace at, most frequent first; tried where a graph that says `any length` does not take 5."""
_MOST_IDS = 1 << 24
"""No vocabulary has so many tokens: whoever takes this id takes any."""
MOST_TOKENS = 512
"""The longest input that is tried: what most encoders take, and a moment's work for all."""


class ModelRuns:
    """A file, opened, and run on batches of one token each.

    Args:
        inputs: the file's input -> the name that bertshrink has for it, its numpy type, its (batch, length).

    Raises:
        UnsafeModel: ONNX Runtime cannot open it.
    """

    def __init__(self, path: Path, inputs: Mapping[str, tuple[str, Any, tuple[int | None, int | None]]]) -> None:
        self.path = path
        self.inputs = inputs
        sizes = [one for _, _, one in inputs.values()]
        self.batch, self.length = (next((one[at] for one in sizes if one[at]), None) for at in (0, 1))
        try:
            self.session = engine("onnxruntime").load(str(path), threads=1)
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise self._refused(error) from None

    def outputs(self, batch: int, length: int, token: int = 1) -> Arrays:
        """One forward pass. Raises UnsafeModel: it cannot be run, or gives values that are not finite."""
        import numpy as np

        arrays = {
            "input_ids": np.full((batch, length), token),
            "attention_mask": np.ones((batch, length), np.int64),
            "token_type_ids": np.zeros((batch, length), np.int64),
            "position_ids": np.tile(np.arange(length), (batch, 1)),
        }
        try:
            feeds = {name: arrays[ours].astype(kind) for name, (ours, kind, _) in self.inputs.items()}
            outputs = self.session.run(feeds)
        except Exception as error:  # see above
            raise self._refused(error) from None
        check_finite(outputs)
        return outputs

    def first(self) -> tuple[int, int, Arrays]:
        """A batch and a length that run, and what came out. Raises UnsafeModel: as the first try."""
        batch, length = self.batch or 1, self.length or _LENGTH
        try:
            return batch, length, self.outputs(batch, length)
        except UnsafeModel as error:
            for other in _BAKED_LENGTHS if self.length is None else ():
                if (outputs := self.tried(batch, other)) is not None:
                    return batch, other, outputs
            raise error from None

    def tried(self, batch: int, length: int, token: int = 1) -> Arrays | None:
        """What comes out; None where it does not run."""
        try:
            return self.outputs(batch, length, token)
        except UnsafeModel:
            return None

    def _refused(self, error: Exception) -> UnsafeModel:
        """ONNX Runtime's message, without its codes and the place of our copy."""
        lines = str(error).splitlines() or [type(error).__name__]
        said = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0]).replace(str(self.path), self.path.name)
        return UnsafeModel(f"ONNX Runtime cannot run the file: {said[:300]}", hint=_MADE_AGAIN)


def look_at_runs(runs: ModelRuns, rows: int | None) -> dict[str, Any]:
    """Run a file at a few shapes and ids.

    Args:
        rows: of the table that the ids look up, as the graph says; None: it does not.

    Returns:
        `shape`: the (batch, length) that it takes, None where any does; `outputs`: the shape of each by name, None for
        an axis that follows batch or length; `vocab_size`: how many ids it takes, None: not known.

    Raises:
        UnsafeModel: it cannot be run, or gives values that are not finite.
    """
    batch, length, small = runs.first()
    several = runs.tried(batch + 1, length) if runs.batch is None else None
    longer = runs.tried(batch, length + _LONGER - _LENGTH) if runs.length is None and length == _LENGTH else None
    shapes = {name: list(value.shape) for name, value in small.items()}
    for other in (several, longer):
        for name, value in (other or {}).items():
            if len(value.shape) == len(shapes[name]):
                same = zip(shapes[name], value.shape, strict=True)
                shapes[name] = [
                    None if own is None or size != small[name].shape[at] else own for at, (own, size) in enumerate(same)
                ]
    return {
        "shape": [batch if several is None else None, length if longer is None else None],
        "outputs": shapes,
        "vocab_size": _num_ids(lambda token: runs.tried(batch, length, token) is not None, rows),
    }


def _num_ids(runs: Callable[[int], bool], rows: int | None) -> int | None:
    if rows is not None and 0 < rows <= _MOST_IDS and runs(rows - 1) and not runs(rows):
        return rows
    return None if runs(_MOST_IDS) else largest(runs, 1, _MOST_IDS) + 1


def longest_input(runs: ModelRuns) -> int:
    """The most tokens up to `MOST_TOKENS` that the file takes. Raises UnsafeModel: it cannot be run."""
    batch, length, _ = runs.first()

    def takes(number: int) -> bool:
        return runs.tried(batch, number) is not None

    return MOST_TOKENS if takes(MOST_TOKENS) else largest(takes, length, MOST_TOKENS)


def largest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number for which something holds; it holds at `low`, not at `high`, and changes once."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
