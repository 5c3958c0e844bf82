"""Answer the host's requests on a device: load, run and time models.

`exporter.ondevice.serve` starts it as the main module of the archive that was sent. A request is a
frame with "do", the name of a function below, and the arguments of that function.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from exporter.errors import ExporterError
from exporter.ondevice.arrays import pack, unpack
from exporter.ondevice.machine import machine, state
from exporter.ondevice.memory_probe import main as probe
from exporter.ondevice.rounds import Schedule, measure
from exporter.ondevice.runtimes import import_runtime, load
from exporter.ondevice.serve import read_frame, write_frame
from exporter.ondevice.spec import ENVIRONMENT, NAME_PREFIX, Spec

_MEMORY = "memory"  # the first argument of a process that measures memory
_FIRST_TO_KILL = "1000"  # https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html


class Worker:
    """The functions that the host calls.

    Args:
        send: passes a frame to the host.
    """

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send
        self._loaded: dict[int, Any] = {}

    def hello(self, _payload: bytes, kinds: list[str]) -> Any:
        """The machine, its state, and the versions of the libraries."""
        versions = {"numpy": np.__version__, **dict(import_runtime(kind) for kind in kinds)}
        return {"machine": {**machine(), "versions": versions}, "state": state()}, b""

    def state(self, _payload: bytes) -> Any:
        """The state of the machine now."""
        return {"state": state()}, b""

    def load(self, _payload: bytes, spec: Mapping[str, Any], key: int, unused: list[int]) -> Any:
        """Load a model for `run`, and forget others."""
        for each in unused:
            self._loaded.pop(each, None)
        self._loaded[key] = load(Spec(**spec))
        return {"engine": self._loaded[key].engine}, b""

    def run(self, payload: bytes, key: int, inputs: Any) -> Any:
        """The outputs for one sample."""
        described, content = pack(self._loaded[key](unpack(inputs, payload)))
        return {"outputs": described}, content

    def bench(self, payload: bytes, specs: list[Any], feeds: Any, schedule: Any) -> Any:
        """Time two models; see `exporter.ondevice.rounds.measure`."""
        self._loaded.clear()
        values = unpack(feeds, payload)
        own = [_feeds(values, f"{index}/") for index in range(len(specs))]
        loaders = [partial(load, Spec(**spec)) for spec in specs]
        progress = lambda message: self._send({"progress": message})  # noqa: E731 - one line
        found = measure(loaders, own, Schedule(*schedule), progress=progress)
        arrays = {
            "load_of_round": found.load_of_round,
            "loads": found.loads,
            "cpu": found.cpu,
            "interruptions": found.interruptions,
            **{f"runs/{index}": runs for index, runs in enumerate(found.runs)},
        }
        described, content = pack(arrays)
        header = {"engine": found.engine, "block_runs": list(found.block_runs), "arrays": described}
        return header, content

    def memory(self, payload: bytes, spec: Mapping[str, Any], feeds: Any) -> Any:
        """The growth of a new process that loads and runs a model; see `memory_probe`."""
        self._loaded.clear()
        values: dict[str, Any] = {
            NAME_PREFIX + name: value for name, value in unpack(feeds, payload).items()
        }
        with tempfile.NamedTemporaryFile(suffix=".npz", dir=os.getcwd()) as file:
            np.savez(file, **values)
            file.flush()
            done = subprocess.run(
                [sys.executable, sys.argv[0], _MEMORY, json.dumps(spec), file.name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
                env={**os.environ, **ENVIRONMENT},
            )
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            return {"failed": lines[-1] if lines else "", "died": done.returncode}, b""
        return {"growth": json.loads(done.stdout.decode())}, b""


def _feeds(values: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
    """The feeds of one side: names are SIDE/NUMBER/INPUT."""
    found: dict[int, dict[str, Any]] = {}
    for name, value in values.items():
        if name.startswith(side):
            number, _, source = name[len(side) :].partition("/")
            found.setdefault(int(number), {})[source] = value
    return [found[number] for number in sorted(found)]


def answer(worker: Worker, header: dict[str, Any], payload: bytes) -> Any:
    """The answer to one request: a header and a payload, also of an error."""
    try:
        return getattr(worker, header.pop("do"))(payload, **header)
    except ExporterError as error:
        return {"error": [type(error).__name__, error.message, error.hint]}, b""
    except ImportError as error:
        return {"missing": error.name or "", "reason": str(error)}, b""
    except MemoryError:
        return {"error": ["DeviceError", "there is not enough memory", ""], "memory": True}, b""
    except Exception as error:  # noqa: BLE001 - the host shows it
        reason = " ".join(str(error).split())[:200]
        return {"error": ["DeviceError", f"{type(error).__name__}: {reason}", ""]}, b""


def main() -> None:
    """Answer requests from stdin until it ends, or measure memory."""
    if sys.argv[1:2] == [_MEMORY]:
        probe(sys.argv[1:])
        return
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(_FIRST_TO_KILL)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    send = partial(write_frame, answers)
    worker = Worker(send)
    with suppress(EOFError, BrokenPipeError):
        while True:
            header, payload = read_frame(requests)
            send(*answer(worker, header, payload))


if __name__ == "__main__":
    main()
