"""Train the demo's network in a separate process, as the demo does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.builders.commands import environment

TRAIN = """
import sys
from pathlib import Path
from exporter.conversion.digits_network import train
print("accuracy", train(Path(sys.argv[1]), int(sys.argv[2])))
"""


def trained(path: Path, seed: int) -> float:
    """Train and write the network; returns the reported accuracy."""
    command = [sys.executable, "-c", TRAIN, str(path), str(seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    return float(done.stdout.split()[-1])
