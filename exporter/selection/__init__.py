"""Which units are kept: the selection language, labels, groups and conditions."""

from __future__ import annotations

from exporter.selection.select import Selection, Units, select

__all__ = ["Selection", "Units", "select"]
