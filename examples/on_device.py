"""Run a pruned `.tflite` file on a device, and print the original index and the label.

Needs LiteRT and NumPy, but not exporter. Arguments: the model, its remap, and a `.npy` file with
one input (1, ...).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(model: str, remap: str, values: str) -> None:
    network = Interpreter(model)
    network.allocate_tensors()
    network.set_tensor(network.get_input_details()[0]["index"], np.load(values))
    network.invoke()
    scores = network.get_tensor(network.get_output_details()[0]["index"])[0]

    head = json.loads(Path(remap).read_text("utf-8"))["heads"][0]
    original = head["new_to_old"]
    kept = [i for i, index in enumerate(original) if index in head["kept"]]
    best = max(kept, key=lambda i: scores[i])
    print(original[best], head["labels"][best] if head["labels"] else "")


if __name__ == "__main__":
    main(*sys.argv[1:])
