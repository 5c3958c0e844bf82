"""Load a file into LiteRT and run it once, as a device would: by its path, no more held.

Started as a separate process by `exporter.performance.memory`, which documents the arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ai_edge_litert.interpreter import Interpreter

from exporter.formats.memory_probe import print_memory_growth
from exporter.graph import Array


def load_and_run(path: str, feeds: Mapping[str, Array], threads: int) -> object:
    """The interpreter, after one run; inputs are fed in the order in which the file has them."""
    interpreter = Interpreter(model_path=path, num_threads=threads)
    places = [int(detail["index"]) for detail in interpreter.get_input_details()]
    pairs = list(zip(places, feeds.values(), strict=True))
    for place, value in pairs:
        interpreter.resize_tensor_input(place, value.shape)
    interpreter.allocate_tensors()
    for place, value in pairs:
        interpreter.set_tensor(place, value)
    interpreter.invoke()
    return interpreter


if __name__ == "__main__":
    print_memory_growth(load_and_run, sys.argv)
