"""Selection files as entries of --keep: the kept units, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.selection import Selection, select
from exporter.selection.groups import add_groups
from exporter.selection.selection_file import SCHEMA

RECORD = {"schema": SCHEMA, "units": 5, "kept": [3, 0], "unknown": None}


def test_the_kept_units_are_read(tmp_path: Path) -> None:
    file = tmp_path / "selection.json"
    file.write_text(json.dumps(RECORD, indent=2))
    assert select(units=5, keep=f"@{file}").kept == (0, 3)
    assert select(units=5, keep=f"@{file}", keep_order=True).kept == (3, 0)
    assert select(units=5, keep=f"1,@{file}").kept == (0, 1, 3)
    with pytest.raises(UsageError, match="this selection file keeps the unit") as error:
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


# --- reasons ------------------------------------------------------------------------------------


def row(unit: object, kept: object, reason: object) -> dict[str, object]:
    return {"unit": unit, "kept": kept, "reason": reason, "f1": 0.5}


TABLE = [
    row(0, kept=True, reason="f1 0.9 >= 0.6"),
    row(1, kept=False, reason="f1 0.1 < 0.6"),
    row(3, kept=True, reason="f1 0.8 >= 0.6"),
]
REASONS = {0: "f1 0.9 >= 0.6", 1: "f1 0.1 < 0.6", 3: "f1 0.8 >= 0.6"}


def chosen(folder: Path, table: object, keep: str = "") -> Selection:
    file = folder / "selection.json"
    file.write_text(json.dumps({**RECORD, "table": table}))
    return select(units=5, keep=f"@{file}{keep}")


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(None, id="no table"),
        pytest.param({"unit": 0}, id="no list"),
        pytest.param(["f1"], id="no rows"),
        pytest.param([row("0", kept=True, reason="a")], id="no index"),
        pytest.param([row(0, kept=True, reason=None)], id="no reason"),
        pytest.param([row(0, kept=False, reason="a")], id="another decision than the list"),
        pytest.param([row(0, kept=1, reason="a")], id="no decision"),
    ],
)
def test_rows_without_a_reason_are_ignored(tmp_path: Path, table: object) -> None:
    assert chosen(tmp_path, table).reasons == {}


def test_kept_and_removed_units_have_reasons(tmp_path: Path) -> None:
    found = chosen(tmp_path, TABLE)
    assert found.kept == (0, 3)
    assert found.reasons == REASONS


def test_a_unit_of_another_entry_has_another_reason(tmp_path: Path) -> None:
    found = chosen(tmp_path, TABLE, ",1")
    assert found.kept == (0, 1, 3)
    assert found.reasons == REASONS | {1: "named in keep"}


def test_a_member_of_a_group_has_another_reason(tmp_path: Path) -> None:
    found, _ = add_groups(chosen(tmp_path, TABLE), {"pair": [0, 1]}, removed=False)
    assert found.reasons == REASONS | dict.fromkeys((0, 1), "member of the group 'pair'")


def test_units_that_were_not_chosen_by_data_have_no_reason() -> None:
    found, _ = add_groups(select(units=5, keep="0-2"), {"pair": [0, 1]}, removed=False)
    assert found.reasons == {}


# --- the model that the file was written for ----------------------------------------------------

SHA = "ab" * 32
ANIMALS = ("owl", "cat", "", "dog", "cow")


def of_model(folder: Path, **options: object) -> Selection:
    """Select with a file that was written for net.onnx with the labels ANIMALS."""
    table = [{"unit": unit, "label": label} for unit, label in enumerate(ANIMALS)]
    record = {**RECORD, "table": table, "model": {"name": "net.onnx", "sha256": SHA}}
    (folder / "selection.json").write_text(json.dumps(record))
    return select(units=5, keep=f"@{folder / 'selection.json'}", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"hashes": ("cd" * 32, SHA)}, id="the same file, or made from it"),
        pytest.param({"hashes": (SHA,), "labels": "vwxyz"}, id="the same file, labels in words"),
        pytest.param({"hashes": ("cd" * 32,), "labels": ANIMALS}, id="another file, same labels"),
        pytest.param({"labels": ("owl", "", "rat", "", "")}, id="labels differ where one is empty"),
        pytest.param({}, id="a live model"),
    ],
)
def test_a_file_of_the_same_model_is_used(tmp_path: Path, options: dict[str, object]) -> None:
    found = of_model(tmp_path, **options)
    assert (found.kept, found.notes) == ((0, 3), ())


def test_a_file_of_a_model_with_other_labels_is_refused(tmp_path: Path) -> None:
    labels = ("owl", "cat", "rat", "cow", "dog")
    with pytest.raises(UsageError, match=r"unit 3 is 'dog' in the .*, and 'cow' here"):
        of_model(tmp_path, labels=labels, hashes=("cd" * 32,))


@pytest.mark.parametrize("names", [None, ("", "", "rat", "", "")])
def test_a_file_of_another_file_without_common_labels_gets_a_note(
    tmp_path: Path, names: tuple[str, ...] | None
) -> None:
    found = of_model(tmp_path, labels=names, hashes=("cd" * 32,))
    (note,) = found.notes
    assert note.endswith(
        "was written for another file, net.onnx (SHA-256 abababababab), and no labels show that "
        "its 5 units are those of this model"
    )


@pytest.mark.parametrize("model", [None, "net.onnx", {"name": 3, "sha256": None}, {}])
def test_a_file_that_names_no_model_is_used(tmp_path: Path, model: object) -> None:
    (tmp_path / "selection.json").write_text(json.dumps({**RECORD, "model": model}))
    found = select(units=5, keep=f"@{tmp_path / 'selection.json'}", hashes=(SHA,))
    assert (found.kept, found.notes) == ((0, 3), ())
