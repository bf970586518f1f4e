"""What heads do, as one HTML file: opens without network or script, light and dark, on a desk and on a phone.

Maps are PNG pictures in the page, a shade a byte; a head's details open with the keyboard as with a finger. The page
holds at most `MAX_BYTES`: of a model with very many heads fewer examples are measured.
"""

from __future__ import annotations

import base64
import io
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from bertshrink.errors import OutputError
from bertshrink.report.attention import ROLES, WAYS, AttentionMap, AttentionReport, Curve, Effect, HeadFacts, Role
from bertshrink.report.render.html import templates
from bertshrink.report.render.plots import svg_cleanup as svg
from bertshrink.report.render.plots.figure import legend, legend_height
from bertshrink.report.table.figures import plain

MAX_BYTES = 5_000_000
_TEMPLATE = "attention.html.j2"
_NAMES = {
    "fisher": "least Fisher importance first",
    "class": "by class",
    "class reversed": "by class, reversed",
    "random": "random, mean and range",
}
_COLOURS = {"fisher": svg.SERIES[0], "class": svg.SERIES[1], "class reversed": svg.SERIES[3], "random": svg.MUTED}
_DASHES = {"fisher": "-", "class": "--", "class reversed": ":", "random": "-"}


@dataclass(frozen=True)
class _Card:
    """A head as the page shows it."""

    facts: HeadFacts
    picture: str
    examples: list[tuple[str, str]]


def render(report: AttentionReport) -> str:
    """Draw the document; the same bytes for the same document.

    Raises:
        OutputError: the page would be larger than `MAX_BYTES`.
    """
    from markupsafe import Markup

    pages = templates()
    pages.filters |= {"points": _points, "change": _change, "p": _p}
    texts = [" ".join(plain(token) for token in tokens) for tokens in report.examples]
    page = pages.get_template(_TEMPLATE).render(
        report=report,
        name=plain(report.model),
        roles=ROLES,
        ways=WAYS,
        shares=_shares(report),
        cards=[[_card(head, texts) for head in report.heads if head.layer == layer.layer] for layer in report.layers],
        facts=_facts(report),
        of_roles=_of_roles(report),
        curves=Markup(_curves(report)),
        curve_rows=_curve_rows(report),
        told=curve_words(report),
        thresholds=report.thresholds,
    )
    if len(page.encode()) > MAX_BYTES:
        raise OutputError(
            f"the page of {len(report.heads)} heads would take {len(page.encode()) / 1e6:.1f} MB, more than 5",
            hint="take the numbers with `--json`",
        )
    return page


def _points(value: float) -> str:
    """A metric in hundredths."""
    return f"{100 * value:.2f}"


def _change(effect: Effect) -> str:
    return f"{100 * effect.change:+.2f}".replace("-", "\u2212")


def _p(value: float | None) -> str:
    if value is None:
        return "\u2013"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def _picture(one: AttentionMap) -> str:
    """A PNG as a data URI: black where all attention is; the style sheet turns it for a dark page."""
    import numpy as np
    from PIL import Image

    pixels = np.frombuffer(base64.b64decode(one.pixels), np.uint8).reshape(one.size, one.size)
    out = io.BytesIO()
    lifted = np.sqrt(pixels / 255)  # small shares would not be seen
    Image.fromarray((255 - np.rint(255 * lifted)).astype(np.uint8)).save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _card(head: HeadFacts, texts: list[str]) -> _Card:
    examples = [(_picture(one), text) for one, text in zip(head.examples, texts, strict=True)]
    return _Card(head, _picture(head.mean_map), examples)


def _shares(report: AttentionReport) -> list[list[tuple[Role, int, float]]]:
    """For each layer (class, heads, percent) of every class that it has."""
    rows = []
    for layer in report.layers:
        counts = Counter(head.role for head in report.heads if head.layer == layer.layer)
        rows.append([(role, counts[role], 100 * counts[role] / report.num_heads) for role in ROLES if counts[role]])
    return rows


