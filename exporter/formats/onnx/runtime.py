"""Run an ONNX model with onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import onnxruntime
from onnx import ModelProto

from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.onnx.classical.maps import array_of_maps, labels_of_maps
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.session import RUNTIME_ERRORS, is_plain, load_session, run_session
from exporter.graph import Array
from exporter.ondevice.onnx_session import bound_run, session_options
from exporter.ondevice.providers import engine_text

_UNKNOWN = "is not a registered function/op"


class OnnxRunner:
    """A model in an onnxruntime session; threads do not spin between runs.

    Args:
        model: the parsed file.
        name: of the model, for messages.
        options: number of threads and so on.
        external: constants that are not in `model`.
    """

    def __init__(
        self,
        model: ModelProto,
        name: str,
        options: RunOptions,
        external: ExternalData | None = None,
    ) -> None:
        self.engine = engine_text(f"onnxruntime {onnxruntime.__version__}", options.provider)
        self._name = name
        try:
            self._session, self._values = load_session(
                model, name, session_options(options.threads), external, options.provider
            )
        except RUNTIME_ERRORS as error:
            reason = _one_line(error)
            hint = "--no-verify writes a cut without running it" if _UNKNOWN in reason else ""
            raise ModelError(f"onnxruntime cannot load {name}: {reason}", hint) from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._maps = labels_of_maps(model)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            results = run_session(self._session, self._outputs, inputs)
        except RUNTIME_ERRORS as error:
            fact = f"onnxruntime cannot run {self._name}: {_one_line(error)}"
            raise ModelError(fact, self._length_hint(inputs)) from error
        named = dict(zip(self._outputs, results, strict=True))
        for name in self._maps.keys() & named.keys():
            named[name] = array_of_maps(named[name], self._maps[name])
        return named

    def _length_hint(self, inputs: Mapping[str, Array]) -> str:
        """How to state other lengths, if the file leaves some open that the network decides."""
        for end in self._session.get_inputs():
            is_open = [bool(i) and not isinstance(n, int) for i, n in enumerate(end.shape)]
            if any(is_open) and end.name in inputs:
                fed = zip(inputs[end.name].shape, is_open, strict=False)
                shape = ",".join("?" if unknown else str(length) for length, unknown in fed)
                return f"if the network needs other lengths: --input-shape {end.name}={shape}"
        return ""

    def prepare(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """See `exporter.formats.model.TimedRunner`; outputs stay in the runtime."""
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        if not all(is_plain(end.type) and "string" not in end.type for end in ends):
            return partial(run_session, self._session, self._outputs, inputs)
        return bound_run(self._session, inputs, self._outputs)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
