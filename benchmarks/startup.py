"""Measure how long commands take as processes, compared with lower bounds.

The commands run in turn, so that a disturbance affects all of them. `prune` runs only if there are
model files in the folder EXPORTER_ZOO, or in `../shared/zoo` next to the project.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
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


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        commands = COMMANDS | cuts(Path(folder))
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(ROUNDS + 1):
            for name, command in commands.items():
                time_s = seconds(command)
                if turn:  # the first round fills the caches
                    times[name].append(time_s)
    hello = statistics.median(times["a Click hello-world, --help"])
    runtime = statistics.median(times["import numpy, onnxruntime"])
    print(f"{'':36} {'p50 ms':>8} {'best ms':>8} {'x hello':>8} {'x import':>9}")
    for name, times_s in times.items():
        p50, best = statistics.median(times_s), min(times_s)
        ratios = f"{p50 / hello:8.2f} {p50 / runtime:9.2f}"
        print(f"{name:36} {p50 * 1e3:8.1f} {best * 1e3:8.1f} {ratios}")


if __name__ == "__main__":
    main()
