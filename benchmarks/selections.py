"""Cut one network to many selections: with `exporter.prune` in a loop, with and without one body.

    PYTHONPATH=. python benchmarks/selections.py [--selections N] [--write]

The network has the layers and sizes of MobileNetV2 (14 MB, 1000 classes), with random weights; each
selection keeps ten classes. The three ways take turns, selection by selection, and each time is
divided by that of its anchor in the same turn: copying the file that was written, or creating a
file of the size of the variant. All write new files: replacing one waits for the disk. Processor
time does not count waiting for other programs. With --write, the table goes into
docs/performance.md.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import psutil
from document import table, write_between
from onnx import TensorProto, helper, numpy_helper

import exporter
from exporter.formats.onnx import OnnxModel

CLASSES, KEPT, SEED = 1000, 10, 1
# expansion, channels, repetitions of MobileNetV2's blocks
BLOCKS = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


def save_network(path: Path) -> None:
    """MobileNetV2 without strides, with its batch normalization folded."""
    random = np.random.default_rng(SEED)
    nodes, constants, value, channels = [], list[TensorProto](), "x", 3

    def layer(name: str, source: str, groups: int, shape: tuple[int, ...]) -> str:
        weights = random.standard_normal(shape, np.float32) * 0.05
        bias = np.zeros(shape[0], np.float32)
        constants.extend(
            numpy_helper.from_array(each, f"{name}.{part}")
            for part, each in (("w", weights), ("b", bias))
        )
        inputs = [source, f"{name}.w", f"{name}.b"]
        pads = [shape[2] // 2] * 4
        nodes.append(helper.make_node("Conv", inputs, [name], name, group=groups, pads=pads))
        nodes.append(helper.make_node("Clip", [name, "low", "high"], [f"{name}.a"], f"{name}.a"))
        return f"{name}.a"

    limits = (("low", 0.0), ("high", 6.0))
    constants += [
        numpy_helper.from_array(np.array(each, np.float32), name) for name, each in limits
    ]
    value, channels = layer("stem", value, 1, (32, 3, 3, 3)), 32
    for number, (expansion, width, repetitions) in enumerate(BLOCKS):
        for step in range(repetitions):
            inner, name = channels * expansion, f"block{number}.{step}"
            value = layer(f"{name}.expand", value, 1, (inner, channels, 1, 1))
            value = layer(f"{name}.depth", value, inner, (inner, 1, 3, 3))
            value, channels = layer(f"{name}.project", value, 1, (width, inner, 1, 1)), width
    value = layer("last", value, 1, (1280, channels, 1, 1))
    kernel = random.standard_normal((1280, CLASSES), np.float32) * 0.05
    constants.append(numpy_helper.from_array(kernel, "kernel"))
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "kernel"], ["z"], "head"),
        helper.make_node("Softmax", ["z"], ["y"], "softmax"),
    ]
    shapes = (("x", [1, 3, 32, 32]), ("y", [1, CLASSES]))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes)
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds: passed, and of the processor."""
    start, processor = time.perf_counter(), time.process_time()
    action()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - processor)


class Ways:
    """What is measured; the anchors need what the ways before them have written."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder, self.number = source, folder, 0

    def cut(self) -> OnnxModel:
        kept = np.random.default_rng(self.number).permutation(CLASSES)[:KEPT].tolist()
        model = exporter.prune(self.source, keep=sorted(kept), verify=False).model
        assert isinstance(model, OnnxModel)  # noqa: S101 - for type checkers
        return model

    def own(self) -> None:
        self.cut().write(self.folder / "own.onnx")

    def shared(self) -> None:
        self.cut().write_sharing(self.folder / f"{self.number}.onnx")

    def copy(self) -> None:
        shutil.copyfile(self.folder / "own.onnx", self.folder / "copy.onnx")

    def create(self) -> None:
        content = bytes((self.folder / f"{self.number}.onnx").stat().st_size)
        (self.folder / "created").write_bytes(content)


def measure(folder: Path, count: int) -> list[list[str]]:
    save_network(folder / "net.onnx")
    time.sleep(2.5)  # a file that was just written is read again each time
    ways = Ways(folder / "net.onnx", folder)
    actions = (ways.cut, ways.own, ways.copy, ways.shared, ways.create)
    times: dict[str, list[tuple[float, float]]] = {action.__name__: [] for action in actions}
    resident = [0, 0]
    for number in range(-10, count):
        ways.number = number % count
        for name in ("own.onnx", "copy.onnx", "created", f"{ways.number}.onnx"):
            (folder / name).unlink(missing_ok=True)
        found = {action.__name__: timed(action) for action in actions}
        if number >= 0:
            for name, each in found.items():
                times[name].append(each)
        resident[number >= 0] = psutil.Process().memory_info().rss
    anchors = {"cut": "", "own": "copy", "copy": "", "shared": "create", "create": ""}
    titles = {
        "cut": "cut only",
        "own": "cut and write all",
        "copy": "copy that file",
        "shared": "cut and write with one body",
        "create": "create a file of that size",
    }
    rows = []
    for name, anchor in anchors.items():
        passed, processor = (statistics.median(each) for each in zip(*times[name], strict=True))
        ratio = "-"
        if anchor:
            pairs = zip(times[name], times[anchor], strict=True)
            ratio = f"{statistics.median(one[0] / other[0] for one, other in pairs):.1f}"
        rows.append([titles[name], f"{passed:.1f} ms", f"{processor:.1f} ms", ratio])
    variants = sum((folder / f"{n}.onnx").stat().st_size for n in range(count))
    (body,) = folder.glob("body-*")
    print(
        f"{count} variants: {variants / 1e6:.1f} MB and a body of {body.stat().st_size / 1e6:.1f}"
    )
    print(f"one whole variant: {(folder / 'own.onnx').stat().st_size / 1e6:.1f} MB")
    print(f"growth of the process: {(resident[1] - resident[0]) / 1e6:.1f} MB")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--selections", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), given.selections)
    text = table(["", "time", "processor", "times its anchor below"], rows)
    print(text)
    if given.write:
        write_between("performance.md", "selections", text)


if __name__ == "__main__":
    main()
