"""Matplotlib figures as SVG text that follows the colors of a page.

The colors of a figure are placeholders that become CSS variables, so that one picture serves the
light and the dark page. Labels come from model files: they are drawn as plain text, never read as
formulas.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from exporter.report.formatting import printable

# Placeholder -> variable of the page.
COLORS = {
    "#010203": "var(--ink)",
    "#010204": "var(--quiet)",
    "#010205": "var(--before)",
    "#010206": "var(--after)",
    "#010207": "var(--good)",
    "#010208": "var(--bad)",
    "#010209": "var(--band)",
    "#01020a": "var(--paper)",
}
INK, QUIET, BEFORE, AFTER, GOOD, BAD, BAND, PAPER = COLORS

WIDTH = 4.3  # inches of 72 points: about 310 px, so that a phone does not shrink the text
_STYLE: Any = {
    "axes.edgecolor": QUIET,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "exporter",  # ids follow from the content
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Plot:
    """One picture.

    Attributes:
        caption: how to read it.
        svg: text for an HTML page.
        summary: what it shows, for people who do not see it.
    """

    title: str
    caption: str
    svg: str
    summary: str


def drawing() -> AbstractContextManager[None]:
    """The style of all figures that are made in the block.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def new_axes(height: float) -> Any:
    """A figure of this height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained").subplots()


def to_plot(axes: Any, title: str, caption: str, summary: str) -> Plot:
    """The figure of these axes as a plot with a title."""
    return Plot(title, caption, figure_text(axes.figure, title), summary)


def figure_text(figure: Any, title: str) -> str:
    """The SVG element of a figure."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    return _for_page(text.getvalue(), title)


def _for_page(svg: str, title: str) -> str:
    """The SVG element with the colors of the page; ids differ from other plots."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", title)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    for placeholder, variable in COLORS.items():
        svg = svg.replace(placeholder, variable)
    return re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)


def short_name(text: str, room: int = 28) -> str:
    """The end of a long name: it has the precision and the kind."""
    text = printable(text)
    return text if len(text) <= room else f"...{text[3 - room :]}"


def short_label(text: str, room: int = 16) -> str:
    """The start of a long label."""
    text = printable(text)
    return text if len(text) <= room else f"{text[: room - 3].rstrip()}..."


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """One row for each short name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def log_scale(axes: Any) -> None:
    """A logarithmic x axis with plain numbers; Matplotlib's own are formulas."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda *_: "")
