"""An Android device that is reached with adb: `benchmark_model` of LiteRT times the files there.

Each process of `benchmark_model` loads one file, runs it, and prints an average; it makes the
inputs itself. So each process is one load and one round; processes alternate in random order:
the original, the pruned model, and the original again.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from exporter.devices.address import Address
from exporter.devices.connection import died
from exporter.devices.device import Feeds, Measurements, Progress
from exporter.errors import DeviceError, UsageError
from exporter.formats.executor import Executor
from exporter.ondevice.providers import split_provider
from exporter.ondevice.rounds import SIDES, Measured
from exporter.performance.latency_record import make_record
from exporter.performance.memory import Growth, ModelFile, summarize
from exporter.performance.scenario import BenchOptions
from exporter.records import Device as DeviceRow

PROGRAM = "EXPORTER_ADB"
_FOLDER = "/data/local/tmp"  # the only one where the shell's user may start programs
_STATUS = re.compile(r"exit=([0-9]+)\s*\Z")
_NUMBER = r"([0-9][0-9.]*(?:e[+-]?[0-9]+)?)"
_TIMES = re.compile(rf"Init: {_NUMBER},.*Inference \(avg\): {_NUMBER}")
_PEAK = re.compile(rf"Memory footprint delta.*\(MB\): init={_NUMBER} overall={_NUMBER}")
_OUTLIER = 128  # exit statuses above it state a signal
# provider -> the option of benchmark_model
_PROVIDERS = {"xnnpack": "use_xnnpack", "gpu": "use_gpu", "nnapi": "use_nnapi"}
_FACTS = {
    "cpu": "getprop ro.product.model",
    "cores": "nproc",
    "system": "uname -sm",
    "android": "getprop ro.build.version.release",
    "memory": "awk '/MemTotal/ {print $2}' /proc/meminfo",
    "governor": "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "temperature": "cat /sys/class/thermal/thermal_zone*/temp | sort -n | tail -n 1",
}
_HINT = "check `adb devices`: the device must be listed as `device`"


class AdbDevice:
    """See `exporter.devices.device.Device`."""

    def __init__(self, address: Address, benchmark_model: Path | None) -> None:
        """Connect (raises DeviceError).

        Args:
            benchmark_model: is sent; None if the address names the one on the device.
        """
        if not (benchmark_model or address.program):
            raise UsageError(
                f"{address.url} needs the program benchmark_model",
                "give --benchmark-model FILE, or name it on the device: "
                f"{address.url}{_FOLDER}/benchmark_model",
            )
        self.name, self._address = address.name, address
        self._folder = self._shell(f"mktemp -d {_FOLDER}/exporter-device-XXXXXX").strip()
        try:
            self._program = address.program or f"{self._folder}/benchmark_model"
            if benchmark_model:
                self._push(benchmark_model, self._program)
                self._shell(f"chmod 700 {shlex.quote(self._program)}")
            self._facts = self._ask()
        except BaseException:
            self.close()
            raise
        self._sent: dict[Path, str] = {}

    def measure(
        self, files: tuple[ModelFile, ModelFile], feeds: Feeds, bench: BenchOptions, do: Progress
    ) -> Measurements:
        """See `exporter.devices.device.Device`. The feeds are not used."""
        for file in files:
            if file.model.kind != "tflite":
                raise UsageError(
                    f"{file.path.name} does not run in benchmark_model", "give two .tflite files"
                )
        paths = [self._send(file.path) for file in files]
        random = np.random.default_rng(bench.seed)
        count = max(bench.loads, 6)
        do(f"timing {files[1].model.name} on {self.name}: {3 * count} processes")
        rounds = []
        for _ in range(count):
            found = {}
            for side in random.permutation(len(SIDES)).tolist():
                found[side] = self._run(paths[SIDES[side]], bench, count)
            rounds.append([found[side] for side in range(len(SIDES))])
        times = np.array([[each[:2] for each in row] for row in rounds]) * 1e3  # us -> ns
        measured = Measured(
            engine=f"benchmark_model, {bench.run.provider or 'default delegates'}",
            block_runs=[1] * len(SIDES),
            load_of_round=np.arange(count),
            loads=times[:, :, 0],
            runs=[times[:, side, 1:] for side in range(len(SIDES))],
            cpu=np.zeros((len(SIDES), count)),
            interruptions=np.zeros((len(SIDES), count), int),
        )
        latency = make_record(measured, files[1].model.name, bench, feeds[0], self.name)
        warning = (
            f"on {self.name}, percentiles are of the averages of {count} processes, on inputs that "
            "benchmark_model makes"
        )
        growth = [[each[2] for each in column] for column in zip(*rounds, strict=True)]
        if not all(each for column in growth for each in column):
            return Measurements(latency, None, (warning,))
        original, pruned, control = growth
        memory = summarize(
            files[1].model.name, measured.engine, original, pruned, control, self.name
        )
        return Measurements(latency, memory, (warning,))

    def executor(self) -> Executor:
        """Refuse: the program prints no values."""
        raise UsageError(
            f"{self._address.url} cannot compare files: benchmark_model prints no values",
            "verify on this machine or on an ssh:// device",
        )

    def facts(self) -> DeviceRow:
        """See `exporter.devices.device.Device`."""
        now = self._ask().temperature_before_c
        return DeviceRow(**{**asdict(self._facts), "temperature_after_c": now})

    def close(self) -> None:
        """See `exporter.devices.device.Device`."""
        self._adb("shell", f"rm -rf {shlex.quote(self._folder)}", may_fail=True)

    def _run(self, path: str, bench: BenchOptions, count: int) -> tuple[float, float, Growth]:
        """Start the program: microseconds of the load and of an average run, and its memory."""
        seconds = bench.min_seconds / count / len(SIDES)
        options = {
            "graph": path,
            "num_threads": bench.run.threads,
            "num_runs": max(1, bench.min_runs // count),
            "min_secs": f"{seconds:g}",
            "report_peak_memory_footprint": "true",
            **_provider(bench.run.provider),
        }
        words = [self._program, *(f"--{name}={value}" for name, value in options.items())]
        text = self._shell(f"{shlex.join(words)} 2>&1")
        times, memory = _TIMES.search(text), _PEAK.search(text)
        if times is None:
            last = text.strip().splitlines()[-1:] or ["nothing"]
            raise DeviceError(
                f"benchmark_model on {self.name} printed no time: {last[0][:200]}",
                "use the program of the same version as your runtime",
            )
        growth = {"resident": int(float(memory[2]) * 1e6)} if memory else {}
        return float(times[1]), float(times[2]), growth

    def _ask(self) -> DeviceRow:
        asked = "; ".join(f"echo {name} $({command} 2>&-)" for name, command in _FACTS.items())
        found = dict.fromkeys(_FACTS, "")
        for line in self._shell(asked).splitlines():
            name, _, value = line.partition(" ")
            found[name] = value.strip()

        def number(name: str) -> int | None:
            return int(found[name]) if found[name].isdigit() else None

        memory, temperature = number("memory"), number("temperature")
        return DeviceRow(
            self.name,
            cpu=found["cpu"] or None,
            cores=number("cores"),
            memory_bytes=None if memory is None else memory * 1024,
            system=found["system"],
            versions={"android": found["android"]} if found["android"] else {},
            governor=found["governor"] or None,
            temperature_before_c=None if temperature is None else temperature / 1000,
        )

    def _send(self, path: Path) -> str:
        if path not in self._sent:
            there = f"{self._folder}/{len(self._sent)}.tflite"
            self._push(path, there)
            self._sent[path] = there
        return self._sent[path]

    def _push(self, path: Path, there: str) -> None:
        self._adb("push", str(path), there)

    def _shell(self, command: str) -> str:
        """What a command prints; old versions of adb do not pass on its exit status."""
        text = self._adb("shell", f"{command}; echo exit=$?")
        status = _STATUS.search(text)
        number = int(status[1]) if status else 1
        said = " ".join(text[: status.start() if status else None].strip().splitlines()[-1:])
        if number > _OUTLIER:
            raise died(self.name, _OUTLIER - number, "")
        if number:
            first = command.split(maxsplit=1)[0]
            raise DeviceError(f"{self.name} cannot run {first}: {said}", _HINT)
        return _STATUS.sub("", text)

    def _adb(self, *arguments: str, may_fail: bool = False) -> str:
        program = os.environ.get(PROGRAM) or "adb"
        words: Sequence[str] = [*shlex.split(program), "-s", self._address.target, *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - the user's adb
                words, capture_output=True, check=False, encoding="utf-8", errors="replace"
            )
        except OSError as error:
            raise DeviceError(
                f"{words[0]} cannot be started: {error.strerror}",
                f"install adb, or name another program in {PROGRAM}",
            ) from error
        said = " ".join(f"{done.stderr}{done.stdout}".strip().splitlines()[-1:])
        if done.returncode and not may_fail:
            if "No space left" in said:
                raise DeviceError(
                    f"there is not enough space on {self.name}: {said}", f"free some in {_FOLDER}"
                )
            raise DeviceError(f"{self.name} cannot be reached: {said}", _HINT)
        return done.stdout


def _provider(text: str) -> dict[str, str]:
    """The options of benchmark_model for a provider."""
    name, options = split_provider(text)
    if not name:
        return {}
    if name not in _PROVIDERS:
        raise UsageError(
            f"benchmark_model has no provider {name!r}", f"it has {', '.join(_PROVIDERS)}"
        )
    return {_PROVIDERS[name]: "true", **options}
