"""The curve of a trimmed network: agreement by its share of the cost."""

from __future__ import annotations

import io
from collections.abc import Sequence

from exporter.report.svg import drawing, new_axes


def curve(points: Sequence[tuple[float, float]]) -> str:
    """An SVG file.

    Args:
        points: share of the cost, share of held-out samples with the same first unit.
    """
    with drawing():
        axes = new_axes(3.0)
        axes.plot(*zip(*points, strict=True), marker="o") if points else None
        axes.set_xlabel("share of the network that stays")
        axes.set_ylabel("agreement on held-out samples")
        text = io.StringIO()
        axes.figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date")))
    return text.getvalue()
