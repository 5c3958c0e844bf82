"""docs/guarantees.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

SURROUNDINGS = "tests/cli/test_surroundings.py"


def named_tests(text: str) -> set[tuple[str, str]]:
    """(file, test) of each test that the text names."""
    full = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text))
    return full | {(SURROUNDINGS, name) for name in re.findall(r"\| `(test_\w+)` \|", text)}


def is_test(project: Path, file: str, name: str) -> bool:
    path = project / file
    return path.is_file() and f"\ndef {name}(" in path.read_text()


def test_named_tests_exist(project: Path) -> None:
    named = named_tests((project / "docs" / "guarantees.md").read_text())
    assert len(named) > 25
    assert [each for each in sorted(named) if not is_test(project, *each)] == []
    assert not is_test(project, SURROUNDINGS, "test_ur")
