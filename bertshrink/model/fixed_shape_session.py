"""A session for files that do not take every shape: what is asked is cut into pieces that the file takes.

A file exported for one shape (B, S) takes B rows of S tokens and nothing else; others take B rows of any length, or any
number of rows of S tokens; one with planned memory takes at most so many rows. Rows beyond that run in further passes,
short rows are padded to S with mask 0, and missing rows are copies of the first one, so that what an engine derives
from a whole batch (ranges of activations) is derived from text. What was added is cut off the outputs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertshrink.engines import Arrays, Session

Shape = tuple[int | None, int | None]
"""(batch, length); None: any."""


def shape_words(shape: Shape) -> str:
    """`2x16`, `anyx16`: batch and length, for messages."""
    return "x".join("any" if size is None else str(size) for size in shape)


class FixedShapeSession:
    """A session that takes any batch, in front of one that does not.

    Args:
        shape: the (batch, length) that it takes; None: any number of rows, or of tokens in a row.
        max_batch: the most rows that it takes at once; None: any number.
        pad_id: the token that stands for none.
        per_token: whether outputs have a length axis, (B, L, ...).
    """

    def __init__(
        self,
        session: Session,
        shape: Shape | None,
        pad_id: int,
        *,
        per_token: bool,
        max_batch: int | None = None,
    ) -> None:
        self.session = session
        self.batch, self.length = shape or (None, None)
        self.max_batch = self.batch or max_batch
        self.pad_id = pad_id
        self.per_token = per_token

    def run(self, feeds: Arrays) -> Arrays:
        """Forward passes over all rows, as many at once as it takes. Raises ValueError: rows are too long for it."""
        import numpy as np

        num_rows, num_tokens = feeds["input_ids"].shape
        if self.length is not None and num_tokens > self.length:
            raise ValueError(f"rows have {num_tokens} tokens, and the file takes {self.length}")
        parts = []
        at_once = self.max_batch or max(1, num_rows)
        for start in range(0, num_rows, at_once):
            part = {name: array[start : start + at_once] for name, array in feeds.items()}
            num_here = part["input_ids"].shape[0]
            outputs = self.session.run(pad_to_shape(part, (self.batch, self.length), self.pad_id))
            parts.append({name: self._cut(array, num_here, num_tokens) for name, array in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def describe(self) -> dict[str, Any]:
        """What the engine says, and the shape."""
        return self.session.describe() | {"batch": self.max_batch, "length": self.length}

    def _cut(self, array: Any, num_rows: int, num_tokens: int) -> Any:
        kept = array[:num_rows]
        return kept[:, :num_tokens] if self.per_token else kept


def pad_to_shape(feeds: Arrays, shape: Shape, pad_id: int) -> Arrays:
    """Arrays (B, L) at the size that a file takes, (batch, length), None: any: see this file's opening."""
    import numpy as np

    padded: Arrays = {}
    for name, array_BL in feeds.items():
        missing = [(wanted or own) - own for wanted, own in zip(shape, array_BL.shape, strict=True)]
        fill = pad_id if name == "input_ids" else 0
        longer = np.pad(array_BL, ((0, 0), (0, missing[1])), constant_values=fill)
        padded[name] = np.concatenate([longer, np.repeat(longer[:1], missing[0], axis=0)])
    return padded
