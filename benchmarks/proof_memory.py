"""Time and memory of the structural proof of a file with large external data.

    PYTHONPATH=. python benchmarks/proof_memory.py [MEGABYTES]

A network of one large product and a small head is cut, and the cut is proved. Memory is what the
process allocates itself; pages of mapped files can be dropped at any time and do not count.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.formats import open_model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.prove import prove

UNITS = 20


def external(name: str, shape: tuple[int, ...], offset: int) -> TensorProto:
    tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    length = 4 * int(np.prod(shape))
    for key, value in {"location": "weights", "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def network(width: int) -> ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "body"], ["h"], "product"),
        helper.make_node("Gemm", ["h", "kernel", "bias"], ["z"], "head"),
        helper.make_node("Softmax", ["z"], ["y"], "softmax", axis=1),
    ]
    constants = [
        external("body", (width, width), 0),
        external("kernel", (width, UNITS), 4 * width * width),
        numpy_helper.from_array(np.zeros(UNITS, np.float32), "bias"),
    ]
    ends = (("x", width), ("y", UNITS))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", w]) for n, w in ends)
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def allocated() -> float:
    """Megabytes that the process has allocated itself."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


def main() -> None:
    width = int((float(sys.argv[1] if len(sys.argv) > 1 else 500) * 1e6 / 4) ** 0.5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        block = np.random.default_rng(0).normal(size=width).astype(np.float32).tobytes()
        with (folder / "weights").open("wb") as file:
            for _ in range(width + UNITS):
                file.write(block)
        (folder / "net.onnx").write_bytes(network(width).SerializeToString())
        original = open_model(folder / "net.onnx")
        cut = original.apply(plan_cut(original, CutOptions(keep=[1, 2])).plan)
        cut.write(folder / "cut.onnx")
        file_of_cut = open_model(folder / "cut.onnx")
        samples, done = [allocated()], threading.Event()

        def watch() -> None:
            while not done.wait(0.005):
                samples.append(allocated())

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        proof = prove(original, file_of_cut, file_of_cut.remap)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        megabytes, more = 4e-6 * width * width, max(samples) - samples[0]
        print(f"{proof.result}: {megabytes:.0f} MB in {seconds:.1f} s, {more:.0f} MB allocated")


if __name__ == "__main__":
    main()
