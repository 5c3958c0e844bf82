"""The command line. Each command has a module of its own name."""

from __future__ import annotations

from exporter.cli.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]
