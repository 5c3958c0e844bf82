"""Compare a batch on this machine, a batch on two Dask workers, and a loop of `exporter run`.

    PYTHONPATH=. nice python benchmarks/batch.py [--selections 50] [--loop 4] [--write]

Three Keras networks x selections x 2 formats, without timing of the models and without plots. The
loop makes only the first cells of each network and format, because each call converts the network
again; its rate is that of these. Memory is the largest sum of the proportional set sizes of all
processes that a row starts. Timings of a busy machine are ratios at best. With --write, the table
goes into docs/scale.md, and the measured costs into benchmarks/batch_costs.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from document import table, write_between

UNITS, KEPT, SAMPLES = 100, 10, 8
FORMATS = ("onnx", "tflite")
COSTS = Path(__file__).with_name("batch_costs.json")
NETWORKS = """
import keras, sys
for name, alpha, size in (("small", 0.35, 64), ("middle", 0.5, 96), ("large", 1.0, 96)):
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV2((size, size, 3), alpha=alpha, weights=None, classes=100)
    model.save(f"{sys.argv[1]}/{name}.keras")
"""


def plan_of(selections: int) -> str:
    kept = (f"{i}-{i + KEPT - 1}" for i in range(selections))
    rows = "".join(f's{i} = "{spec}"\n' for i, spec in enumerate(kept))
    options = f"bench = false\nplots = false\nsamples = {SAMPLES}\n"
    formats = f"formats = {json.dumps(FORMATS)}\n"
    return f'{formats}[options]\n{options}[models]\nnets = "*.keras"\n[selections]\n{rows}'


class Memory:
    """The largest memory of processes and their descendants, looked at four times a second."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.peak = 0
        self._end = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._end.wait(0.25):
            self.peak = max(self.peak, sum(map(_bytes_of, self.roots)))

    def stop(self) -> int:
        self._end.set()
        return self.peak


def _bytes_of(root: int) -> int:
    total = 0
    try:
        family = [psutil.Process(root)]
        family += family[0].children(recursive=True)
    except psutil.Error:
        return 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def run(command: list[str], folder: Path, memory: Memory) -> None:
    process = subprocess.Popen(command, cwd=folder)
    memory.roots.append(process.pid)
    if process.wait():
        raise SystemExit(f"failed: {' '.join(command)}")


@contextmanager
def dask(folder: Path, memory: Memory) -> Iterator[str]:
    """A scheduler, and two workers with one thread each."""
    file = folder / "scheduler.json"
    start = [sys.executable, "-m", "dask"]
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    arguments = ["scheduler", *local, "--port", "0", "--scheduler-file", str(file)]
    processes = [subprocess.Popen([*start, *arguments], **quiet)]  # type: ignore[call-overload]
    try:
        while not (file.exists() and file.read_text()):
            time.sleep(0.1)
        address: str = json.loads(file.read_text())["address"]
        worker = [*start, "worker", address, *local, "--no-nanny", "--nthreads", "1"]
        processes += [subprocess.Popen(worker, **quiet) for _ in range(2)]  # type: ignore[call-overload]
        memory.roots += [process.pid for process in processes]
        from distributed import Client  # noqa: PLC0415 - after the scheduler has started

        with Client(address) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(2)
        yield address
    finally:
        for process in processes:
            process.kill()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def loop(folder: Path, cells: list[tuple[str, int, str]], memory: Memory) -> None:
    """One `exporter run` for each cell."""
    for name, selection, kind in cells:
        line = ["run", f"{name}.keras", "-o", f"loop/{name}.{selection}.{kind}", "--to", kind]
        line += ["--keep", f"{selection}-{selection + KEPT - 1}", "--samples", str(SAMPLES)]
        run([*EXPORTER, *line, "--no-bench", "--no-plots", "-q"], folder, memory)


EXPORTER = [sys.executable, "-m", "exporter"]


def costs(out: Path) -> dict[str, float]:
    """Medians of the journal of a batch, and the bytes of a cell."""
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    is_conversion = {True: [], False: []}  # type: dict[bool, list[dict[str, float]]]
    for line in lines:
        is_conversion[line["task"].startswith("converted/")].append(line)
    cells = [path.parent for path in out.rglob("cell.json")]
    return {
        "cell_s": statistics.median(line["seconds"] for line in is_conversion[False]),
        "conversion_s": statistics.median(line["seconds"] for line in is_conversion[True]),
        "cell_bytes": statistics.median(map(size_of, cells)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--selections", type=int, default=50)
    parser.add_argument("--loop", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", NETWORKS, str(folder)], check=True)
        (folder / "plan.toml").write_text(plan_of(options.selections))
        batch = [*EXPORTER, "batch", "plan.toml", "-q", "-o"]
        nets = [path.stem for path in sorted(folder.glob("*.keras"))]
        every = 3 * options.selections * len(FORMATS)
        few = list(itertools.product(nets, range(options.loop), FORMATS))

        def measure(title: str, cells: int, out: str, work: str) -> None:
            memory = Memory()
            start = time.perf_counter()
            if work == "loop":
                loop(folder, few, memory)
            elif work == "cluster":
                with dask(folder, memory) as address:
                    start = time.perf_counter()
                    run([*batch, out, "--scheduler", address], folder, memory)
            else:
                run([*batch, out, "--workers", "2"], folder, memory)
            seconds, size = time.perf_counter() - start, size_of(folder / out)
            peak = memory.stop()
            rows.append(
                (
                    title,
                    str(cells),
                    f"{seconds:.0f} s",
                    f"{60 * cells / seconds:.1f}",
                    f"{size / 1e6:.0f} MB",
                    f"{peak / 1e6:.0f} MB",
                )
            )
            print(rows[-1], flush=True)

        measure("batch, 2 processes", every, "local", "local")
        measure("batch again, all finished", every, "local", "local")
        measure("batch, 2 Dask workers", every, "cluster", "cluster")
        measure("loop of `exporter run`", len(few), "loop", "loop")
        measured = costs(folder / "local")
    text = table(["", "cells", "time", "cells per minute", "written", "peak memory"], rows)
    print(text, measured)
    if options.write:
        write_between("scale.md", "batch", text)
        COSTS.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
