"""Which cases of a product stand for the rest.

Most faults hang on one value or on two together (Kuhn, Wallace and Gallo, IEEE TSE 30(6), 2004). A covering array holds
every pair of values at least once, in about as many cases as its two longest axes have pairs. `make test` runs that
array, `make matrix` the product. In a file of one technique that axis stands still already: every single value of the
others (`strength=1`) makes the same pairs with it.
"""

from collections.abc import Callable, Iterable
from itertools import combinations, product
from typing import Any

import pytest

Possible = Callable[..., bool]


def _any(*case: Any) -> bool:
    return True


def covering_array(*axes: Iterable[Any], strength: int = 2, possible: Possible = _any) -> list[tuple[Any, ...]]:
    """The possible cases, greedily chosen, in which every `strength` values of different axes meet that can meet."""
    rest = [case for case in product(*axes) if possible(*case)]
    missing = {values for case in rest for values in combinations(enumerate(case), strength)}
    chosen = []
    while missing:
        best = max(rest, key=lambda case: len(missing.intersection(combinations(enumerate(case), strength))))
        missing.difference_update(combinations(enumerate(best), strength))
        rest.remove(best)
        chosen.append(best)
    return chosen


def matrix(
    names: tuple[str, ...], *axes: Iterable[Any], strength: int = 2, possible: Possible = _any
) -> pytest.MarkDecorator:
    """Parametrize by the product of the axes; what the covering array leaves out runs with `--matrix` alone.

    Args:
        possible: whether there is such a case, by its values.
    """
    axes = tuple(tuple(axis) for axis in axes)
    chosen = covering_array(*axes, strength=min(strength, len(axes)), possible=possible)
    cases = [
        pytest.param(*case, marks=() if case in chosen else pytest.mark.matrix)
        for case in product(*axes)
        if possible(*case)
    ]
    return pytest.mark.parametrize(names, cases)