def _facts(report: AttentionReport) -> list[tuple[str, str, str]]:
    """(figure, title, detail) of what came out."""
    facts = []
    num = len(report.heads)
    for way in WAYS:
        effects = [head.effects[way] for head in report.heads]
        tested = [one for one in effects if one.p is not None]
        if not tested:
            continue
        same = [one for one in effects if one.finding == "no difference shown"]
        sure = [one for one in same if one.interval is not None and one.interval[0] > -0.01]
        better = sum(one.finding == "better" for one in effects)
        facts.append(
            (
                f"{len(same) + better} of {num}",
                f"heads can be {'zeroed' if way == 'zeroed' else 'made uniform'}, one at a time, with no loss shown",
                f"after Holm's correction; {better} of them better. Of {len(sure)} the 95 % interval also leaves out a "
                "loss of a point: not shown is not the same as none.",
            )
        )
    roles = Counter(head.role for head in report.heads)
    named = ", ".join(f"{role} {100 * roles[role] / num:.0f} %" for role in ROLES if roles[role])
    facts.append((f"{len(roles)}", "classes of heads", named))
    fisher = next(curve for curve in report.curves if curve.order == "fisher")
    kept = max((p.num_removed for p in fisher.points if p.values[0] >= report.undisturbed - 0.01), default=0)
    facts.append(
        (
            f"{kept} of {num}",
            "heads zeroed together within a point",
            f"by Fisher importance, no training after: {_points(report.undisturbed)} at the start",
        )
    )
    return facts


def _of_roles(report: AttentionReport) -> list[tuple[Role, int, float, float, int]]:
    """(class, heads, mean change when one is zeroed, least change, heads whose loss is shown)."""
    rows = []
    for role in ROLES:
        changes = [head.effects["zeroed"] for head in report.heads if head.role == role]
        if changes:
            values = [one.change for one in changes]
            worse = sum(one.finding == "worse" for one in changes)
            rows.append((role, len(changes), 100 * statistics.fmean(values), 100 * min(values), worse))
    return rows


def _curve(report: AttentionReport, order: str) -> Curve:
    return next(curve for curve in report.curves if curve.order == order)


def _curve_rows(report: AttentionReport) -> list[tuple[int, str, str, str, str, str]]:
    """(heads gone, fisher, class, reversed, mean of random, range of random)."""
    single = [_curve(report, order).points for order in ("fisher", "class", "class reversed")]
    rows = []
    for at, point in enumerate(_curve(report, "random").points):
        own = [_points(points[at].values[0]) for points in single]
        low, high = min(point.values), max(point.values)
        rows.append(
            (point.num_removed, *own, _points(statistics.fmean(point.values)), f"{_points(low)} to {_points(high)}")
        )
    return rows  # type: ignore[return-value]


def curve_words(report: AttentionReport) -> list[str]:
    """What the curves say of each order against random ones, a sentence each."""
    random = _curve(report, "random").points[1:-1]
    told = []
    for order in ("fisher", "class", "class reversed"):
        own = [point.values[0] for point in _curve(report, order).points[1:-1]]
        above = sum(value > max(point.values) for value, point in zip(own, random, strict=True))
        below = sum(value < min(point.values) for value, point in zip(own, random, strict=True))
        inside = len(own) - above - below
        told.append(
            f"{_NAMES[order][0].upper()}{_NAMES[order][1:]}: above every random order at {above} of {len(own)} points, "
            f"within their range at {inside}, below it at {below}."
        )
    return told


def _curves(report: AttentionReport) -> str:
    height = 300.0

    def paint(figure: Any) -> None:
        top = legend_height(4, 2)
        axes = figure.add_axes((0.12, 40 / height, 0.86, 1 - (40 + top) / height))
        for order in ("random", "class", "class reversed", "fisher"):
            points = _curve(report, order).points
            x = [point.num_removed for point in points]
            y = [100 * statistics.fmean(point.values) for point in points]
            if order == "random":
                low, high = ([100 * pick(point.values) for point in points] for pick in (min, max))
                axes.fill_between(x, low, high, color=_COLOURS[order], alpha=0.25, lw=0)
            axes.plot(x, y, _DASHES[order], color=_COLOURS[order], lw=1.8, label=_NAMES[order])
        axes.set_xlim(0, len(report.heads))
        axes.grid()
        axes.tick_params(length=0)
        axes.set_xlabel("heads zeroed", labelpad=5)
        legend(figure, axes, 2)

    words = " ".join(curve_words(report))
    return svg.draw("curves", height, paint, f"{report.metric} with heads zeroed", words)
