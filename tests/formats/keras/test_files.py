"""Keras files are checked before Keras loads them."""

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
from exporter.formats.keras.files import container_of
from exporter.formats.keras.validate import (
    check_classes,
    check_file,
    check_without_libraries,
)

DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "head", "units": 3},
    "registered_name": None,
}


def model_config(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras", "class_name": "Sequential", "config": {"layers": list(layers)}}


def write_archive(path: Path, config: Any = None, *, without: str = "") -> None:
    text = config if isinstance(config, str) else json.dumps(config or model_config(DENSE))
    members = {"config.json": text, "metadata.json": "{}", "model.weights.h5": "x" * 5000}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            if name != without:
                file.writestr(name, content)


def write_hdf5(path: Path, config: Any = None) -> None:
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(5000)
        if config is not None:
            file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)


def truncated(path: Path, write: Callable[[Path], None]) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:-3000])


def flipped(path: Path) -> None:
    write_archive(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"xxxx") + 100] ^= 1
    path.write_bytes(content)


def odd_layer(class_name: str, module: str | None = "keras.layers") -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": {"name": "odd"}}


FUNCTION_CODE = {"class_name": "__lambda__", "config": {"value": "aGVsbG8="}}
FUNCTION = {"module": "mine", "class_name": "function", "config": "act"}

IS_LAYER = {"Dense", "Sequential"}.__contains__

ARCHIVES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("not a model"), "neither a .keras archive nor an HDF5"),
    "only a zip signature": (lambda path: path.write_bytes(b"PK\x03\x04"), "truncated"),
    "truncated": (lambda path: truncated(path, write_archive), "truncated"),
    "one bit flipped": (flipped, "checksum of model.weights.h5"),
    "another archive": (
        lambda path: write_archive(path, without="config.json"),
        "does not contain config.json",
    ),
    "no weights": (
        lambda path: write_archive(path, without="model.weights.h5"),
        "does not contain model.weights.h5",
    ),
    "config is not JSON": (lambda path: write_archive(path, "{"), "config.json is not JSON"),
    "Lambda": (
        lambda path: write_archive(path, model_config(DENSE, odd_layer("Lambda"))),
        "layer 'odd' is a Lambda",
    ),
    "lambda as activation": (
        lambda path: write_archive(
            path, model_config({**DENSE, "config": {"activation": FUNCTION_CODE}})
        ),
        "__lambda__",
    ),
    "custom layer": (
        lambda path: write_archive(path, model_config(odd_layer("Mine", "package.layers"))),
        "layer 'odd' is of the custom class 'Mine'",
    ),
    "custom layer of a script": (
        lambda path: write_archive(path, model_config(odd_layer("Mine", None))),
        "custom class 'Mine'",
    ),
    "custom model": (
        lambda path: write_archive(path, odd_layer("Net", "net")),
        "custom class 'Net'",
    ),
    "custom layer deep inside": (
        lambda path: write_archive(path, model_config(model_config(odd_layer("Mine", "package")))),
        "custom class 'Mine'",
    ),
    "custom function": (
        lambda path: write_archive(
            path, model_config({**DENSE, "config": {"activation": FUNCTION}})
        ),
        "custom function 'act'",
    ),
}


@pytest.mark.parametrize(("write", "message"), ARCHIVES.values(), ids=ARCHIVES)
def test_refused(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "net.keras"
    write(path)
    with pytest.raises(ModelError, match=message) as raised:
        check_without_libraries(path)
    assert "\n" not in raised.value.message


HDF5: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (lambda path: truncated(path, write_hdf5), "damaged or truncated"),
    "weights alone": (write_hdf5, "does not contain a model"),
    "config is not JSON": (lambda path: write_hdf5(path, "{"), "model_config is not JSON"),
    "Lambda": (
        lambda path: write_hdf5(
            path, model_config({"class_name": "Lambda", "config": {"name": "odd"}})
        ),
        "layer 'odd' is a Lambda",
    ),
    "an operation of old files": (
        lambda path: write_hdf5(path, model_config({"class_name": "TFOpLambda", "config": {}})),
        "TFOpLambda",
    ),
    "custom layer": (
        lambda path: write_hdf5(
            path, model_config({"class_name": "Mine", "config": {"name": "odd"}})
        ),
        "custom class 'Mine'",
    ),
}


@pytest.mark.parametrize(("write", "message"), HDF5.values(), ids=HDF5)
def test_hdf5_refused(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "net.h5"
    write(path)
    with pytest.raises(ModelError, match=message):
        check_file(path, IS_LAYER)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        check_without_libraries(tmp_path / "net.keras")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ExporterError, match="cannot read"):
        check_without_libraries(tmp_path)


def test_valid_files_pass_with_any_suffix(tmp_path: Path) -> None:
    path = tmp_path / "net.txt"
    write_archive(path)
    assert container_of(path) == ".keras"
    file = check_without_libraries(path)
    assert file is not None
    assert (file.container, file.config) == (".keras", model_config(DENSE))
    write_hdf5(path, model_config(DENSE))
    assert container_of(path) == ".h5"
    assert check_without_libraries(path) is None
    assert check_file(path, IS_LAYER).config == model_config(DENSE)


def test_compile_config_is_not_checked(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    compiled = {"loss": {"module": "builtins", "class_name": "function", "config": "own_loss"}}
    write_archive(path, {**model_config(DENSE), "compile_config": compiled})
    assert check_without_libraries(path)


def test_functions_of_keras_are_accepted() -> None:
    builtin = {"module": "builtins", "class_name": "function", "config": "relu"}
    check_classes(model_config({**DENSE, "config": {"activation": builtin}}), "net")


def test_checking_an_archive_imports_no_library() -> None:
    code = (
        "import sys, exporter.formats.keras.validate, exporter.conversion.remote;"
        "print(sorted({'keras', 'tensorflow', 'h5py', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
