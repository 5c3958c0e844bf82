"""How long a person waits before anything happens: `exporter --help` beside what it cannot beat.

Each command runs as a process, in turn, so that a busy moment of the machine hits all of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
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
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "a Click hello-world, --help": [sys.executable, "-c", HELLO, "--help"],
    "import numpy, onnxruntime": [sys.executable, "-c", "import numpy, onnxruntime"],
    "exporter --help": [str(Path(sys.executable).with_name("exporter")), "--help"],
    "exporter run --help": [str(Path(sys.executable).with_name("exporter")), "run", "--help"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            taken = seconds(command)
            if turn:  # the first round fills the caches
                times[name].append(taken)
    hello = statistics.median(times["a Click hello-world, --help"])
    print(f"{'':30} {'p50 ms':>8} {'best ms':>8} {'x hello':>8}")
    for name, taken_s in times.items():
        p50 = statistics.median(taken_s)
        print(f"{name:30} {p50 * 1e3:8.1f} {min(taken_s) * 1e3:8.1f} {p50 / hello:8.2f}")


if __name__ == "__main__":
    main()
