"""What a quality is worth, in words beside the figure: whether a model is distinguished from the reference, and whether
it is better than always predicting the most frequent class; and whether what was to be smaller is smaller at all.

    answers with kept outcomes   an exact test of those that only one model has right (McNemar's, the sign test)
    any other figure             whether the 95 % interval of the distance to the reference leaves out 0
    likeness to the reference    none: the reference is 1 by definition

Below `LEVEL` a model is `better` or `worse`; else it is `within noise`, which does not say that it is equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertshrink.report.measurement import Measurement
from bertshrink.report.report import Snapshot
from bertshrink.report.statistics import sign_test
from bertshrink.report.table.figures import Scale, plain, title_of
from bertshrink.report.table.notes import Advice
from bertshrink.report.table.verdicts import Tone

LEVEL = 0.05
NOISE: Literal["within noise"] = "within noise"
TRIVIAL = "always predicting the most frequent class"


@dataclass(frozen=True)
class Difference:
    """What a model's quality is against the reference's: in a word (`within noise`, `better`, `worse`), and the
    evidence: `p = 0.6, 12 of 872 answers differ`.
    """

    word: Literal["better", "worse", "within noise"]
    evidence: str

    @property
    def tone(self) -> Tone:
        """Whether that is good or bad news."""
        return "" if self.word == NOISE else self.word


def difference(base: Measurement, m: Measurement) -> Difference | None:
    """The model against the reference; None where nothing is known of it, or it is a likeness to the reference."""
    if m.metric == "agreement" or m.conditions.questions != base.conditions.questions:
        return None
    if base.outcomes is not None and m.outcomes is not None and base.outcomes.num == m.outcomes.num:
        lost, won = base.outcomes.lost_and_won(m.outcomes)
        p = sign_test(lost, won)
        word = _word(won - lost if p <= LEVEL else 0)
        chance = f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
        return Difference(word, f"{chance}, {lost + won} of {m.outcomes.num} answers differ")
    if m.ahead is None:
        return None
    low, high = m.ahead
    sign = (low > 0) - (high < 0)
    word = _word(-sign if m.better == "lower" else sign)
    size, digits, unit = (100, 1, " points") if m.unit == "fraction" else (1, 3, "")
    return Difference(word, f"{size * low:+.{digits}f} to {size * high:+.{digits}f}{unit} on other texts of this kind")


def _word(sign: int) -> Literal["better", "worse", "within noise"]:
    return "better" if sign > 0 else "worse" if sign < 0 else NOISE


def against_trivial(m: Measurement) -> str:
    """`is no better than always predicting the most frequent class (65.5%)`; empty where it is, or nobody knows."""
    if m.chance is None or m.better != "higher":
        return ""
    than = f"better than {TRIVIAL} ({Scale.of([m]).write(m.chance)}%)"
    if m.value <= m.chance:
        return f"is no {than}"
    return f"is, {NOISE}, no {than}" if m.interval().low <= m.chance else ""


def remarks(snapshots: Sequence[Snapshot], leading: Sequence[str]) -> tuple[Advice, ...]:
    """What a reader must know of whole models: no better than the trivial answer, no smaller than the reference.

    Args:
        leading: names of those that came before the reference.
    """
    base = next((s.find("size") for s in snapshots if s.role == "reference"), None)
    advice = []
    for snapshot in (s for s in snapshots if s.role != "baseline" and s.name not in leading):
        trivial = next(((m, words) for m in snapshot.measurements if (words := against_trivial(m))), None)
        if trivial is not None:
            m, words = trivial
            told = f"its {title_of(m.metric).lower()}, {Scale.of([m]).figure(m)}, {words}"
            advice.append(Advice(plain(snapshot.label), told, is_warning=True))
        size = snapshot.find("size")
        is_student = snapshot.role == "stage" and snapshot.kind == "encoder"
        if is_student and size is not None and base is not None and size.value >= base.value:
            scale = Scale.of([base, size])
            told = f"it is not smaller than the reference: {scale.figure(size)} against {scale.figure(base)}"
            advice.append(Advice(plain(snapshot.label), told, is_warning=True))
    return tuple(advice)
