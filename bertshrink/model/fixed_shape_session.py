"""A session for files that do not take every shape: what is asked is cut into pieces that the file takes.

A file exported for one shape (B, S) takes B rows of S tokens and nothing else; one with planned memory takes at most so
many rows. Rows beyond that run in further passes, short rows are padded to S with mask 0, and missing rows are copies
of the first one, so that what an engine derives from a whole batch (ranges of activations) is derived from text. What
was added is cut off the outputs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertshrink.engines import Arrays, Session


class FixedShapeSession:
    """A session that takes any batch, in front of one that does not.

    Args:
        batch: the rows that it takes at once.
        length: the tokens that a row must have; None: any number.
        pad_id: the token that stands for none.
        per_token: whether outputs have a length axis, (B, L, ...).
    """

    def __init__(self, session: Session, batch: int, length: int | None, pad_id: int, *, per_token: bool) -> None:
        self.session = session
        self.batch = batch
        self.length = length
        self.pad_id = pad_id
        self.per_token = per_token

    def run(self, feeds: Arrays) -> Arrays:
        """Forward passes over all rows, `batch` at a time. Raises ValueError: rows are longer than the file takes."""
        import numpy as np

        num_rows, num_tokens = feeds["input_ids"].shape
        if self.length is not None and num_tokens > self.length:
            raise ValueError(f"rows have {num_tokens} tokens, and the file takes {self.length}")
        parts = []
        for start in range(0, num_rows, self.batch):
            part = {name: array[start : start + self.batch] for name, array in feeds.items()}
            num_here = part["input_ids"].shape[0]
            outputs = self.session.run(
                part if self.length is None else pad_to_shape(part, self.batch, self.length, self.pad_id)
            )
            parts.append({name: self._cut(array, num_here, num_tokens) for name, array in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def describe(self) -> dict[str, Any]:
        """What the engine says, and the shape."""
        return self.session.describe() | {"batch": self.batch, "length": self.length}

    def _cut(self, array: Any, num_rows: int, num_tokens: int) -> Any:
        kept = array[:num_rows]
        return kept[:, :num_tokens] if self.per_token else kept


def pad_to_shape(feeds: Arrays, batch: int, length: int, pad_id: int) -> Arrays:
    """Arrays (B, L) at the one size that a file takes, (batch, length): see this file's opening."""
    import numpy as np

    padded: Arrays = {}
    for name, array_BL in feeds.items():
        missing = (batch - array_BL.shape[0], length - array_BL.shape[1])
        fill = pad_id if name == "input_ids" else 0
        longer = np.pad(array_BL, ((0, 0), (0, missing[1])), constant_values=fill)
        padded[name] = np.concatenate([longer, np.repeat(longer[:1], missing[0], axis=0)])
    return padded
