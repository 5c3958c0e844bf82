"""What a job needs of a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from exporter.formats.executor import Executor
from exporter.graph import Array
from exporter.performance.memory import ModelFile
from exporter.performance.scenario import BenchOptions
from exporter.records import Device as DeviceRow
from exporter.records import Latency, Memory

Feeds = Sequence[Mapping[str, Array]]
Progress = Callable[[str], None]


class Measurements(NamedTuple):
    """What was measured on a device."""

    latency: Latency
    memory: Memory | None
    warnings: tuple[str, ...]


class Device(Protocol):
    """A device that is connected."""

    name: str

    def measure(
        self, files: tuple[ModelFile, ModelFile], feeds: Feeds, bench: BenchOptions, do: Progress
    ) -> Measurements:
        """Time an original and a pruned model there, and measure their memory.

        Raises:
            DeviceError: the device lacks something, or the process there ended.
            ModelError: its runtime cannot load or run one of the models.
        """

    def executor(self) -> Executor:
        """Runs models there (raises UsageError if the device returns no values)."""

    def facts(self) -> DeviceRow:
        """The device, and its state before and after."""

    def close(self) -> None:
        """End the connection; nothing stays on the device."""
