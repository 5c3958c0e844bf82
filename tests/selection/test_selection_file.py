"""Selection files as entries of --keep: the kept units, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.selection import select
from exporter.selection.selection_file import SCHEMA

RECORD = {"schema": SCHEMA, "units": 5, "kept": [3, 0], "unknown": None}


def test_the_kept_units_are_read(tmp_path: Path) -> None:
    file = tmp_path / "selection.json"
    file.write_text(json.dumps(RECORD, indent=2))
    assert select(units=5, keep=f"@{file}").kept == (0, 3)
    assert select(units=5, keep=f"@{file}", keep_order=True).kept == (3, 0)
    assert select(units=5, keep=f"1,@{file}").kept == (0, 1, 3)
    with pytest.raises(UsageError, match="is a unit that this selection file keeps") as error:
        select(units=5, remove=f"@{file}")
    assert error.value.hint == "give it with keep"


def test_a_unit_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "selection.json"
    file.write_text(json.dumps({"schema": SCHEMA, "kept": [3, 0]}))  # `units` is optional
    with pytest.raises(UsageError, match="there is no unit 3"):
        select(units=2, keep=f"@{file}")


@pytest.mark.parametrize("units", [4, 6])
def test_a_file_for_a_model_with_other_units_is_refused(tmp_path: Path, units: int) -> None:
    """Its indices may exist, but name other units."""
    file = tmp_path / "selection.json"
    file.write_text(json.dumps(RECORD))
    message = f"the file is for a model with 5 units, this one has {units}"
    with pytest.raises(UsageError, match=message):
        select(units=units, keep=f"@{file}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('{"schema": ', "not valid JSON", id="cut off"),
        pytest.param("{" * 100_000, "not valid JSON", id="nested"),
        pytest.param('{"schema": "other/1"}', "its schema is 'other/1'", id="another schema"),
        pytest.param(json.dumps({**RECORD, "kept": "0,3"}), "not a list", id="no list"),
        pytest.param(json.dumps({**RECORD, "kept": [True]}), "not a list", id="no index"),
        pytest.param(json.dumps({**RECORD, "kept": [-1]}), "not a list", id="negative"),
        pytest.param(json.dumps({**RECORD, "units": "5"}), "not a number of units", id="units"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "selection.json"
    file.write_text(text)
    for option in ("keep", "remove"):
        with pytest.raises(UsageError, match=message):
            select(units=5, **{option: f"@{file}"})  # type: ignore[arg-type]
