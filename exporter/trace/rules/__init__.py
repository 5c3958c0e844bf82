"""The rules: how a unit axis passes through each neutral operation, in both directions."""

from __future__ import annotations

from exporter.trace.rules.protocol import Refused
from exporter.trace.rules.reshape import move_labels
from exporter.trace.rules.table import NOT_CHANNELS, RULES

__all__ = ["NOT_CHANNELS", "RULES", "Refused", "move_labels"]
