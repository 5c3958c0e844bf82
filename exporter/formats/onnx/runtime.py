"""Run an ONNX model with onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as state

from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.onnx.external_data import Outside, is_outside
from exporter.formats.onnx.lazy_parse import HANDED_OVER
from exporter.formats.onnx.protos import content_of, copy_without
from exporter.graph import Array

# onnxruntime's exceptions share no base but Exception; a wrong feed is a plain ValueError.
_ERRORS = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
    state.RuntimeException,
    RuntimeError,
    ValueError,
)
_FOLDER = "session.model_external_initializers_file_folder_path"
_LARGE = 1 << 20  # bytes
_FATAL = 4  # the severity below which nothing is logged


class OnnxRunner:
    """A model in an onnxruntime session; threads do not spin between runs.

    Args:
        model: the parsed file.
        name: what messages call it.
        options: how it is run.
        outside: what holds constants of it. What is too large for one message then need not go
            through one.
    """

    def __init__(
        self, model: ModelProto, name: str, options: RunOptions, outside: Outside | None = None
    ) -> None:
        self.engine = f"onnxruntime {onnxruntime.__version__}"
        self._name = name
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = _FATAL
        session_options = _session_options(options)
        if outside is not None:
            session_options.add_session_config_entry(_FOLDER, str(outside.folder))
            model, self._held = _handed_over(model, outside, session_options)
        data = content_of(model, name)
        try:
            self._session = onnxruntime.InferenceSession(
                data, session_options, providers=["CPUExecutionProvider"]
            )
        except _ERRORS as error:
            raise ModelError(f"onnxruntime cannot load {name}: {_one_line(error)}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            results = self._session.run(self._outputs, dict(inputs), self._run_options)
        except _ERRORS as error:
            raise ModelError(f"onnxruntime cannot run {self._name}: {_one_line(error)}") from error
        return dict(zip(self._outputs, results, strict=True))


def _handed_over(
    model: ModelProto, outside: Outside, options: onnxruntime.SessionOptions
) -> tuple[ModelProto, list[Any]]:
    """The model with its large constants handed over as arrays, which must stay alive.

    Those in files beside it the runtime finds itself.
    """
    light = copy_without(model, "graph")
    light.graph.CopyFrom(copy_without(model.graph, "initializer"))
    names, values = [], []
    for tensor in model.graph.initializer:
        if not _is_handed_over(tensor, outside):
            light.graph.initializer.append(tensor)
            continue
        value = np.require(outside.read(tensor), requirements=["C", "ALIGNED"])
        names.append(tensor.name)
        values.append(onnxruntime.OrtValue.ortvalue_from_numpy(value))
        named = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        named.data_location = TensorProto.EXTERNAL
        named.external_data.add(key="location", value="handed over")
        light.graph.initializer.append(named)
    if names:
        options.add_external_initializers(names, values)
    return light, values


def _is_handed_over(tensor: TensorProto, outside: Outside) -> bool:
    if is_outside(tensor):
        return not outside.is_beside(tensor)
    return tensor.data_type in HANDED_OVER and len(tensor.raw_data) >= _LARGE


def _session_options(options: RunOptions) -> onnxruntime.SessionOptions:
    result = onnxruntime.SessionOptions()
    result.intra_op_num_threads = options.threads
    result.inter_op_num_threads = 1
    result.log_severity_level = _FATAL
    result.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return result


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
