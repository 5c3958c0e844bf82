"""Measure how long commands take as processes, compared with lower bounds.

    PYTHONPATH=. python benchmarks/startup.py [--rounds N] [--write]

The commands run in turn, so that a disturbance affects all of them. `prune` runs only if there are
model files in the folder EXPORTER_ZOO, or in `../shared/zoo` next to the project. Processor time
includes processes that a command starts. With --write, the table goes into docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from document import table, write_between

HELLO = """
import click

@click.command()
def hello():
    click.echo("hello")

hello()
"""
NETWORK = "mobilenet_v1_025_224_float"
EXPORTER = str(Path(sys.executable).with_name("exporter"))
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "a Click hello-world, --help": [sys.executable, "-c", HELLO, "--help"],
    "exporter --help": [EXPORTER, "--help"],
    "exporter run --help": [EXPORTER, "run", "--help"],
    "import numpy": [sys.executable, "-c", "import numpy"],
    "import numpy, onnxruntime": [sys.executable, "-c", "import numpy, onnxruntime"],
}


def cuts(folder: Path) -> dict[str, list[str]]:
    """`prune` of one network in both formats, with and without its check."""
    default = Path(__file__).parent.parent.parent / "shared" / "zoo"
    zoo = Path(os.environ.get("EXPORTER_ZOO", default))
    commands = {}
    for suffix in (".onnx", ".tflite"):
        source, target = zoo / f"{NETWORK}{suffix}", folder / f"small{suffix}"
        if source.exists():
            command = [EXPORTER, "prune", str(source), "-o", str(target), "--keep", "0-9"]
            command += ["--force", "--quiet"]
            commands[f"exporter prune {suffix}"] = command
            commands[f"exporter prune {suffix} --no-verify"] = [*command, "--no-verify"]
    return commands


def seconds(command: list[str]) -> tuple[float, float]:
    """Elapsed time, and processor time."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # modules are compiled once, as they are after an installation
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after, elapsed = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = COMMANDS | cuts(Path(folder))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for turn in range(options.rounds + 1):
            for name, command in commands.items():
                taken = seconds(command)
                if turn:  # the first round fills the caches
                    times[name].append(taken)
    elapsed, processor = (
        {name: statistics.median(row[i] for row in rows) for name, rows in times.items()}
        for i in range(2)
    )
    rows = [
        (
            name,
            f"{elapsed[name] * 1e3:.0f} ms",
            f"{processor[name] * 1e3:.0f} ms",
            f"{elapsed[name] / elapsed['import numpy']:.2f}",
            f"{processor[name] / processor['import numpy']:.2f}",
        )
        for name in times
    ]
    header = ["command", "elapsed", "processor", "elapsed / numpy", "processor / numpy"]
    text = table(header, rows)
    print(text)
    if options.write:
        write_between("performance.md", "startup", text)


if __name__ == "__main__":
    main()
