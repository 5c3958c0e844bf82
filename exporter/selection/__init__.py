"""Which units are kept, and why each one."""

from __future__ import annotations

from exporter.selection.select import Selection, select

__all__ = ["Selection", "select"]
