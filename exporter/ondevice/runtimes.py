"""Load a model file by its path, as an application on the device does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.ondevice.providers import (
    check_active,
    engine_text,
    litert_arguments,
    onnx_providers,
)
from exporter.ondevice.spec import Spec


class OnnxFile:
    """See `exporter.formats.model.TimedRunner`."""

    def __init__(self, spec: Spec) -> None:
        import onnxruntime

        from exporter.ondevice.onnx_session import session_options

        providers = onnx_providers(spec.provider, onnxruntime.get_available_providers())
        options = session_options(spec.threads)
        self._session = onnxruntime.InferenceSession(spec.path, options, providers=providers)
        check_active(self._session, providers)
        self._outputs = [each.name for each in self._session.get_outputs()]
        self.engine = engine_text(f"onnxruntime {onnxruntime.__version__}", spec.provider)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        values = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, values))

    def prepare(self, inputs: Mapping[str, Any]) -> Callable[[], object]:
        from exporter.ondevice.onnx_session import bound_run

        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        if any("string" in each.type or not each.type.startswith("tensor") for each in ends):
            return partial(self._session.run, self._outputs, dict(inputs))
        return bound_run(self._session, inputs, self._outputs)


class TfliteFile:
    """See `exporter.formats.model.TimedRunner`."""

    def __init__(self, spec: Spec) -> None:
        module, distribution = _litert()
        arguments = litert_arguments(spec.provider, module)
        self._interpreter = module.Interpreter(
            model_path=spec.path, num_threads=spec.threads, **arguments
        )
        self._delegates = arguments  # LiteRT does not keep them alive
        self._spec = spec
        self._shapes: dict[int, tuple[int, ...]] = {}
        self.engine = engine_text(distribution, spec.provider)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.prepare(inputs)()
        return {n: self._interpreter.get_tensor(i) for n, i in self._spec.outputs.items()}

    def prepare(self, inputs: Mapping[str, Any]) -> Callable[[], object]:
        values = self._by_index(inputs)
        shapes = {index: np.shape(value) for index, value in values.items()}
        if shapes != self._shapes:
            for index, shape in shapes.items():
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for index, value in values.items():
            self._interpreter.set_tensor(index, value)
        invoke: Callable[[], object] = self._interpreter.invoke
        return invoke

    def _by_index(self, inputs: Mapping[str, Any]) -> dict[int, Any]:
        if self._spec.inputs:
            return {self._spec.inputs[name]: value for name, value in inputs.items()}
        indices = [int(each["index"]) for each in self._interpreter.get_input_details()]
        return dict(zip(indices, inputs.values()))


def _litert() -> tuple[Any, str]:
    """The module of the interpreter, and the name and version of its distribution."""
    try:
        from ai_edge_litert import interpreter

        name = "ai-edge-litert"
    except ModuleNotFoundError:
        try:
            from tflite_runtime import interpreter  # type: ignore[import-not-found]  # until 2024

            name = "tflite-runtime"
        except ModuleNotFoundError:
            raise ModuleNotFoundError("no LiteRT", name="ai_edge_litert") from None
    try:
        return interpreter, f"{name} {version(name)}"
    except PackageNotFoundError:
        return interpreter, name


def import_runtime(kind: str) -> tuple[str, str]:
    """The name and version of the runtime of a kind (raises ImportError if it is missing)."""
    if kind == "tflite":
        name, _, number = _litert()[1].partition(" ")
        return name, number
    import onnxruntime

    return "onnxruntime", str(onnxruntime.__version__)


FILES: Mapping[str, Callable[[Spec], Any]] = {"onnx": OnnxFile, "tflite": TfliteFile}


def load(spec: Spec) -> Any:
    """The model in its runtime: a `exporter.formats.model.TimedRunner`.

    Raises:
        ModelError: the runtime refuses it.
        UsageError: the runtime does not have the provider.
        ImportError: the runtime is not installed.
    """
    with_errors: Any = _RefusedByRuntime(spec)
    with with_errors:
        return _Runner(FILES[spec.kind](spec), with_errors)


class _RefusedByRuntime:
    """Turns the errors of a runtime, which share no class, into a ModelError."""

    def __init__(self, spec: Spec) -> None:
        self._name = spec.path.replace("\\", "/").rpartition("/")[2]

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        is_ours = hasattr(error, "hint") or isinstance(error, (ImportError, MemoryError))
        if isinstance(error, Exception) and not is_ours:
            reason = " ".join(str(error).split())
            raise ModelError(f"the runtime cannot run {self._name}: {reason}") from error


class _Runner:
    """A runner that raises the errors of this package."""

    def __init__(self, runner: Any, with_errors: Any) -> None:
        self._runner, self._with_errors = runner, with_errors
        self.engine: str = runner.engine

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        with self._with_errors:
            result: dict[str, Any] = self._runner(inputs)
            return result

    def prepare(self, inputs: Mapping[str, Any]) -> Callable[[], object]:
        with self._with_errors:
            run: Callable[[], object] = self._runner.prepare(inputs)
            return run
