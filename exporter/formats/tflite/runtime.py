"""Run files with LiteRT, without its log messages.

LiteRT reports each delegate and repeats the errors that it raises, with no option to turn that off.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
from ai_edge_litert import interpreter

from exporter.errors import UsageError
from exporter.formats.model import RunOptions
from exporter.formats.tflite.foreign_operators import cannot_run
from exporter.graph import Array
from exporter.ondevice.providers import engine_text, litert_arguments
from exporter.output.silence import no_output


class LiteRtRunner:
    """A file loaded into LiteRT; inputs are fed by name."""

    def __init__(
        self,
        content: bytes,
        name: str,
        ends: tuple[Mapping[str, int], Mapping[str, int]],
        options: RunOptions,
        custom: Collection[str] = (),
    ) -> None:
        """Load a file; an open batch dimension gets the batch of the options.

        Args:
            content: of the file.
            name: of the file, for errors.
            ends: the inputs, and the outputs: name -> tensor index.
            options: for all runs.
            custom: the names of its custom operators.

        Raises:
            ModelError: LiteRT cannot run the file.
            UsageError: LiteRT does not have the provider.
        """
        runtime = f"ai-edge-litert {version('ai-edge-litert')}"
        self.engine = engine_text(runtime, options.provider)
        self._name, self._custom = name, custom
        self._inputs, self._outputs = ends
        with self._failures(), no_output(2):
            self._delegates = litert_arguments(options.provider, interpreter)  # keeps them alive
            self._interpreter = interpreter.Interpreter(
                model_content=content, num_threads=options.threads, **self._delegates
            )
        details = self._interpreter.get_input_details()
        self._details: dict[int, Any] = {int(each["index"]): each for each in details}
        self._shapes = {
            index: tuple(int(n) for n in each["shape"]) for index, each in self._details.items()
        }
        self._load({i: self._first_shape(i, options.batch) for i in self._details})

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One run; see `exporter.formats.model.Runner`.

        Raises:
            UsageError: an input is missing, unknown, or of another dtype or shape.
            ModelError: LiteRT cannot run the file with these inputs.
        """
        run = self.prepare(inputs)
        with self._failures():
            run()
            return {n: self._interpreter.get_tensor(i) for n, i in self._outputs.items()}

    def prepare(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """See `exporter.formats.model.TimedRunner`; raises as calling the runner does."""
        values = self._by_index(inputs)
        wanted = {index: value.shape for index, value in values.items()}
        if wanted != self._shapes:
            self._load(wanted)
        with self._failures():
            for index, value in values.items():
                self._interpreter.set_tensor(index, value)
        return self._interpreter.invoke  # type: ignore[no-any-return]

    def _by_index(self, inputs: Mapping[str, Array]) -> dict[int, Array]:
        for name in inputs:
            if name not in self._inputs:
                known = ", ".join(repr(each) for each in self._inputs)
                raise UsageError(f"{self._name} has no input {name!r}", f"its inputs: {known}")
        values = {self._inputs[name]: np.asarray(value) for name, value in inputs.items()}
        for name, index in self._inputs.items():
            if index not in values:
                raise UsageError(f"{self._name} needs values for its input {name!r}")
            self._check(name, self._details[index], values[index])
        return values

    def _check(self, name: str, detail: Any, value: Array) -> None:
        wanted = np.dtype(detail["dtype"])
        if value.dtype != wanted:
            raise UsageError(f"the input {name!r} of {self._name} is {wanted}, not {value.dtype}")
        signature = _signature(detail)
        if len(signature) != value.ndim or any(
            n not in (-1, m) for n, m in zip(signature, value.shape, strict=True)
        ):
            shown = ", ".join("?" if n < 0 else str(n) for n in signature)
            raise UsageError(
                f"the input {name!r} of {self._name} has shape [{shown}], not {list(value.shape)}"
            )

    def _first_shape(self, index: int, batch: int) -> tuple[int, ...]:
        """An input's shape, with the batch if the file leaves that dimension open."""
        signature, shape = _signature(self._details[index]), list(self._shapes[index])
        if signature and signature[0] < 0:
            shape[0] = batch
        return tuple(shape)

    def _load(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        with self._failures(), no_output(2):
            for index, shape in shapes.items():
                if shape != self._shapes[index]:
                    self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
        self._shapes = dict(shapes)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError) as error:
            raise cannot_run(self._name, self._custom, _first_line(error)) from error


def _signature(detail: Any) -> list[int]:
    return [int(n) for n in detail["shape_signature"]]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
