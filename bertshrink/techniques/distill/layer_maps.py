"""Which of the teacher's layers make the student, counted from 1.

uniform       evenly spread, first and last among them (halves upward): 1, 4, 6 of 6; 1, 3, 5, 8, 10, 12 of 12, which
              is the choice in DistilBERT's published code (0, 2, 4, 7, 9, 11 counted from 0)
every-other   round(i L / N), halves upward: 2, 4, 6 of 6
first, last   the lowest and the highest N: 1, 2, 3 and 4, 5, 6 of 6
auto          the map whose student is nearest to the teacher before it has learnt anything
"""

from __future__ import annotations


def every_other(num_layers: int, num_kept: int) -> tuple[int, ...]:
    """round(i L / N), halves upward, i = 1..N."""
    return tuple((2 * i * num_layers + num_kept) // (2 * num_kept) for i in range(1, num_kept + 1))


def uniform(num_layers: int, num_kept: int) -> tuple[int, ...]:
    """1 + round(i (L - 1) / (N - 1)), halves upward, i = 0..N-1; the last where one is kept."""
    if num_kept == 1:
        return (num_layers,)
    gaps = num_kept - 1
    return tuple(1 + (2 * i * (num_layers - 1) + gaps) // (2 * gaps) for i in range(num_kept))


def first(num_layers: int, num_kept: int) -> tuple[int, ...]:
    """1..N."""
    return tuple(range(1, num_kept + 1))


def last(num_layers: int, num_kept: int) -> tuple[int, ...]:
    """L-N+1..L."""
    return tuple(range(num_layers - num_kept + 1, num_layers + 1))


MAPS = {"uniform": uniform, "every-other": every_other, "first": first, "last": last}


def candidates(num_layers: int, num_kept: int) -> dict[str, tuple[int, ...]]:
    """The maps that `auto` chooses among, by the first name of each."""
    maps: dict[str, tuple[int, ...]] = {}
    for name, rule in MAPS.items():
        layers = rule(num_layers, num_kept)
        if layers not in maps.values():
            maps[name] = layers
    return maps


def align(chosen: tuple[int, ...], num_layers: int, depth: int) -> list[tuple[int, int]]:
    """(student state, teacher state) pairs to be compared.

    A student cut from a model as deep as the teacher follows the layers it was cut from. The layers of a shallower one
    are not the teacher's of the same number, so its student is spread evenly over the teacher's depth.
    The last states always belong together, since head and pooling read them.

    Args:
        chosen: layers of the incoming model that the student has, counted from 1.
        num_layers: of the incoming model.
        depth: layers of the teacher, at least `num_layers`.
    """
    origins = chosen if num_layers == depth else uniform(depth, len(chosen))
    return list(enumerate((*origins[:-1], depth), start=1))
