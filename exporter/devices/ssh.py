"""A device that is reached over ssh: runs and measures models with its own runtimes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporter.devices.address import Address
from exporter.devices.connection import Connection
from exporter.devices.device import Feeds, Measurements, Progress
from exporter.errors import DeviceError
from exporter.formats import KINDS
from exporter.formats.executor import Ends
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.ondevice.arrays import pack, unpack
from exporter.ondevice.rounds import SIDES, Measured
from exporter.ondevice.spec import Spec
from exporter.output.scratch import scratch_folder
from exporter.performance.latency import feeds_of
from exporter.performance.latency_record import make_record
from exporter.performance.memory import Growth, ModelFile, Originals, compare_growth
from exporter.performance.scenario import BenchOptions
from exporter.records import Device as DeviceRow


class SshDevice:
    """See `exporter.devices.device.Device`."""

    def __init__(self, address: Address, kinds: tuple[str, ...], needed_bytes: int) -> None:
        """Connect (raises DeviceError).

        Args:
            kinds: of the models, so far as they are known: their runtimes must be there.
            needed_bytes: of the files that will be sent.
        """
        self.name = address.name
        self._connection = Connection(address, needed_bytes)
        try:
            answer, _ = self._connection.call("hello", {"kinds": kinds})
        except BaseException:
            self.close()
            raise
        machine, state = answer["machine"], answer["state"]
        versions = {"python": machine.pop("python"), **machine.pop("versions")}
        self._facts = DeviceRow(
            self.name,
            **machine,
            versions=versions,
            governor=state["governor"],
            temperature_before_c=state["temperature_c"],
        )
        self._sent: dict[str, str] = {}  # SHA-256 of the files of a model -> its path there
        self._memory: Originals = {}
        self._keys, self._unused = 0, list[int]()

    def measure(
        self, files: tuple[ModelFile, ModelFile], feeds: Feeds, bench: BenchOptions, do: Progress
    ) -> Measurements:
        """See `exporter.devices.device.Device`."""
        specs = [self._spec(file, bench.run) for file in files]
        own = [feeds_of(file.model, feeds) for file in files]
        do(f"timing {files[1].model.name} on {self.name}")
        named = {
            f"{side}/{number}/{name}": value
            for side, each in enumerate(own)
            for number, feed in enumerate(each)
            for name, value in feed.items()
        }
        described, content = pack(named)
        answer, payload = self._connection.call(
            "bench",
            {
                "specs": [spec._asdict() for spec in specs],
                "feeds": described,
                "schedule": bench.schedule,
            },
            content,
            do,
        )
        arrays = unpack(answer["arrays"], payload)
        measured = Measured(
            answer["engine"],
            answer["block_runs"],
            arrays["load_of_round"],
            arrays["loads"],
            [arrays[f"runs/{index}"] for index in range(len(SIDES))],
            arrays["cpu"],
            arrays["interruptions"],
        )
        latency = make_record(measured, files[1].model.name, bench, feeds[0], self.name)
        do(f"measuring the memory of {files[1].model.name} on {self.name}")
        inputs = {id(file): each[0] for file, each in zip(files, own, strict=True)}
        paths = {id(file): spec for file, spec in zip(files, specs, strict=True)}

        def grow(file: ModelFile) -> Growth:
            return self._growth(paths[id(file)], inputs[id(file)])

        try:
            memory = compare_growth(grow, *files, measured.engine, self._memory, self.name)
        except DeviceError as error:  # the timings are kept, as on this machine
            return Measurements(latency, None, (error.message,))
        return Measurements(latency, memory, ())

    def executor(self) -> SshDevice:
        """The device runs models."""
        return self

    def runner(self, model: Model, options: RunOptions, ends: Ends = ({}, {})) -> _Runner:
        """See `exporter.formats.executor.Executor`."""
        with scratch_folder() as folder:
            path = folder / f"model{KINDS[model.kind].suffixes[0]}"
            model.write(path)
            files = sorted(each for each in folder.rglob("*") if each.is_file())
            there = self._send(path, files)
        spec = Spec(model.kind, there, options.threads, options.provider, *ends)
        self._keys += 1
        unused, self._unused = self._unused, []
        request = {"spec": spec._asdict(), "key": self._keys, "unused": unused}
        answer, _ = self._connection.call("load", request)
        return _Runner(self, self._keys, answer["engine"])

    def run(self, key: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a model that `runner` loaded."""
        described, content = pack(inputs)
        request = {"key": key, "inputs": described}
        answer, payload = self._connection.call("run", request, content)
        return unpack(answer["outputs"], payload)

    def forget(self, key: int) -> None:
        """Note that a model is not needed any more. The next request says so: nothing may be sent
        now.
        """
        self._unused.append(key)

    def facts(self) -> DeviceRow:
        """See `exporter.devices.device.Device`."""
        answer, _ = self._connection.call("state", {})
        known = asdict(self._facts)
        return DeviceRow(**{**known, "temperature_after_c": answer["state"]["temperature_c"]})

    def close(self) -> None:
        """See `exporter.devices.device.Device`."""
        self._connection.close()

    def _spec(self, file: ModelFile, options: RunOptions) -> Spec:
        kind = file.model.kind
        there = self._send(file.path, KINDS[kind].files_of(file.path))
        return Spec(kind, there, options.threads, options.provider)

    def _send(self, path: Path, files: list[Path] | tuple[Path, ...]) -> str:
        """Send the files of a model, unless they are there; returns its path there."""
        names = [each.relative_to(path.parent).as_posix() for each in files]
        digest = hashlib.sha256()
        for name, file in zip(names, files, strict=True):
            with file.open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
            digest.update(f"{found} {name}\n".encode())
        key = f"{digest.hexdigest()} {path.name}"
        if key not in self._sent:
            folder = f"{len(self._sent)}"
            self._connection.send(
                (f"{folder}/{name}", file) for name, file in zip(names, files, strict=True)
            )
            self._sent[key] = f"{folder}/{path.name}"
        return self._sent[key]

    def _growth(self, spec: Spec, feed: Mapping[str, Array]) -> Growth:
        described, content = pack(feed)
        request: dict[str, Any] = {"spec": spec._asdict(), "feeds": described}
        answer, _ = self._connection.call("memory", request, content)
        growth: Growth = answer["growth"]
        return growth


class _Runner:
    """See `exporter.formats.model.Runner`."""

    def __init__(self, device: SshDevice, key: int, engine: str) -> None:
        self._device, self._key, self.engine = device, key, engine

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._device.run(self._key, inputs)

    def __del__(self) -> None:
        self._device.forget(self._key)
