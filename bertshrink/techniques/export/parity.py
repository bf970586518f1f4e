"""Does the file give PyTorch's numbers? Compared on real sentences with real padding, at five shapes.

Shapes (batch x length): 1x1, 1x7, 5x31, 8x128, 2x512, cut at the model's maximum, and 1x1024 where it takes so many
tokens (beyond windows of attention, and where rotary positions have turned far); or the one that the file takes. Rows
of a batch have different lengths. Outputs with a length axis are compared at tokens only: what is at padding is
nobody's answer. The rule is

    max |file - PyTorch|  <=  tolerance * max |PyTorch|  +  1e-6

for each output by itself, so that it means the same for logits of 0.01 and of 30; the last term is rounding where every
value is near zero.

The engine that the file is for does the running, in float32 also where it would choose bfloat16 by itself: the question
is whether the file holds the model. PyTorch answers first, at every shape, and its weights may then go: the two models
are never in memory together. Its answers wait on disk, since a masked language model's take more than its weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from bertshrink.engines import engine
from bertshrink.errors import CheckFailed
from bertshrink.hardware import release_freed_memory
from bertshrink.model.artifact import Artifact, ArtifactSpec
from bertshrink.model.batches import Row, pad
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.engines import Arrays
    from bertshrink.model.encoder import Encoder

SHAPES = ((1, 1), (1, 7), (5, 31), (8, 128), (2, 512))
LONG = (1, 1024)
ANY = ArtifactSpec()
"""An ONNX file of any shape, run by ONNX Runtime."""

_ROUNDING = 1e-6
"""A few units in the last place of float32 sums of a few hundred terms of size one."""

_TEXT = (
    "The harbour wakes before the town does. Fishermen coil wet rope while gulls argue over scraps, and a radio behind "
    "an open door reads yesterday's prices. By noon the square smells of coffee, diesel and oranges; two engineers "
    "draw bridges on a paper napkin and agree on nothing except the bill. Was it worth the journey? Nobody asks in "
    "winter, when 14 of the 20 boats stay ashore and the ferry runs only on Tuesdays. "
)


def check_parity(
    encoder: Encoder,
    path: Path,
    tolerance: float,
    form: ArtifactSpec = ANY,
    outputs: Sequence[str] | None = None,
    unload: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Compare a file with the encoder that it came from.

    Args:
        encoder: the original, float32.
        outputs: the names of what it gives, all of which are compared; None: the task's.
        unload: lets the encoder's weights go; called when it has answered.

    Returns:
        shape, as `5x31` -> largest difference as a share of the largest value of the same output.

    Raises:
        CheckFailed: at some shape the difference is larger than the tolerance, or not finite.
    """
    shapes = [padded_text(encoder, *shape) for shape in shapes_of(form, encoder.max_length)]
    names = outputs or TASKS[encoder.task].outputs
    worst: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        kept = [Path(scratch) / f"{at}.npz" for at in range(len(shapes))]
        theirs = encoder.session(names)
        for feeds, answers in zip(shapes, kept, strict=True):
            np.savez(answers, **cast(Any, at_tokens(theirs.run(feeds), feeds, encoder.task)))
        del theirs
        unload()
        ours = engine(form.engine).load(str(path), options={"precision": "float32", "outputs": list(names)})
        for feeds, answers in zip(shapes, kept, strict=True):
            shape = "x".join(str(size) for size in feeds["attention_mask"].shape)
            left = at_tokens(ours.run(feeds), feeds, encoder.task)
            with np.load(answers) as right:
                worst[shape] = max(
                    _share(left[name], right[name], tolerance, path, f"`{name}` {shape}") for name in names
                )
    del ours
    release_freed_memory()
    return worst


def _share(ours: NDArray[np.generic], theirs: NDArray[np.generic], tolerance: float, path: Path, at: str) -> float:
    """The largest difference of an output as a share of the largest value of PyTorch, refused above `tolerance`."""
    if ours.shape != theirs.shape:
        raise CheckFailed(
            f"the {path.suffix[1:].upper()} file gives numbers of the shape {ours.shape} at {at}, and PyTorch of "
            f"{theirs.shape}",
            where=str(path),
            hint="the engine computes the graph in another way: choose another with `engine`",
        )
    right = theirs.astype(np.float64)
    scale, difference = float(np.abs(right).max()), float(np.abs(ours.astype(np.float64) - right).max())
    if not difference <= tolerance * scale + _ROUNDING:
        raise CheckFailed(
            f"the {path.suffix[1:].upper()} file differs from PyTorch by {difference:.2e} at {at}, where "
            f"values reach {scale:.2e} and the tolerance is {tolerance:.0e} of that",
            where=str(path),
            hint="raise `tolerance` to accept it; more often the graph was traced wrongly",
        )
    return difference / scale if scale else 0.0


def shapes_of(form: ArtifactSpec, max_length: int) -> list[tuple[int, int]]:
    """The shapes (batch, length) at which a file is compared, each that it takes once."""
    only_batch, only_length = form.shape or (None, None)
    most = form.max_batch or max(batch for batch, _ in SHAPES)
    shapes = [*SHAPES, LONG] if max_length >= LONG[1] else SHAPES
    return list(
        dict.fromkeys(
            (only_batch or min(batch, most), only_length or min(length, max_length)) for batch, length in shapes
        )
    )


def padded_text(encoder: Encoder | Artifact, batch: int, length: int) -> Arrays:
    """A right-padded batch of real text: the first row is `length` tokens, the last about a quarter of that."""
    rows: list[Row] = []
    sentences = _TEXT.split(". ")
    for at in range(batch):
        num_tokens = max(1, length - (3 * length * at) // (4 * max(1, batch - 1)))
        text = ". ".join(sentences[at % 4 :] + sentences * (1 + length // 40))
        (row,) = encoder.tokenize([text], max_length=max(3, num_tokens))
        rows.append({name: values[:num_tokens] for name, values in row.items()})
    return pad(rows, encoder.tokenizer.pad_token_id or 0)


def at_tokens(outputs: Arrays, feeds: Arrays, task: str) -> Arrays:
    """Outputs; of those with a length axis, (B, L, ...), the values at tokens."""
    mask_BL, row = feeds["attention_mask"].astype(bool), TASKS[task]
    return {name: value[mask_BL] if row.per_token or name in row.beside else value for name, value in outputs.items()}
