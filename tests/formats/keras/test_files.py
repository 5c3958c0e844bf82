"""Keras files are checked before the library is let near them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from exporter.errors import ExporterError, ModelError, UsageError
from exporter.formats.keras.files import check_classes, check_file, check_hdf5

DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "head", "units": 3},
    "registered_name": None,
}


def a_model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras", "class_name": "Sequential", "config": {"layers": list(layers)}}


def archive(path: Path, config: Any = None, *, without: str = "") -> None:
    text = config if isinstance(config, str) else json.dumps(config or a_model(DENSE))
    members = {"config.json": text, "metadata.json": "{}", "model.weights.h5": "x" * 5000}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            if name != without:
                file.writestr(name, content)


def hdf5(path: Path, config: Any = None) -> None:
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(5000)
        if config is not None:
            file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)


def truncated(path: Path, write: Callable[[Path], None]) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:-3000])


def flipped(path: Path) -> None:
    archive(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"xxxx") + 100] ^= 1
    path.write_bytes(content)


def named(class_name: str, module: str | None = "keras.layers") -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": {"name": "odd"}}


FUNCTION_CODE = {"class_name": "__lambda__", "config": {"value": "aGVsbG8="}}
FUNCTION = {"module": "mine", "class_name": "function", "config": "act"}

ARCHIVES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("not a model"), "neither a .keras archive nor an HDF5"),
    "a bare zip signature": (lambda path: path.write_bytes(b"PK\x03\x04"), "truncated"),
    "truncated": (lambda path: truncated(path, archive), "truncated"),
    "one bit flipped": (flipped, "checksum of model.weights.h5"),
    "another archive": (lambda path: archive(path, without="config.json"), "no config.json"),
    "no weights": (lambda path: archive(path, without="model.weights.h5"), "no model.weights.h5"),
    "config no JSON": (lambda path: archive(path, "{"), "config.json is not JSON"),
    "Lambda": (
        lambda path: archive(path, a_model(DENSE, named("Lambda"))),
        "layer 'odd' is a Lambda",
    ),
    "a lambda as activation": (
        lambda path: archive(path, a_model({**DENSE, "config": {"activation": FUNCTION_CODE}})),
        "__lambda__",
    ),
    "custom layer": (
        lambda path: archive(path, a_model(named("Mine", "package.layers"))),
        "layer 'odd' is of the custom class 'Mine'",
    ),
    "custom layer of a script": (
        lambda path: archive(path, a_model(named("Mine", None))),
        "custom class 'Mine'",
    ),
    "custom model": (lambda path: archive(path, named("Net", "net")), "custom class 'Net'"),
    "custom layer deep inside": (
        lambda path: archive(path, a_model(a_model(named("Mine", "package")))),
        "custom class 'Mine'",
    ),
    "custom function": (
        lambda path: archive(path, a_model({**DENSE, "config": {"activation": FUNCTION}})),
        "custom function 'act'",
    ),
}


@pytest.mark.parametrize(("write", "message"), ARCHIVES.values(), ids=ARCHIVES)
def test_refused(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "net.keras"
    write(path)
    with pytest.raises(ModelError, match=message) as raised:
        check_file(path)
    assert "\n" not in raised.value.message


HDF5: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (lambda path: truncated(path, hdf5), "damaged or truncated"),
    "weights alone": (hdf5, "holds no model"),
    "config no JSON": (lambda path: hdf5(path, "{"), "model_config is not JSON"),
    "Lambda": (
        lambda path: hdf5(path, a_model({"class_name": "Lambda", "config": {"name": "odd"}})),
        "layer 'odd' is a Lambda",
    ),
    "an operation of old files": (
        lambda path: hdf5(path, a_model({"class_name": "TFOpLambda", "config": {}})),
        "TFOpLambda",
    ),
    "custom layer": (
        lambda path: hdf5(path, a_model({"class_name": "Mine", "config": {"name": "odd"}})),
        "custom class 'Mine'",
    ),
}


@pytest.mark.parametrize(("write", "message"), HDF5.values(), ids=HDF5)
def test_hdf5_refused(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "net.h5"
    write(path)
    with pytest.raises(ModelError, match=message):
        check_hdf5(path, {"Dense", "Sequential"}.__contains__)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        check_file(tmp_path / "net.keras")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ExporterError, match="cannot read"):
        check_file(tmp_path)


def test_whole_files_pass_whatever_they_are_called(tmp_path: Path) -> None:
    path = tmp_path / "net.txt"
    archive(path)
    assert check_file(path) == ".keras"
    hdf5(path, a_model(DENSE))
    assert check_file(path) == ".h5"
    check_hdf5(path, {"Dense", "Sequential"}.__contains__)


def test_what_a_model_was_compiled_with_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    compiled = {"loss": {"module": "builtins", "class_name": "function", "config": "own_loss"}}
    archive(path, {**a_model(DENSE), "compile_config": compiled})
    assert check_file(path) == ".keras"


def test_functions_of_keras_pass() -> None:
    builtin = {"module": "builtins", "class_name": "function", "config": "relu"}
    check_classes(a_model({**DENSE, "config": {"activation": builtin}}), "net")


def test_checking_an_archive_loads_no_library() -> None:
    code = (
        "import sys, exporter.formats.keras.files, exporter.conversion.remote;"
        "print(sorted({'keras', 'tensorflow', 'h5py', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
