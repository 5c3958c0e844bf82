"""Compare a cut of ONNX files with many nodes, units or outputs with onnx alone, in CPU time.

A cut opens, plans, applies and writes; onnx loads, infers the shapes and saves. Both run in this
process, in turns. `--write` writes the table into docs/performance.md.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from document import table, write_between
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporter.formats import open_model
from exporter.planning.cut import CutOptions, plan_cut

ROUNDS = 3
FEATURES = 16
KEPT = range(5)
HEADER = ("file", "open", "plan", "apply", "write", "onnx", "ratio")


def save(path: Path, nodes: list[NodeProto], outputs: list[str], units: int) -> None:
    random = np.random.default_rng(0)
    constants = {"ones": (FEATURES,), "kernel": (FEATURES, units), "bias": (units,)}
    values = {n: random.normal(size=shape).astype(np.float32) for n, shape in constants.items()}
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [info(name, TensorProto.FLOAT, ["batch", units]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def chain(length: int, first: str, operator: str, *inputs: str) -> list[NodeProto]:
    names = [first, *(f"{first}{i}" for i in range(length))]
    pairs = enumerate(itertools.pairwise(names))
    return [helper.make_node(operator, [a, *inputs], [b], f"{first}n{i}") for i, (a, b) in pairs]


def long(path: Path, length: int, units: int = 100) -> None:
    nodes = chain(length, "x", "Add", "ones") if length else []
    last = nodes[-1].output[0] if nodes else "x"
    nodes.append(helper.make_node("Gemm", [last, "kernel", "bias"], ["z"], "head"))
    nodes.append(helper.make_node("Softmax", ["z"], ["y"], "softmax"))
    save(path, nodes, ["y"], units)


def many_outputs(path: Path, count: int) -> None:
    nodes = [helper.make_node("Gemm", ["x", "kernel", "bias"], ["z"], "head")]
    nodes += chain(count, "z", "Relu")
    outputs = [f"y{i}" for i in range(count)]
    last = nodes[-1].output[0]
    nodes += [helper.make_node("Sigmoid", [last], [name], name) for name in outputs]
    save(path, nodes, outputs, 10)


def cut(path: Path, target: Path) -> list[float]:
    """The CPU seconds of each step."""
    marks = [time.process_time()]
    model = open_model(path)
    marks.append(time.process_time())
    planned = plan_cut(model, CutOptions(keep=KEPT))
    marks.append(time.process_time())
    pruned = model.apply(planned.plan)
    marks.append(time.process_time())
    pruned.write(target)
    marks.append(time.process_time())
    return [end - start for start, end in itertools.pairwise(marks)]


def by_onnx(path: Path, target: Path) -> float:
    start = time.process_time()
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), target)
    return time.process_time() - start


Make = Callable[[Path], None]


def rows(folder: Path) -> Mapping[str, Path]:
    files: Mapping[str, Make] = {
        "1,000 nodes": lambda path: long(path, 1_000),
        "20,000 nodes": lambda path: long(path, 20_000),
        "50,000 nodes": lambda path: long(path, 50_000),
        "1,000,000 units": lambda path: long(path, 0, 1_000_000),
        "300 outputs after 300 nodes": lambda path: many_outputs(path, 300),
    }
    paths = {name: folder / f"{i}.onnx" for i, name in enumerate(files)}
    for name, make in files.items():
        make(paths[name])
    return paths


def measure(path: Path, target: Path) -> tuple[str, ...]:
    times = [(*cut(path, target), by_onnx(path, target)) for _ in range(ROUNDS + 1)][1:]
    *steps, alone = (statistics.median(each) for each in zip(*times, strict=True))
    numbers = (f"{seconds * 1e3:,.0f} ms" for seconds in (*steps, alone))
    return (*numbers, f"{sum(steps) / alone:.1f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [(n, *measure(path, folder / "cut.onnx")) for n, path in rows(folder).items()]
    text = table(HEADER, made)
    print(text)
    if "--write" in sys.argv:
        write_between("performance.md", "scale", text)


if __name__ == "__main__":
    main()
