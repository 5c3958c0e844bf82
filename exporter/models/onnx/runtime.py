"""Run an ONNX model with onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from exporter.errors import ModelError
from exporter.graph import Array
from exporter.models.model import RunOptions

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
_FATAL = 4  # the severity below which nothing is logged


class OnnxRunner:
    """A model in an onnxruntime session; threads do not spin between runs."""

    def __init__(self, data: bytes, name: str, options: RunOptions) -> None:
        self.engine = f"onnxruntime {onnxruntime.__version__}"
        self._name = name
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = _FATAL
        try:
            self._session = onnxruntime.InferenceSession(
                data, _session_options(options), providers=["CPUExecutionProvider"]
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


def _session_options(options: RunOptions) -> onnxruntime.SessionOptions:
    result = onnxruntime.SessionOptions()
    result.intra_op_num_threads = options.threads
    result.inter_op_num_threads = 1
    result.log_severity_level = _FATAL
    result.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return result


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
