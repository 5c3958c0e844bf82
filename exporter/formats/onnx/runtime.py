"""Run an ONNX model with onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as state

from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.onnx.classical.maps import array_of_maps, labels_of_maps
from exporter.formats.onnx.external_data import ExternalData, is_external
from exporter.formats.onnx.lazy_parse import ARRAY_TYPES
from exporter.formats.onnx.protos import file_content, model_without
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
_FATAL = 4  # log severity: lower ones are not logged


class OnnxRunner:
    """A model in an onnxruntime session; threads do not spin between runs.

    Args:
        model: the parsed file.
        name: of the model, for messages.
        options: number of threads and so on.
        external: constants that are not in `model`. Large ones are passed to the session as
            arrays: a model of more than 2 GB cannot be serialized as one message.
    """

    def __init__(
        self,
        model: ModelProto,
        name: str,
        options: RunOptions,
        external: ExternalData | None = None,
    ) -> None:
        self.engine = f"onnxruntime {onnxruntime.__version__}"
        self._name = name
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = _FATAL
        session_options = _session_options(options)
        if external is not None:
            session_options.add_session_config_entry(_FOLDER, str(external.folder))
            model, self._values = _pass_arrays(model, external, session_options)
        content = file_content(model, name)
        try:
            self._session = onnxruntime.InferenceSession(
                content, session_options, providers=["CPUExecutionProvider"]
            )
        except _ERRORS as error:
            raise ModelError(f"onnxruntime cannot load {name}: {_one_line(error)}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._maps = labels_of_maps(model)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            results = self._session.run(self._outputs, dict(inputs), self._run_options)
        except _ERRORS as error:
            raise ModelError(f"onnxruntime cannot run {self._name}: {_one_line(error)}") from error
        named = dict(zip(self._outputs, results, strict=True))
        for name in self._maps.keys() & named.keys():
            named[name] = array_of_maps(named[name], self._maps[name])
        return named

    def prepare(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """See `exporter.formats.model.TimedRunner`; outputs stay in the runtime."""
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        if not all(end.type.startswith("tensor(") and "string" not in end.type for end in ends):
            return partial(self._session.run, self._outputs, dict(inputs), self._run_options)
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in self._outputs:
            binding.bind_output(name)
        return partial(self._session.run_with_iobinding, binding, self._run_options)


def _pass_arrays(
    model: ModelProto, external: ExternalData, options: onnxruntime.SessionOptions
) -> tuple[ModelProto, list[Any]]:
    """The model without its large constants, and the arrays of these, which must be kept alive.

    onnxruntime itself reads the constants in files next to the model.
    """
    light = model_without(model, "initializer")
    names, values = [], []
    for tensor in model.graph.initializer:
        if not _is_passed(tensor, external):
            light.graph.initializer.append(tensor)
            continue
        value = np.require(external.read(tensor), requirements=["C", "ALIGNED"])
        names.append(tensor.name)
        values.append(onnxruntime.OrtValue.ortvalue_from_numpy(value))
        passed = light.graph.initializer.add(
            name=tensor.name, data_type=tensor.data_type, dims=tensor.dims
        )
        passed.data_location = TensorProto.EXTERNAL
        passed.external_data.add(key="location", value="passed as an array")
    if names:
        options.add_external_initializers(names, values)
    return light, values


def _is_passed(tensor: TensorProto, external: ExternalData) -> bool:
    if is_external(tensor):
        return not external.is_in_file(tensor)
    return tensor.data_type in ARRAY_TYPES and len(tensor.raw_data) >= _LARGE


def _session_options(options: RunOptions) -> onnxruntime.SessionOptions:
    result = onnxruntime.SessionOptions()
    result.intra_op_num_threads = options.threads
    result.inter_op_num_threads = 1
    result.log_severity_level = _FATAL
    result.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return result


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
