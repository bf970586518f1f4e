"""A drawing that sits inside a page: matplotlib's SVG made small, deterministic, and at home in light and dark.

Matplotlib writes fixed colours. Here every colour is a name in disguise (`#0101nn`), and after drawing each becomes a
CSS variable (`var(--plot-nn)`), so that the page's style sheet alone decides, for both colour schemes. Text stays
text in the page's own font; identifiers get the drawing's name as a prefix, because several drawings share one page.

A drawing is `WIDTH` units wide, which a phone shows a little smaller and a desktop a little larger than life.
"""

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

WIDTH = 360

INK, MUTED, GRID, PAGE = "#010100", "#010101", "#010102", "#010103"
SERIES = ("#010110", "#010111", "#010112", "#010113", "#010114", "#010115", "#010116", "#010117")
"""Eight colours that the common kinds of colour blindness keep apart; the page says which they are."""
REFERENCE, STAGE, BASELINE = MUTED, SERIES[0], MUTED

FONT = 12.0
SMALL = 10.5
CHARACTER = 6.4
"""How wide a character of `FONT` is on average: enough to keep labels apart in a font not known here."""

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label with dollar signs is text
    "font.family": "sans-serif",
    "font.size": FONT,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": SMALL,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
}


def draw(name: str, height: float, paint: Callable[[Any], None], title: str, words: str) -> str:
    """Draw one picture.

    Args:
        name: letters, digits and dashes; unique on the page.
        height: in units of which `WIDTH` make the width.
        paint: gets the matplotlib Figure.
        title: what it shows, in a few words, for who cannot see it.
        words: how to read it and what it shows, in full.

    Returns:
        An `<svg>` element without size, date, link or colour of its own; the same for the same input.
    """
    import matplotlib.style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.style.context(["default", {**_STYLE, "svg.hashsalt": name}]), warnings.catch_warnings():
        # The page's font draws the text, so it does not matter what matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        paint(figure)
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    labels = f'aria-labelledby="{name}-title" aria-describedby="{name}-words"'
    told = f'<title id="{name}-title">{escape(title)}</title>\n<desc id="{name}-words">{escape(words)}</desc>'
    inside = _at_home(out.getvalue(), name)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" {labels}>\n{told}\n{inside}'


def _at_home(svg: str, name: str) -> str:
    """The inside of an SVG file with its end, without what only a file needs, colours and font handed to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg[svg.index(">") + 1 :]
    svg = re.sub(r'(<[^>]*?\bid=")', rf"\1{name}-", svg)
    svg = re.sub(r'(<[^>]*?\bxlink:href="#)', rf"\1{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r"(?<=[:\s])#0101(\d\d)\b", r"var(--plot-\1)", svg)
    svg = re.sub(r"font: ([\d.]+px|(?:\w+ )+[\d.]+px) [^;\"]*", r"font: \1 var(--sans)", svg)
    return re.sub(r"\n\s*", "\n", svg).strip()


def rows_axes(figure: Any, height: float, num_rows: int, foot: float = 0) -> Any:
    """Axes over the whole width whose y is the row's number from the top; `foot` units stay free for an x axis."""
    axes = figure.add_axes((0.012, foot / height, 0.976, 1 - foot / height))
    axes.set_ylim(num_rows - 0.5, -0.5)
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    return axes


def row_grid(axes: Any, num_rows: int) -> None:
    """Grid lines behind each row's mark only, so that none crosses its text; called once the limits are."""
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    for y in range(num_rows):
        axes.vlines(ticks, y - 0.02, y + 0.4, color=GRID, lw=0.8, zorder=0.5)


def row_text(axes: Any, y: float, name: str, value: str, is_quiet: bool) -> None:
    """A row's name at the left and its figure at the right, above the row's mark."""
    where = axes.get_yaxis_transform()
    colour = MUTED if is_quiet else INK
    room = int((WIDTH - 20) / CHARACTER - len(value)) - 2
    axes.text(0, y - 0.12, shortened(name, room), transform=where, va="bottom", ha="left", color=colour)
    axes.text(1, y - 0.12, value, transform=where, va="bottom", ha="right", color=colour)


def shortened(text: str, room: int) -> str:
    """The text in at most `room` characters, the cut marked."""
    return text if len(text) <= room else f"{text[: max(1, room - 1)]}\u2026"
