"""Time a model against itself: the true ratio is 1, and every difference from it is noise.

The model is a small ONNX network. A verdict other than "no measurable change" is a false alarm.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save

from exporter.formats import open_model
from exporter.performance.latency import BenchOptions, bench_models

SEEDS = range(5)
WIDTHS = (64, 256, 256, 100)


def network() -> ModelProto:
    """x[batch, 64] -> three dense layers -> y[batch, 100]."""
    random = np.random.default_rng(0)
    nodes, constants, name = [], [], "x"
    for layer, (width, units) in enumerate(itertools.pairwise(WIDTHS)):
        kernel = random.normal(size=(width, units)).astype(np.float32)
        constants.append(numpy_helper.from_array(kernel, f"kernel{layer}"))
        nodes.append(helper.make_node("MatMul", [name, f"kernel{layer}"], [f"z{layer}"]))
        nodes.append(helper.make_node("Relu", [f"z{layer}"], [f"a{layer}"]))
        name = f"a{layer}"
    nodes.append(helper.make_node("Softmax", [name], ["y"]))
    tensors = [
        helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["batch", width])
        for tensor, width in (("x", WIDTHS[0]), ("y", WIDTHS[-1]))
    ]
    graph = helper.make_graph(nodes, "network", tensors[:1], tensors[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    inputs = np.random.default_rng(1).normal(size=(16, 1, WIDTHS[0])).astype(np.float32)
    feeds = [{"x": each} for each in inputs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        save(network(), path)
        model = open_model(path)
        print(f"{'seed':>4} {'p50 us':>8} {'ratio':>7} {'95 % interval':>17} {'noise':>7} {'s':>5}")
        for seed in SEEDS:
            start = time.perf_counter()
            result = bench_models(model, model, feeds, BenchOptions(seed=seed))
            seconds = time.perf_counter() - start
            low, high = result.speedup_ci95
            print(
                f"{seed:4} {result.p50_ms * 1e3:8.1f} {result.speedup:7.4f}"
                f" [{low:7.4f},{high:7.4f}] {result.noise_floor:7.4f}"
                f" {seconds:5.1f}  {result.verdict}"
            )


if __name__ == "__main__":
    main()
