"""The table between old and new unit indices."""

from __future__ import annotations

from exporter.remap.head_remap import HeadRemap
from exporter.remap.remap import SCHEMA, Origin, Pixels, Remap, compose

__all__ = ["SCHEMA", "HeadRemap", "Origin", "Pixels", "Remap", "compose"]
