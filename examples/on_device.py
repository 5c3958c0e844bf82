"""What a device does with a pruned `.tflite` file: run it, and say the original's index and label.

It needs LiteRT and NumPy; exporter is not installed there. Arguments: the model, its remap, and a
`.npy` file with one input, the batch in front.
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
    old = head["new_to_old"]
    best = max((i for i in range(len(old)) if old[i] in head["kept"]), key=lambda i: scores[i])
    print(old[best], head["labels"][best] if head["labels"] else "")


if __name__ == "__main__":
    main(*sys.argv[1:])
