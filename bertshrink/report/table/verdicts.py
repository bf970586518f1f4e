"""The verdict on two models in a word: faster, slower, equal within 5 %, unclear.

The words are those of `report.statistics.verdict`, said of speed: of a time, less is faster; of a rate, more is. Too
few rounds give `no verdict`. A claim from figures that are invalid says so: the word is then about what happened that
day on that machine and not about the models.
"""

from typing import Literal

from bertshrink.report.measurement import Measurement, judge
from bertshrink.report.metrics import is_speed
from bertshrink.report.statistics import MIN_VERDICT, Verdict

NO_VERDICT = "no verdict"

Kind = Verdict | None
Tone = Literal["", "faster", "slower", "better", "worse", "doubtful"]
"""What is good or bad news, or would be if it were sure: for its colour; empty: neither."""


def verdict_of(base: Measurement, m: Measurement, margin: float) -> Kind:
    """What `m` is against the reference's figure; None where neither is a speed, or there are too few rounds."""
    if not is_speed(m) or min(len(base.rounds), len(m.rounds)) < MIN_VERDICT:
        return None
    first, second = (m, base) if m.better == "higher" else (base, m)
    return judge(first, second, margin)


def word_of(kind: Kind, margin: float) -> str:
    """The verdict in a word."""
    words: dict[Kind, str] = {
        "faster": "faster",
        "slower": "slower",
        "equivalent": f"equal within {100 * margin:g} %",
        "inconclusive": "unclear",
    }
    return words.get(kind, NO_VERDICT)


def verdict_text(base: Measurement, m: Measurement, margin: float) -> str:
    """The verdict as a cell has it, a claim from invalid figures marked; empty where the figure is not a speed."""
    if not is_speed(m):
        return ""
    kind = verdict_of(base, m, margin)
    return f"{word_of(kind, margin)} (invalid)" if _is_doubtful(kind, base, m) else word_of(kind, margin)


def tone_of(base: Measurement, m: Measurement, margin: float) -> Tone:
    """The tone of that."""
    kind = verdict_of(base, m, margin)
    if _is_doubtful(kind, base, m):
        return "doubtful"
    return kind if kind in ("faster", "slower") else ""


def _is_doubtful(kind: Kind, base: Measurement, m: Measurement) -> bool:
    return kind not in (None, "inconclusive") and "invalid" in (base.validity, m.validity)
