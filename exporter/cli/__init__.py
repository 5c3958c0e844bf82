"""The command line: one module for each command."""

from __future__ import annotations

from exporter.cli.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]
