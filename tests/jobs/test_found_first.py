"""What cannot work is found before the steps that take long."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import exporter
from exporter.errors import OutputError, UsageError


def refuse(*_arguments: object, **_keywords: object) -> None:
    raise AssertionError("this step takes minutes")


def test_unwritable_output(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a model is opened: opening a Keras model takes long."""

    def denied(*_arguments: object, **_keywords: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("exporter.jobs.job.Job.open", refuse)
    monkeypatch.setattr(Path, "mkdir", denied)
    source = shelf / "net.onnx"
    with pytest.raises(OutputError, match=r"cannot write .*out: Permission denied"):
        exporter.run(source, tmp_path / "out", keep=[1])
    with pytest.raises(OutputError, match=r"cannot write .*q\.onnx: Permission denied"):
        exporter.quantize(source, tmp_path / "q.onnx", precision="fp16")
    with pytest.raises(OutputError, match=r"cannot write .*c\.onnx: Permission denied"):
        exporter.convert("net.keras", tmp_path / "c.onnx")


def test_data_of_another_shape(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the conversion, with and without checks."""
    monkeypatch.setattr("exporter.jobs.source.OpenedModel.as_kind", refuse)
    source, data = shelf / "net.onnx", shelf / "wide.npz"
    for verify in (True, False):
        with pytest.raises(UsageError, match=r"wide\.npz: the array for input 'x' has the shape"):
            exporter.run(source, tmp_path / "out", keep=[1], data=data, verify=verify, bench=False)
    with pytest.raises(UsageError, match=r"wide\.npz: the array for input 'x' has the shape"):
        exporter.convert(source, tmp_path / "c.onnx", data=data)
    assert list(tmp_path.iterdir()) == []
