"""The whole job on MobileNetV2 at 96 x 96, next to the script that one writes by hand.

    PYTHONPATH=. python benchmarks/whole_job.py [--rounds N] [--write]

From one `.keras` file with 1,000 classes to the original and a model of twelve classes, both as
ONNX and as TFLite, and a comparison of all files with Keras on 16 samples. The script by hand
builds the narrow model, copies the weights, and runs both converters twice. `exporter` also proves
the cut and draws the report; the last row measures latency and memory too. The weights are random.

Each way is a process of its own, in turn. A round takes one to two minutes. With --write, the table
goes into docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from document import table, write_between

KEPT = "3,14,15,92,65,35,89,79,323,846,264,338"
SAVE = """
import sys, keras
keras.utils.set_random_seed(1)
keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=1000).save(sys.argv[1])
"""
BY_HAND = """
import sys
from pathlib import Path
import keras, numpy as np, onnxruntime, tensorflow as tf, tf2onnx
source, out, units = sys.argv[1], Path(sys.argv[2]), [int(unit) for unit in sys.argv[3].split(",")]
out.mkdir()
original = keras.models.load_model(source, compile=False)
small = keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=len(units))
*body, kernel, bias = original.get_weights()
small.set_weights([*body, kernel[:, units], bias[units]])
samples = np.random.default_rng(0).random((16, 96, 96, 3), np.float32)
logits = np.log(original.predict(samples, verbose=0))[:, units]
shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
for name, model in (("original", original), ("pruned", small)):
    expected = original.predict(samples, verbose=0) if name == "original" else shares
    path = out / f"{name}.onnx"
    tf2onnx.convert.from_keras(model, opset=17, output_path=str(path))
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(None, {session.get_inputs()[0].name: samples})[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    path = out / f"{name}.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    network = tf.lite.Interpreter(str(path))
    network.allocate_tensors()
    for sample, row in zip(samples, expected):
        network.set_tensor(network.get_input_details()[0]["index"], sample[None])
        network.invoke()
        found = network.get_tensor(network.get_output_details()[0]["index"])[0]
        np.testing.assert_allclose(found, row, atol=1e-4)
"""


def ways(source: Path, out: Path) -> dict[str, list[str]]:
    command = [sys.executable, "-m", "exporter", "run", str(source), "-o", str(out)]
    command += ["--keep", KEPT, "--keep-order", "--keep-original", "--quiet"]
    return {
        "script by hand": [sys.executable, "-c", BY_HAND, str(source), str(out), KEPT],
        "exporter run --no-bench": [*command, "--no-bench"],
        "exporter run": command,
    }


def seconds(command: list[str]) -> tuple[float, float]:
    """Elapsed time and processor time of a process and its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    after, elapsed = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name, "net.keras"), Path(name, "out")
        seconds([sys.executable, "-c", SAVE, str(source)])
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways(source, out)}
        for _ in range(given.rounds):
            for way, command in ways(source, out).items():
                times[way].append(seconds(command))
                shutil.rmtree(out)
    by_hand = times["script by hand"]
    rows = []
    for way, taken in times.items():
        elapsed, processor = (statistics.median(column) for column in zip(*taken, strict=True))
        pairs = zip(taken, by_hand, strict=True)
        ratios = [(one[0] / hand[0], one[1] / hand[1]) for one, hand in pairs]
        shown = [f"{statistics.median(column):.2f}" for column in zip(*ratios, strict=True)]
        goal = "0.4" if "--no-bench" in way else ""
        rows.append([way, f"{elapsed:.1f} s", f"{processor:.1f} s", *shown, goal])
    text = table(["way", "elapsed", "processor", "ratio", "ratio of processor", "goal"], rows)
    print(text)
    if given.write:
        write_between("performance.md", "whole job", text)


if __name__ == "__main__":
    main()
