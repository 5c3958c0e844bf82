"""Where models run: in this process and its copies, or on a device that a job names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from exporter.formats.model import Model, Runner, RunOptions

Ends = tuple[Mapping[str, int], Mapping[str, int]]  # inputs and outputs: name -> tensor index


class Executor(Protocol):
    """Runs models elsewhere."""

    def runner(self, model: Model, options: RunOptions, ends: Ends = ({}, {})) -> Runner:
        """Load a model there. `ends` are the inputs and outputs of a TFLite file."""


_active: ContextVar[Executor | None] = ContextVar("executor", default=None)


@contextmanager
def running_on(executor: Executor | None) -> Iterator[None]:
    """Run the ONNX and TFLite models of the block there; None for this machine."""
    token = _active.set(executor)
    try:
        yield
    finally:
        _active.reset(token)


def active_executor() -> Executor | None:
    """The executor of the block; None for this machine."""
    return _active.get()
