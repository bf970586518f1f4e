"""The class of a head, by rules in place of an eye: five of arXiv:1908.08593, and `mixed` where rules do not decide.

Three scores, each 0 where attention is spread as by chance and 1 where all of it is on the pattern:

    vertical   share on the first token, other special tokens and punctuation
    diagonal   share on the token itself and its two neighbours, those counted above left out
    block      share within the own text of a pair; of single texts there is none

They are means over the rows of plain tokens: what special tokens themselves look at means little. With t = `THRESHOLD`:

    vertical+diagonal   both are at least t / 2 and their sum at least t + 0.1, neither of them t above the other
    vertical, diagonal  at least t, whichever is larger
    block               at least t, and neither of those
    heterogeneous       none of them: what the head looks at depends on the text

A head whose class would be another one with scores `MARGIN` higher or lower is `mixed`: a tie.
"""

from __future__ import annotations

from itertools import product

from bertshrink.report.attention import Role

THRESHOLD = 0.4
"""Of what chance leaves: choices of ours, since the paper's classes were told apart by eye."""
MARGIN = 0.04


def role_of(vertical: float, diagonal: float, block: float = 0.0) -> Role:
    """The class of a head with these scores; `mixed` where another is within the margin."""
    steps = (-MARGIN, 0.0, MARGIN)
    roles = {_role(vertical + v, diagonal + d, block + b) for v, d, b in product(steps, repeat=3)}
    return roles.pop() if len(roles) == 1 else "mixed"


def _role(vertical: float, diagonal: float, block: float) -> Role:
    both = min(vertical, diagonal)
    if both >= THRESHOLD / 2 and vertical + diagonal >= THRESHOLD + 0.1 and abs(vertical - diagonal) < THRESHOLD:
        return "vertical+diagonal"
    if max(vertical, diagonal) >= THRESHOLD:
        return "vertical" if vertical >= diagonal else "diagonal"
    return "block" if block >= THRESHOLD else "heterogeneous"


def above_chance(share: float, chance: float) -> float:
    """0 at chance, 1 at all, below 0 where it is avoided; 0 where chance itself is all."""
    return (share - chance) / (1 - chance) if chance < 1 else 0.0
