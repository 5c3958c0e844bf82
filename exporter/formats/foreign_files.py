"""Files that are no model of a known kind: what they are, and how to get a model that can be cut.

A file is recognized by its first bytes or its members. Its suffix decides only where the bytes
could belong to several kinds: a protobuf message names no format.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from exporter.errors import ModelError, refuse_pointer

FIRST_BYTES = 512  # enough for every row of FOREIGN

_TO_ONNX = "export the model to ONNX with the library that made it, and cut the .onnx file"
_PYTORCH = "load it in PyTorch, export it with torch.onnx.export, and cut the .onnx file"
_WHOLE = "it contains weights without the network: " + _PYTORCH
_BEFORE = "cut the .onnx or .tflite file from which it was made, then convert it again"
_SKLEARN = (
    "load it in Python, export it with skl2onnx (onnxmltools for LightGBM and XGBoost), and cut "
    "the .onnx file"
)
_FROZEN = (
    "convert it first: python -m tf2onnx.convert --graphdef FILE --inputs x:0 --outputs y:0 "
    "--output model.onnx; or give the SavedModel from which it was frozen"
)
_TFJS = "convert it back to Keras with tensorflowjs_converter, or give the model it was made from"
_UNZIP = "unzip it, and give the file or folder inside"


class Foreign(NamedTuple):
    """A kind of file that is recognized, but not opened."""

    title: str
    matches: Callable[[bytes, str], bool]  # first bytes, lower-case suffix
    hint: str


def refuse_foreign(path: Path, start: bytes) -> None:
    """Raise an error that names the kind of a file, if it is a known one.

    Args:
        path: of the file.
        start: its first FIRST_BYTES bytes.

    Raises:
        ModelError: with the way to a model that can be cut.
    """
    refuse_pointer(path, start)
    if start.startswith(_ZIP):
        _refuse_archive(path)
    else:
        _refuse(FOREIGN, path, start)


def refuse_named(path: Path, start: bytes) -> None:
    """As `refuse_foreign`, for a file that no known kind recognizes: its suffix names its kind."""
    _refuse(NAMED, path, start)


def _refuse(rows: Iterable[Foreign], path: Path, start: bytes) -> None:
    for row in rows:
        if row.matches(start, path.suffix.lower()):
            raise ModelError(f"{path} is {row.title}, which exporter does not read", row.hint)


def refuse_foreign_folder(path: Path, names: Collection[str]) -> None:
    """As `refuse_foreign`, for a folder with files of these names."""
    for title, wanted, hint in _FOLDERS:
        if any(name == wanted or (wanted[0] == "." and name.endswith(wanted)) for name in names):
            raise ModelError(f"{path} is {title}, which exporter does not read", hint)


def _refuse_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return  # a damaged archive is reported by the reader of .keras files
    if "config.json" in names and "model.weights.h5" in names:
        return
    models = [name for name in names if name.lower().endswith(".tflite")]
    if models:
        shown = ", ".join(models[:4]) + ", ..." * (len(models) > 4)  # noqa: PLR2004 - readable
        raise ModelError(
            f"{path} is a bundle of TFLite models (MediaPipe .task): it contains {shown}",
            f"unzip it, cut the .tflite inside, and put it back: zip -0 {path.name} {models[0]}",
        )
    for title, member, hint in _ARCHIVES:
        if any(name.split("/")[-1] == member or name.endswith(member) for name in names):
            raise ModelError(f"{path} is {title}, which exporter does not read", hint)


# --- the tables ----------------------------------------------------------------------------------


def _starts(*prefixes: bytes) -> Callable[[bytes, str], bool]:
    return lambda start, _: start.startswith(prefixes)


def _identifier(name: bytes) -> Callable[[bytes, str], bool]:
    """A flatbuffer, which has its identifier after four bytes."""
    return lambda start, _: start[4:8] == name


def _suffix(*suffixes: str) -> Callable[[bytes, str], bool]:
    return lambda _, suffix: suffix in suffixes


def _is_safetensors(start: bytes, _: str) -> bool:
    """The length of a JSON header, then the header."""
    return start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < 1 << 32


def _is_json_of(*keys: str) -> Callable[[bytes, str], bool]:
    def matches(start: bytes, _: str) -> bool:
        return start.lstrip()[:1] == b"{" and any(json.dumps(k).encode() in start for k in keys)

    return matches


def _is_page(start: bytes, _: str) -> bool:
    return start.lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _is_core_ml(start: bytes, suffix: str) -> bool:
    """Like ONNX, a protobuf message that begins with a version number."""
    return start[:1] == b"\x08" and suffix == ".mlmodel"


def _is_openvino(start: bytes, suffix: str) -> bool:
    return b"<net " in start and suffix == ".xml"


_TORCH = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}
_ZIP = b"PK\x03\x04"

FOREIGN = (
    Foreign("a web page", _is_page, "it was saved in place of the model: download the file again"),
    Foreign(
        "a LiteRT-LM bundle (.litertlm)",
        _starts(b"LITERTLM"),
        "cut the .tflite model from which the bundle was built, then build it again",
    ),
    Foreign("a model in ORT format (.ort)", _identifier(b"ORTM"), _BEFORE),
    Foreign("an ExecuTorch program (.pte)", _identifier(b"ET12"), _TO_ONNX),
    Foreign("a TensorRT engine", _starts(b"ftrt", b"ptrt"), _BEFORE),
    Foreign("an RKNN model", _starts(b"RKNN"), _BEFORE),
    Foreign("a GGUF file", _starts(b"GGUF"), _TO_ONNX),
    Foreign("a safetensors file", _is_safetensors, _WHOLE),
    Foreign(
        "a pickle of PyTorch", lambda s, suffix: s[:1] == b"\x80" and suffix in _TORCH, _PYTORCH
    ),
    Foreign(
        "a pickle", lambda start, _: start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5", _SKLEARN
    ),
    Foreign("a model of TensorFlow.js", _is_json_of("modelTopology", "weightsManifest"), _TFJS),
    Foreign("an XGBoost model", _is_json_of("learner", "gradient_booster"), _SKLEARN),
    Foreign("a LightGBM model", _starts(b"tree\nversion=", b"tree\r\nversion="), _SKLEARN),
    Foreign("a CatBoost model", _starts(b"CBM1"), 'save it with format="onnx", and cut that file'),
    Foreign("an OpenVINO model", _is_openvino, _BEFORE),
    Foreign("an ncnn model", _starts(b"7767517"), _BEFORE),
    Foreign("a Core ML model", _is_core_ml, _BEFORE),
    Foreign("an array of NumPy", _starts(b"\x93NUMPY"), "give the model, and the array as --data"),
)
"""Kinds that are recognized by their content; the first row that matches applies."""

NAMED = (
    Foreign("a frozen TensorFlow graph", _suffix(".pb", ".pbtxt", ".graphdef"), _FROZEN),
    Foreign("a Core ML model", _suffix(".mlmodel"), _BEFORE),
    Foreign("a PyTorch file", _suffix(".pt", ".pth", ".pt2", ".ckpt"), _PYTORCH),
    Foreign("an XGBoost model", _suffix(".ubj"), _SKLEARN),
    Foreign("an MNN model", _suffix(".mnn"), _BEFORE),
    Foreign("a Hailo model", _suffix(".hef"), _BEFORE),
    Foreign("a Caffe model", _suffix(".caffemodel", ".prototxt"), _TO_ONNX),
    Foreign("a Paddle model", _suffix(".pdmodel", ".pdiparams"), "convert it with paddle2onnx"),
)
"""Kinds that only their suffix names."""

_ARCHIVES = (
    ("a PyTorch program (torch.export)", "models/model.json", _PYTORCH),
    ("a PyTorch program (torch.export)", "serialized_exported_program.json", _PYTORCH),
    ("a TorchScript model", "constants.pkl", _PYTORCH),
    ("a PyTorch checkpoint", "data.pkl", _PYTORCH),
    ("an NPZ file of arrays", ".npy", "give the model, and the arrays as --data"),
    ("a Core ML package", "Manifest.json", _BEFORE),
    ("a zip archive", "saved_model.pb", _UNZIP),
    ("a zip archive", ".onnx", _UNZIP),
    ("a zip archive", ".keras", _UNZIP),
    ("a zip archive", ".h5", _UNZIP),
)

_FOLDERS = (
    ("a Core ML package", "Manifest.json", _BEFORE),
    ("a model of TensorFlow.js", "model.json", _TFJS),
    ("a folder of Hugging Face weights", "model.safetensors", _WHOLE + " (optimum does this)"),
    ("a folder of PyTorch weights", "pytorch_model.bin", _WHOLE + " (optimum does this)"),
    ("a training checkpoint of TensorFlow", "checkpoint", "save the whole model: model.save(...)"),
    ("an OpenVINO folder", "openvino_model.xml", _BEFORE),
)
