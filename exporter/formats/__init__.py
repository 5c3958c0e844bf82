"""The model formats: one row of `KINDS` and one package each."""

from __future__ import annotations

from exporter.formats.kinds import (
    KINDS,
    copy_model,
    kind_of,
    kind_of_suffix,
    open_model,
    size_bytes,
    suffixes_of,
)
from exporter.formats.open_again import open_again

__all__ = [
    "KINDS",
    "copy_model",
    "kind_of",
    "kind_of_suffix",
    "open_again",
    "open_model",
    "size_bytes",
    "suffixes_of",
]
