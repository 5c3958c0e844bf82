"""Files of other kinds are named, with the way to a model that can be cut."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from exporter.data.read import read_samples
from exporter.errors import ModelError, UsageError
from exporter.formats.kinds import kind_of, open_model
from exporter.formats.savedmodel.files import check_folder
from exporter.graph import Graph
from exporter.selection.labels import read_labels
from tests.builders.onnx_models import node, proto

_SAFETENSORS = json.dumps({"w": {"dtype": "F32"}}).encode()

FILES = {
    "Git LFS": (
        "net.onnx",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "is a pointer of Git LFS: the file itself was not downloaded",
        "git lfs pull",
    ),
    "git-annex": ("net.tflite", b"/annex/objects/SHA256E-s9--0.tflite\n", "git-annex", "annex get"),
    "page": ("net.tflite", b"\n<!DOCTYPE html><html>", "is a web page", "download"),
    "litertlm": ("gemma.litertlm", b"LITERTLM\1\0\0\0", "LiteRT-LM bundle", ".tflite"),
    "ort": ("net.ort", b"\x10\0\0\0ORTM", "ORT format", "cut the .onnx"),
    "pte": ("net.pte", b"\x10\0\0\0ET12", "ExecuTorch", "ONNX"),
    "safetensors whose length looks like protobuf": (
        "model.safetensors",
        struct.pack("<Q", 0x208) + _SAFETENSORS,
        "is a safetensors file",
        "weights without the network",
    ),
    "gguf": ("net.gguf", b"GGUF\3\0\0\0", "GGUF", "ONNX"),
    "torch pickle": ("net.pth", pickle.dumps({"a": 1}), "a pickle of PyTorch", "torch.onnx"),
    "joblib": ("net.joblib", pickle.dumps({"a": 1}), "is a pickle", "skl2onnx"),
    "tfjs": ("model.json", b'{"format": "layers-model", "modelTopology": {}}', "js", "keras"),
    "xgboost": ("model.json", b'{"learner":{"attributes":{}}}', "XGBoost", "onnxmltools"),
    "lightgbm": ("model.txt", b"tree\nversion=v4\n", "LightGBM", "onnxmltools"),
    "openvino": ("net.xml", b'<?xml version="1.0"?><net name="a">', "OpenVINO", "cut the .onnx"),
    "ncnn": ("net.param", b"7767517\n9 9\n", "ncnn", "cut the .onnx"),
    "coreml": ("net.mlmodel", b"\x08\x04\x12\x02\x0a\x00", "Core ML", "cut the .onnx"),
    "frozen": ("frozen.pb", b"\n\x10\n\x01x\x12\x0bPlaceholder", "frozen", "tf2onnx.convert"),
    "caffe": ("net.caffemodel", b"\n\x03net", "Caffe", "ONNX"),
    "npy": ("net.npy", b"\x93NUMPY\1\0", "an array of NumPy", "--data"),
    "old torch": ("net.pt", b"\0\1\2\3", "PyTorch", "torch.onnx"),
}

ARCHIVES = {
    "task": (
        "hands.task",
        ["hand_detector.tflite", "hand_landmarks_detector.tflite"],
        "it contains hand_detector.tflite, hand_landmarks_detector.tflite",
        "cut the .tflite inside",
    ),
    "torch": ("net.pt", ["net/data.pkl", "net/data/0"], "PyTorch checkpoint", "torch.onnx"),
    "torchscript": ("n.pt", ["n/data.pkl", "n/constants.pkl"], "TorchScript", "torch.onnx"),
    "npz": ("data.npz", ["x.npy", "y.npy"], "NPZ", "--data"),
    "savedmodel": ("m.zip", ["m/saved_model.pb", "m/variables/x"], "zip archive", "unzip"),
    "onnx": ("m.zip", ["m/net.onnx"], "zip archive", "unzip"),
}

FOLDERS = {
    "mlpackage": (["Manifest.json"], "Core ML package", "cut the .onnx"),
    "tfjs": (["model.json", "group1-shard1of1.bin"], "TensorFlow.js", "keras"),
    "hugging face": (["config.json", "model.safetensors"], "Hugging Face", "optimum"),
    "checkpoint": (["checkpoint", "ckpt-1.index"], "checkpoint", "model.save"),
}


def _refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        kind_of(path)
    return caught.value


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_another_kind_is_named(case: str, tmp_path: Path) -> None:
    name, content, fact, remedy = FILES[case]
    (tmp_path / name).write_bytes(content)
    error = _refused(tmp_path / name)
    assert fact in error.message
    assert remedy.lower() in error.hint.lower()


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_of_another_kind_is_named(case: str, tmp_path: Path) -> None:
    name, members, fact, remedy = ARCHIVES[case]
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for member in members:
            archive.writestr(member, b"")
    error = _refused(tmp_path / name)
    assert fact in error.message
    assert remedy in error.hint


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_of_another_kind_is_named(case: str, tmp_path: Path) -> None:
    members, fact, remedy = FOLDERS[case]
    for member in members:
        (tmp_path / member).touch()
    error = _refused(tmp_path)
    assert fact in error.message
    assert remedy in error.hint.lower() + error.hint


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    """An ONNX file with a suffix of another kind is an ONNX file."""
    (tmp_path / "net.hef").write_bytes(b"\x08\x0a\x12\x03abc")
    assert kind_of(tmp_path / "net.hef") == "onnx"


@pytest.mark.parametrize("name", ["config.json", "nothing.txt"])
def test_archives_and_folders_that_are_not_recognized(name: str, tmp_path: Path) -> None:
    """A damaged .keras file is reported by its reader, an empty folder as one."""
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr(name, b"")
    assert kind_of(tmp_path / "net.keras") == "keras"
    with pytest.raises(UsageError, match="is a folder without a"):
        kind_of(tmp_path)


_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def _of_labels(path: Path) -> object:
    return read_labels(path)


def _of_data(path: Path) -> object:
    return read_samples(path, Graph((), {}, (), ()))


def _of_variables(path: Path) -> object:
    folder = path.parent / "saved"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    path.rename(folder / "variables" / "variables.data-00000-of-00001")
    check_folder(folder)
    return folder


def _of_external_data(path: Path) -> object:
    model = proto([node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((6, 32), np.float32)})
    target = path.parent / "net.onnx"
    onnx.save(model, target, save_as_external_data=True, location="net.data", size_threshold=0)
    path.replace(path.parent / "net.data")
    return open_model(target)


@pytest.mark.parametrize("read", [_of_labels, _of_data, _of_variables, _of_external_data])
def test_a_pointer_of_git_lfs_is_named_in_place_of_every_file(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(_POINTER)
    with pytest.raises(ModelError, match="is a pointer of Git LFS") as caught:
        read(path)
    assert caught.value.hint == "run `git lfs pull` in its repository"
