"""LiteRT: verifies files and runs them, and stays silent about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from exporter.errors import ModelError, UsageError
from exporter.formats.model import RunOptions
from exporter.graph import Array


def verify(content: bytes, name: str) -> None:
    """Let the runtime check the flatbuffer before anything else follows its offsets.

    The schema's Python objects follow damaged offsets blindly; the runtime verifies every one, and
    that operators and tensors fit together.

    Raises:
        ModelError: damaged or truncated, or the runtime does not know an operator.
    """
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # nothing is to run
    try:
        with _silent():
            Interpreter(model_content=content, experimental_op_resolver_type=plain)
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"LiteRT cannot read {name}: {_first_line(error)}",
            "the file is damaged or truncated, or needs a newer version of ai-edge-litert",
        ) from error


class LiteRtRunner:
    """A file loaded into LiteRT with its default delegates (XNNPACK); inputs are fed by name."""

    def __init__(
        self,
        content: bytes,
        name: str,
        ends: tuple[Mapping[str, int], Mapping[str, int]],
        options: RunOptions,
    ) -> None:
        """Load it, with the batch that the options ask for where the file leaves it open.

        Args:
            content: the file.
            name: what messages call it.
            ends: names of the inputs and of the outputs, with the index of each tensor.
            options: for the whole life of the runner.

        Raises:
            ModelError: LiteRT cannot run the file.
        """
        self.engine = f"ai-edge-litert {version('ai-edge-litert')}"
        self._name = name
        self._inputs, self._outputs = ends
        with self._failures(), _silent():
            self._interpreter = Interpreter(model_content=content, num_threads=options.threads)
        details = self._interpreter.get_input_details()
        self._details: dict[int, Any] = {int(each["index"]): each for each in details}
        self._shapes = {
            index: tuple(int(n) for n in each["shape"]) for index, each in self._details.items()
        }
        self._load({i: self._open(i, options.batch) for i in self._details})

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One run; see `exporter.formats.model.Runner`.

        Raises:
            UsageError: an input is missing, unknown, or of another dtype or shape.
            ModelError: LiteRT cannot run the file with these inputs.
        """
        values = self._by_index(inputs)
        wanted = {index: value.shape for index, value in values.items()}
        if wanted != self._shapes:
            self._load(wanted)
        with self._failures():
            for index, value in values.items():
                self._interpreter.set_tensor(index, value)
            self._interpreter.invoke()
            return {n: self._interpreter.get_tensor(i) for n, i in self._outputs.items()}

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
        fits = len(signature) == value.ndim and all(
            n in (-1, m) for n, m in zip(signature, value.shape, strict=True)
        )
        if not fits:
            shown = ", ".join("?" if n < 0 else str(n) for n in signature)
            raise UsageError(
                f"the input {name!r} of {self._name} has shape [{shown}], not {list(value.shape)}"
            )

    def _open(self, index: int, batch: int) -> tuple[int, ...]:
        """An input's shape, with the batch where the file leaves it open."""
        signature, shape = _signature(self._details[index]), list(self._shapes[index])
        if signature and signature[0] < 0:
            shape[0] = batch
        return tuple(shape)

    def _load(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        with self._failures(), _silent():
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
            raise ModelError(f"LiteRT cannot run {self._name}: {_first_line(error)}") from error


def _signature(detail: Any) -> list[int]:
    return [int(n) for n in detail["shape_signature"]]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _silent() -> Iterator[None]:
    """Point file descriptor 2 at nothing while LiteRT builds an interpreter.

    Its C++ logger announces each delegate there, has no severity that Python or an environment
    variable could set, and repeats what the raised error says anyway. Other threads' messages of
    these milliseconds are lost.
    """
    with suppress(OSError, ValueError, AttributeError):  # no stderr, or a closed one
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # a process without a descriptor 2 shows nothing
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
