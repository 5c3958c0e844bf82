"""Build the wheel and the sdist, and install each, without extras, in an environment of its own.

There the command cuts an .onnx file. This downloads the light dependencies (`make clean-install`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import hatchling.build

PROJECT = Path(__file__).parent.parent
MODEL = """
import numpy as np
from onnx import TensorProto as T, helper as h, numpy_helper
x, y = (h.make_tensor_value_info(name, T.FLOAT, [1, n]) for name, n in (("x", 4), ("y", 9)))
kernel = numpy_helper.from_array(np.arange(36, dtype=np.float32).reshape(4, 9), "kernel")
graph = h.make_graph([h.make_node("MatMul", ["x", "kernel"], ["y"])], "net", [x], [y], [kernel])
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
open("net.onnx", "wb").write(model.SerializeToString())
"""
ABSENT = (
    "import importlib.util as u; assert u.find_spec('tensorflow') is None, 'not the light install'"
)


def main() -> None:
    """Install both, and use them."""
    os.chdir(PROJECT)  # a build starts there
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for build in (hatchling.build.build_wheel, hatchling.build.build_sdist):
            _try(folder, folder / build(name))


def _try(folder: Path, package: Path) -> None:
    environment = folder / package.name.rpartition("unit_exporter")[2].replace(".", "_")
    program = environment / ("Scripts" if os.name == "nt" else "bin")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    for line in (
        [sys.executable, "-m", "venv", environment],
        [program / "pip", "install", "-qq", "--disable-pip-version-check", package],
        [program / "python", "-c", ABSENT],
        [program / "python", "-c", MODEL],
        [program / "exporter", "prune", "net.onnx", "-o", "small.onnx", "--keep", "1-3", "--force"],
    ):
        subprocess.run(list(map(str, line)), cwd=folder, env=clean, check=True)
    print(f"{package.name} installs and works without extras")


if __name__ == "__main__":
    main()
