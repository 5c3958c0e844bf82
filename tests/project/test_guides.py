"""The code of the guides runs, and prints the output that they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.commands import PROJECT
from tests.builders.documents import Block, blocks, looks_like, run_python

GUIDES = ("removing-output-units.md", "quality.md")
NEXT = "=== next block ==="


def program(found: list[Block]) -> str:
    """All code of a guide as one program, which prints NEXT between blocks."""
    return f"print({NEXT!r})\n".join(b.text for b in found if b.language == "python")


def shown(found: list[Block]) -> list[str]:
    """The output shown below each block of code; "..." if none is shown."""
    following = [*found[1:], Block("", "")]
    return [
        after.text if after.language == "text" else "...\n"
        for block, after in zip(found, following, strict=True)
        if block.language == "python"
    ]


def test_blocks_are_joined_and_their_outputs_found() -> None:
    found = [Block("python", "a\n"), Block("text", "x\n"), Block("python", "b\n"), Block("sh", "")]
    assert program(found) == f"a\nprint({NEXT!r})\nb\n"
    assert shown(found) == ["x\n", "...\n"]


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_prints_the_output_it_shows(guide: str, tmp_path: Path) -> None:
    found = blocks((PROJECT / "docs" / guide).read_text("utf-8"))
    output = run_python(program(found), tmp_path)
    parts = output.split(f"{NEXT}\n")
    expected = shown(found)
    assert len(parts) == len(expected)
    for part, shown_output in zip(parts, expected, strict=True):
        assert looks_like(shown_output, part), part
