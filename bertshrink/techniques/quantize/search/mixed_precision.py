"""Repair by measurement: the smallest assignment of types that keeps the task's metric within a limit.

    1  as asked                      holds the limit? done
    2  each weight wider, alone      its gain: how much nearer outputs on calibration texts come to the float ones
    3  all weights one format wider    does not hold? that is the new beginning, back to 2
    4  the worst wider               worst: most gain for each byte that widening costs; how many of them are needed is
                                     found by halving, since more of them is taken to be better
    5  given back                    of those, the largest that are not needed after all

Every assignment that is told of was written, run and judged as a whole: the gains only say in which order to try. A
metric that jumps (accuracy is counted in texts) can make step 4 miss a smaller assignment; never one that holds.

The idea of reverting what costs most: accuracy control in NNCF (https://docs.openvino.ai, "Quantizing with Accuracy
Control") goes back to float32 a layer at a time; here a wider integer type is tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertshrink.techniques.quantize.search.trials import BuiltVariant

WIDER = {
    "int4-block": "int8-block",
    "int8-block": "float16",
    "int8-static": "int8-dynamic",
    "int8-dynamic": "float16",
    "float16": "float32",
    "bfloat16": "float32",
}
"""Type -> the next one that loses less."""

MAX_GIVEN_BACK = 8
"""How many weights are tried to be narrow again: the largest are most of the bytes, and each try is judged in full."""

Types = Mapping[str, str]


@dataclass(frozen=True)
class Attempt:
    """One assignment, written and judged.

    Attributes:
        drop: of the metric, as a share of the float file's; negative where it rose.
    """

    types: Types
    size_bytes: int
    drop: float
    built: BuiltVariant | None = None


@dataclass(frozen=True)
class SearchStep:
    """One attempt on the road, in words and numbers.

    Attributes:
        drop: of the metric, as a share.
    """

    what: str
    size_bytes: int
    drop: float
    holds: bool


@dataclass(frozen=True)
class SearchResult:
    """What a search leads to.

    Attributes:
        best: the smallest attempt that holds the limit; None where even the widest types do not.
        road: what was tried, in order.
        gains: weight name -> what one type more for it alone takes from the error.
    """

    best: Attempt | None
    road: list[SearchStep]
    gains: dict[str, float]


def is_within(drop: float, limit: float) -> bool:
    """Whether a drop is within the limit; what is not a number is not."""
    return drop <= limit + 1e-12


@dataclass
class MixedPrecisionSearch:
    """The search.

    Attributes:
        judge: writes an assignment and judges it.
        error: how far the outputs of an assignment are from the float ones: 0 or more.
        size: bytes of a weight in a type: (name, type).
        limit: the largest drop that is accepted, as a share.
    """

    judge: Callable[[Types], Attempt]
    error: Callable[[Types], float]
    size: Callable[[str, str], int]
    limit: float
    _road: list[SearchStep] = field(default_factory=list)
    _gains: dict[str, float] = field(default_factory=dict)

    def run(self, types: Types) -> SearchResult:
        """Search from the types that were asked for."""
        return SearchResult(self._best(types), self._road, self._gains)

    def _best(self, types: Types) -> Attempt | None:
        attempt = self.attempt(types, "as asked")
        while not self.holds(attempt):
            names = [name for name, kind in attempt.types.items() if kind in WIDER]
            if not names:
                return None
            narrow = attempt.types
            before = self.error(narrow)
            self._gains = {name: before - self.error(widen(narrow, [name])) for name in names}
            worst_first = sorted(names, key=lambda name: (-self._gains[name] / self.cost(narrow, name), name))
            attempt = self.attempt(widen(narrow, names), f"all {len(names)} one format wider")
            if self.holds(attempt):
                return self.give_back(narrow, *self.fewest(narrow, worst_first, attempt))
        return attempt

    def fewest(self, narrow: Types, worst_first: list[str], all_wide: Attempt) -> tuple[list[str], Attempt]:
        """The fewest of the worst weights that have to be wider, and that attempt: by halving."""
        low, high, best = 0, len(worst_first), all_wide
        while high - low > 1:
            middle = (low + high) // 2
            names = worst_first[:middle]
            tried = self.attempt(widen(narrow, names), f"the worst {middle} of {len(worst_first)} one format wider")
            if self.holds(tried):
                high, best = middle, tried
            else:
                low = middle
        return worst_first[:high], best

    def give_back(self, narrow: Types, wide: list[str], best: Attempt) -> Attempt:
        """Try the widened weights that cost most in their narrow type again, one by one."""
        kept = list(wide)
        for name in sorted(wide, key=lambda name: (-self.cost(narrow, name), name))[:MAX_GIVEN_BACK]:
            if len(kept) == 1:
                break
            fewer = [other for other in kept if other != name]
            tried = self.attempt(widen(narrow, fewer), f"`{name}` narrow again")
            if self.holds(tried):
                kept, best = fewer, tried
        return best

    def attempt(self, types: Types, what: str) -> Attempt:
        """Judge an assignment and write it down."""
        attempt = self.judge(types)
        self._road.append(SearchStep(what, attempt.size_bytes, attempt.drop, self.holds(attempt)))
        return attempt

    def holds(self, attempt: Attempt) -> bool:
        """Whether its drop is within the limit."""
        return is_within(attempt.drop, self.limit)

    def cost(self, narrow: Types, name: str) -> int:
        """Bytes that one weight takes more when it is one format wider; 1 at least."""
        return max(1, self.size(name, WIDER[narrow[name]]) - self.size(name, narrow[name]))


def widen(types: Types, names: list[str]) -> dict[str, str]:
    """The same assignment with some weights one format wider."""
    chosen = set(names)
    return {name: WIDER[kind] if name in chosen else kind for name, kind in types.items()}
