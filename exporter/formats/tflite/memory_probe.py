"""Load a file into LiteRT by its path, as a device does, and run it once.

Started as a separate process by `exporter.performance.memory`, which documents the arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ai_edge_litert.interpreter import Interpreter

from exporter.formats.memory_probe import print_memory_growth
from exporter.graph import Array


def load_and_run(path: str, feeds: Mapping[str, Array], threads: int) -> object:
    """The interpreter after one run; the feeds are in the order of the file's inputs."""
    interpreter = Interpreter(model_path=path, num_threads=threads)
    indices = [int(detail["index"]) for detail in interpreter.get_input_details()]
    pairs = list(zip(indices, feeds.values(), strict=True))
    for index, value in pairs:
        interpreter.resize_tensor_input(index, value.shape)
    interpreter.allocate_tensors()
    for index, value in pairs:
        interpreter.set_tensor(index, value)
    interpreter.invoke()
    return interpreter


if __name__ == "__main__":
    print_memory_growth(load_and_run, sys.argv)
