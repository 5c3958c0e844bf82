"""docs/applications.md has a row for every family of networks in the installed Keras."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

PROJECT = Path(__file__).parents[2]
SAME_FAMILY = {"vgg19": "vgg16"}  # modules


def load() -> ModuleType:
    """Import the script, which is not in a package."""
    path = PROJECT / "tools" / "applications.py"
    spec = importlib.util.spec_from_file_location("applications", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["applications"] = module
    spec.loader.exec_module(module)
    return module


applications = load()


def family(name: str) -> str:
    """The module that defines a network."""
    network: Any = getattr(keras.applications, name)
    module = str(network.__module__).rpartition(".")[2]
    return SAME_FAMILY.get(module, module)


def test_every_family_has_a_member() -> None:
    known = {family(name) for name in dir(keras.applications) if name[0].isupper()}
    assert {family(member.name) for member in applications.MEMBERS} == known
    assert len(applications.MEMBERS) == len(known)


def test_every_member_has_a_row_in_each_format_and_passes() -> None:
    text = applications.DOCUMENT.read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][2:]
    assert [row[0] for row in rows[::2]] == list(applications.NAMES)
    assert {row[3] for row in rows[1::2]} == {"TFLiteConverter"}
    checks = applications.COLUMNS.index("checks")
    assert all(row[checks].endswith(" passed") for row in rows)
