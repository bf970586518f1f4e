"""Which cases of a product stand for the rest.

Most faults hang on one value or on two together (Kuhn, Wallace and Gallo, IEEE TSE 30(6), 2004). A covering array holds
every pair of values at least once, in about as many cases as its two longest axes have pairs. `make test` runs that
array, `make matrix` the product. In a file of one technique that axis stands still already: every single value of the
others (`strength=1`) makes the same pairs with it.
"""

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any

import pytest


def covering_array(*axes: Iterable[Any], strength: int = 2) -> list[tuple[Any, ...]]:
    """The cases of the product, greedily chosen, in which every `strength` values of different axes meet."""
    rest = list(product(*axes))
    missing = {values for case in rest for values in combinations(enumerate(case), strength)}
    chosen = []
    while missing:
        best = max(rest, key=lambda case: len(missing.intersection(combinations(enumerate(case), strength))))
        missing.difference_update(combinations(enumerate(best), strength))
        rest.remove(best)
        chosen.append(best)
    return chosen


def matrix(names: tuple[str, ...], *axes: Iterable[Any], strength: int = 2) -> pytest.MarkDecorator:
    """Parametrize by the product of the axes; what the covering array leaves out runs with `--matrix` alone."""
    axes = tuple(tuple(axis) for axis in axes)
    chosen = covering_array(*axes, strength=min(strength, len(axes)))
    cases = [pytest.param(*case, marks=() if case in chosen else pytest.mark.matrix) for case in product(*axes)]
    return pytest.mark.parametrize(names, cases)
