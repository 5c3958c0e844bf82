"""Functions shared by the scripts that write documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write(document: Path, text: str) -> None:
    """Write a document and print its name."""
    document.write_text(text, "utf-8")
    print(f"wrote {document.relative_to(PROJECT)}")
