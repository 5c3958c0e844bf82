"""Input data: the handwritten digits that ship with the package, and the users' samples."""

from __future__ import annotations

from exporter.data.digits import SHA256, Digits, load_digits, split_digits

__all__ = ["SHA256", "Digits", "load_digits", "split_digits"]
