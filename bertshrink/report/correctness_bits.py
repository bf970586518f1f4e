"""Which answers were right, one bit each: what two models are compared by, question by question.

Two accuracies of 0.912 and 0.908 on 872 texts say little: the same 4 answers may have been lost, or 40 lost and 36 won.
With the outcomes kept, the second model is compared with the first on every text (`gates.paired_test`). 872 answers
are 109 bytes; 100,000 are 12.5 kB.

The first answer is the highest bit of the first byte, as numpy's `packbits` has it.
"""

import base64
import binascii
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Outcomes(BaseModel):
    """One bit an answer, 1 where it is right; of which questions is in the measurement's conditions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num: int = Field(ge=1)
    bits: str = Field(description="base64")

    @model_validator(mode="after")
    def _is_whole(self) -> "Outcomes":
        """Refuse bits that are not `num` bits."""
        try:
            raw = base64.b64decode(self.bits, validate=True)
        except binascii.Error:
            raise ValueError("the outcomes are not base64") from None
        spare = 8 * len(raw) - self.num
        if not 0 <= spare < 8 or (raw and raw[-1] & ((1 << spare) - 1)):
            raise ValueError(f"the outcomes are not those of {self.num} answers")
        return self

    @classmethod
    def of(cls, right: Iterable[object]) -> "Outcomes":
        """Pack one truth value an answer; at least one."""
        values = [bool(value) for value in right]
        padded = values + [False] * (-len(values) % 8)
        number = int("".join("1" if value else "0" for value in padded), 2)
        return cls(num=len(values), bits=base64.b64encode(number.to_bytes(len(padded) // 8, "big")).decode())

    def to_int(self) -> int:
        """All bits as one number."""
        return int.from_bytes(base64.b64decode(self.bits), "big")

    @property
    def num_right(self) -> int:
        """How many answers are right."""
        return self.to_int().bit_count()

    def lost_and_won(self, other: "Outcomes") -> tuple[int, int]:
        """(right here and wrong there, wrong here and right there).

        Raises:
            ValueError: the other side answers another number of questions.
        """
        if self.num != other.num:
            raise ValueError(f"{self.num} answers cannot be compared with {other.num}")
        mine, theirs = self.to_int(), other.to_int()
        return (mine & ~theirs).bit_count(), (~mine & theirs).bit_count()
