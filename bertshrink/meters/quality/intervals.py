"""How far a figure would be elsewhere on other texts of the same kind, and how far ahead of the reference it is.

    a share of answers       Wilson's interval (JASA 22, 1927): no wider than needed, never below 0 or above 1
    a correlation            Fisher's z; of ranks with the wider error of Bonett and Wright (Psychometrika 65, 2000)
    F1, recall, perplexity   the percentile bootstrap over texts: a text is drawn with all its tags or tokens, which
                             hang together
    likeness of all pairs    Student's interval over ten groups of texts, since pairs that share a text hang together

The distance to the reference is drawn over the same texts for both models, so that what is hard for both cancels. Of
shares of answers no distance is drawn: their outcomes are kept, and tested exactly when the report is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bertshrink.report.statistics import fisher_interval, student_quantile, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

NUM_RESAMPLES = 1000
"""Enough for two digits of a 95 % interval."""

_SEED = 20262
_MOST_DRAWN = 1 << 23
"""Text numbers drawn at once: 64 MB."""
_GROUPS = 10
_MIN_GROUP = 5
"""Texts of a group: fewer have too few pairs to rank."""

Bounds = tuple[float, float] | None


class Spread(Protocol):
    """What a figure's texts say of it."""

    def interval(self) -> Bounds:
        """95 % bounds of the figure; None where they is unknown."""

    def drawn(self) -> Floats | None:
        """The figure on texts drawn again, the same ones for every model; None where none are drawn."""


@dataclass(frozen=True)
class Share:
    """A share of answers, one a question."""

    num_right: int
    num: int

    def interval(self) -> Bounds:
        """By Wilson."""
        return wilson_interval(self.num_right, self.num) if self.num else None

    def drawn(self) -> Floats | None:
        """None: the outcomes themselves are kept."""
        return None


@dataclass(frozen=True)
class Sums:
    """A figure that is the mean over K parts of a quotient of sums over texts, such as F1 of K classes.

    Attributes:
        above_NK: what each text adds above the line.
        below_NK: and below it; a part with nothing below it is left out.
        is_loss: the figure is exp of minus that, as a perplexity is.
        num_parts: what the sum over the parts is divided by; None: by those that have something below the line.
    """

    above_NK: Floats
    below_NK: Floats
    is_loss: bool = False
    num_parts: int | None = None

    def interval(self) -> Bounds:
        """The percentile bootstrap."""
        drawn = self.drawn()
        return _middle(drawn) if drawn is not None else None

    def drawn(self) -> Floats | None:
        """The figure on each resample."""
        import numpy as np

        num = len(self.above_NK)
        if num < 2:
            return None
        chunks = []
        for counts_RN in _resamples(num):
            above_RK, below_RK = counts_RN @ self.above_NK, counts_RN @ self.below_NK
            quotient = np.divide(above_RK, below_RK, out=np.zeros_like(above_RK), where=below_RK > 0)
            parts: Any = self.num_parts or np.maximum(1, (below_RK > 0).sum(axis=1))
            chunks.append(quotient.sum(axis=1) / parts)
        values: Floats = np.concatenate(chunks)
        return np.exp(-values) if self.is_loss else values


def quotient(above_N: Any, below_N: Any = None, *, is_loss: bool = False) -> Sums:
    """A figure of one part; with nothing given below the line, a mean over texts."""
    import numpy as np

    above = np.asarray(above_N, dtype=np.float64)[:, None]
    below = np.ones_like(above) if below_N is None else np.asarray(below_N, dtype=np.float64)[:, None]
    return Sums(above, below, is_loss)


@dataclass(frozen=True)
class Correlation:
    """A correlation of values with the right ones."""

    mine_N: Floats
    right_N: Floats
    value: float
    is_of_ranks: bool

    def interval(self) -> Bounds:
        """By Fisher's z."""
        return fisher_interval(self.value, len(self.mine_N), is_of_ranks=self.is_of_ranks)

    def drawn(self) -> Floats | None:
        """The correlation on each resample, of ranks taken within it."""
        import numpy as np
        from scipy.stats import rankdata

        num = len(self.mine_N)
        if num < 4:
            return None
        chunks = []
        for at_RN in _draws(num):
            mine, right = self.mine_N[at_RN].astype(np.float64), self.right_N[at_RN].astype(np.float64)
            if self.is_of_ranks:
                mine, right = rankdata(mine, axis=1), rankdata(right, axis=1)
            mine, right = (side - side.mean(axis=1, keepdims=True) for side in (mine, right))
            scale = np.sqrt((mine**2).sum(axis=1) * (right**2).sum(axis=1))
            product = (mine * right).sum(axis=1)
            chunks.append(np.divide(product, scale, out=np.zeros_like(product), where=scale > 0))
        return np.concatenate(chunks)


@dataclass(frozen=True)
class Groups:
    """A figure that has a value on each of some groups of texts."""

    value: float
    of_groups: tuple[float, ...]

    def interval(self) -> Bounds:
        """Student's interval around the whole's value."""
        import numpy as np

        num = len(self.of_groups)
        if num < 2:
            return None
        half = student_quantile(num - 1, 0.975) * float(np.std(self.of_groups, ddof=1)) / num**0.5
        return max(-1.0, self.value - half), min(1.0, self.value + half)

    def drawn(self) -> Floats | None:
        """None: it is a likeness, in which the reference is not a rival."""
        return None


def groups_of(num: int) -> list[slice]:
    """Ten groups of texts, spread over all of them; none where they would be too small."""
    return [slice(at, None, _GROUPS) for at in range(_GROUPS)] if num >= _GROUPS * _MIN_GROUP else []


def ahead(own: Spread, reference: Spread) -> Bounds:
    """95 % bounds of the figure less the reference's, over the same texts; None where they is unknown."""
    mine, theirs = own.drawn(), reference.drawn()
    return _middle(mine - theirs) if mine is not None and theirs is not None else None


def _middle(values: Floats) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _draws(num: int) -> Iterator[NDArray[np.int64]]:
    """Numbers of texts, a resample a row, in parts that fit into memory; the same ones each time."""
    import numpy as np

    dice = np.random.default_rng(_SEED)
    size = max(1, min(NUM_RESAMPLES, _MOST_DRAWN // num))
    for start in range(0, NUM_RESAMPLES, size):
        yield dice.integers(0, num, (min(size, NUM_RESAMPLES - start), num))


def _resamples(num: int) -> Iterator[Floats]:
    """How often each text is drawn, a resample a row."""
    import numpy as np

    for at_RN in _draws(num):
        yield np.stack([np.bincount(row, minlength=num) for row in at_RN]).astype(np.float64)
