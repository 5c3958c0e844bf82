"""docs/schemas describes the JSON records: of every command, with real outputs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import referencing

from tests.builders.commands import exporter
from tests.builders.shelf import FEATURES, LABELS

PROJECT = Path(__file__).parent.parent.parent
FOLDER = PROJECT / "docs" / "schemas"
SCRIPT = runpy.run_path(str(PROJECT / "tools" / "json_schemas.py"))

LINES = [
    (
        "select net.onnx --data data.npz --labels labels.txt --min-count 1 -o selection.json"
        " --suggest-merge 0.01"
    ),
    "inspect net.onnx",
    "inspect net.tflite --keep 1-3 --precision fp32,fp16",
    "prune net.onnx --keep @selection.json --labels labels.txt --dry-run",
    "prune net.onnx --keep @selection.json --labels labels.txt --data data.npz -o a.onnx",
    "prune net.onnx --keep 1-3 --merge pair=1,2 -o b.onnx --no-verify",
    (
        "run net.onnx -o one --keep 1,2 --precision fp32,dynamic --labels labels.txt"
        " --data data.npz --no-bench"
    ),
    "run net.onnx -o two --variant a=1-3 --variant b=5 --no-bench --no-verify",
    "convert net.onnx -o c.tflite",
    "quantize net.onnx -o d.onnx --precision fp16 --no-bench",
    "verify net.onnx a.onnx",
    "verify net.onnx net.tflite",
    "bench net.onnx net.onnx --bench-seconds 0 --bench-runs 1 --save history.sqlite",
    "history history.sqlite",
    "inspect missing.onnx",
    "batch plan.toml --dry-run",
    "batch plan.toml -o results --workers 1",
]
BATCH_PLAN = """
models = {net = "net.onnx", missing = "missing.onnx"}
selections = {a = "1-3"}
options = {bench = false, plots = false, samples = 2}
"""


def closed(schema: Any) -> Any:
    """The schema without the permission for more keys: a key that it does not describe fails."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    return {**found, "additionalProperties": False} if "properties" in found else found


SCHEMAS = {
    schema["$id"]: schema for schema in (json.loads(path.read_text()) for path in FOLDER.iterdir())
}
REGISTRY: referencing.Registry[Any] = referencing.Registry().with_contents(
    (name, closed(schema)) for name, schema in SCHEMAS.items()
)


def check(record: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator({"$ref": record["schema"]}, registry=REGISTRY).validate(record)


@pytest.fixture(scope="module")
def records(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Command or file -> record."""
    folder = tmp_path_factory.mktemp("schemas")
    for name in ("net.onnx", "net.tflite", "labels.txt"):
        (folder / name).write_bytes((shelf / name).read_bytes())
    (folder / "plan.toml").write_text(BATCH_PLAN, "utf-8")
    random = np.random.default_rng(2)
    features = random.normal(size=(40, FEATURES)).astype(np.float32)
    np.savez(folder / "data.npz", x=features, labels=random.choice(LABELS, 40))
    found = {line: exporter(f"{line} --json", folder).record for line in LINES}
    for path in [*folder.rglob("*.json"), *folder.rglob("*.remap.json")]:
        found[str(path.relative_to(folder))] = json.loads(path.read_text())
    return found


def test_the_files_are_current() -> None:
    """If this fails, run `make schemas`."""
    written = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert written == {n: SCRIPT["text"](d) for n, d in SCRIPT["documents"]().items()}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_each_is_a_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


def test_every_record_of_every_command_matches(records: dict[str, dict[str, Any]]) -> None:
    for source, record in records.items():
        try:
            check(record)
        except jsonschema.ValidationError as error:
            pytest.fail(f"{source}: {error.json_path}: {error.message[:300]}")
    schemas = {record["schema"] for record in records.values()}
    assert schemas == SCHEMAS.keys()


def test_a_missing_key_and_a_wrong_type_are_found(records: dict[str, dict[str, Any]]) -> None:
    record = records["selection.json"]
    in_another_schema = {"model": {"name": "net.onnx", "sha256": 1}}
    for wrong in ({"kept": "all"}, {"units": None}, {"more": 1}, in_another_schema):
        with pytest.raises(jsonschema.ValidationError):
            check({**record, **wrong})
    with pytest.raises(jsonschema.ValidationError):
        check({key: value for key, value in record.items() if key != "kept"})
