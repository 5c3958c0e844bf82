"""A loop over selections opens its file once, and again after each change of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import exporter
from exporter.errors import UsageError
from exporter.formats import open_again
from exporter.output import files
from tests.builders.onnx_models import node, numbers, proto

KERNEL = numbers(6, 500)


def save(path: Path, kernel: np.ndarray = KERNEL, *, external: bool = False) -> Path:
    model = proto([node("MatMul", ["x", "kernel"], ["y"], "head")], {"kernel": kernel})
    onnx.save(model, path, save_as_external_data=external, location="weights.bin")
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as unchanged as soon as they are written."""
    monkeypatch.setattr(files, "_SETTLED_NS", -(10**12))


def kernel_of(path: Path) -> np.ndarray:
    """The kernel of a cut that keeps unit 2, by onnx."""
    pruned = exporter.prune(path, keep=[2], verify=False)
    made = path.with_name("cut.onnx")
    pruned.model.write(made)
    return numpy_helper.to_array(onnx.load(made).graph.initializer[0])


@pytest.mark.usefixtures("settled")
def test_a_file_that_did_not_change_is_opened_once(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx")
    assert open_again(path) is open_again(str(path))


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("external", [False, True])
def test_a_changed_file_is_read_again(tmp_path: Path, external: bool) -> None:
    path = save(tmp_path / "net.onnx", external=external)
    assert np.array_equal(kernel_of(path), KERNEL[:, 2:3])
    content = path.read_bytes()
    (tmp_path / "weights.bin").unlink(missing_ok=True)
    save(path, KERNEL + 1, external=external)
    if external:  # only the second file has changed
        assert path.read_bytes() == content
    assert np.array_equal(kernel_of(path), KERNEL[:, 2:3] + 1)


def test_a_file_that_was_just_written_is_read_again(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx")
    first = open_again(path)
    stat = path.stat()
    save(path, KERNEL + 1)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if both were at the same time
    assert open_again(path) is not first


@pytest.mark.usefixtures("settled")
def test_a_file_that_is_gone_is_not_opened(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx")
    open_again(path)
    path.unlink()
    with pytest.raises(UsageError):
        open_again(path)


@pytest.mark.usefixtures("settled")
def test_one_model_stays_open(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one.onnx"), save(tmp_path / "two.onnx")
    first = open_again(one)
    open_again(two)
    assert open_again(one) is not first
