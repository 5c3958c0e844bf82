"""Cut TFLite files, next to the object API of their schema: unpack, edit, pack.

    PYTHONPATH=. python benchmarks/splice_tflite.py [--rounds N] [--calls N] [--write]

- MobileNet of the zoo, of which ten units are kept, and a dense head of 50 MB (16,384 units with
  768 features), of which 100 are kept. Both sides start from a file in memory and end with the
  bytes of the cut file. Opening checks the file and draws its graph. The object API does neither.
  The script names the edits for it, so two steps that only `exporter` does have separate columns:
  planning (it finds the head, and scans its weights for values that are not finite), and the
  SHA-256 of the source.
- A loop of `exporter.prune` over many selections, without the check: time and growth of memory.

Times are of the processor. With --write, the tables go into docs/performance.md.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from document import table, write_between

import exporter
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.formats.tflite.record import Record
from exporter.formats.tflite.schema import File
from exporter.planning.cut import CutOptions, plan_cut

UNITS, FEATURES = 16_384, 768
ZOO = Path(os.environ.get("EXPORTER_ZOO", Path(__file__).parents[2] / "shared" / "zoo"))
MOBILENET = ZOO / "mobilenet_v1_025_224_float.tflite"


def dense() -> bytes:
    """A fully connected head and a softmax."""
    from exporter.formats.tflite.layout import enumeration  # noqa: PLC0415 - of this network
    from exporter.formats.tflite.pack import pack  # noqa: PLC0415

    random, builtin = np.random.default_rng(0), enumeration("BuiltinOperator")
    kernel = random.standard_normal((UNITS, FEATURES), np.float32)
    shapes = {"x": (1, FEATURES), "kernel": kernel.shape, "z": (1, UNITS), "y": (1, UNITS)}
    tensors = [
        Record("Tensor", name=name, shape=np.array(shape, np.int32), buffer=int(name == "kernel"))
        for name, shape in shapes.items()
    ]
    ends = (("FULLY_CONNECTED", [0, 1], 2), ("SOFTMAX", [2], 3))
    options = Record("SoftmaxOptions", beta=1.0)
    operators: list[Any] = [
        Record(
            "Operator",
            opcodeIndex=i,
            inputs=np.array(given, np.int32),
            outputs=np.array([made], np.int32),
        )
        for i, (_, given, made) in enumerate(ends)
    ]
    operators[1].builtinOptionsType = enumeration("BuiltinOptions")["SoftmaxOptions"]
    operators[1].builtinOptions = options
    subgraph = Record(
        "SubGraph",
        tensors=tensors,
        operators=operators,
        inputs=np.array([0], np.int32),
        outputs=np.array([3], np.int32),
    )
    codes = [
        Record("OperatorCode", builtinCode=builtin[n], deprecatedBuiltinCode=builtin[n], version=1)
        for n, _, _ in ends
    ]
    buffers = [Record("Buffer"), Record("Buffer", data=kernel.reshape(-1).view(np.uint8))]
    model = Record("Model", version=3, operatorCodes=codes, subgraphs=[subgraph], buffers=buffers)
    return pack(File(model, b"", 0), "dense.tflite")


def cut_objects(content: bytes, kept: range) -> bytes:
    """Take the kept rows of every constant as long as the head, and narrow what is as wide."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    main = model.subgraphs[0]
    units = int(main.tensors[main.outputs[0]].shape[-1])
    for tensor in main.tensors:
        data = model.buffers[tensor.buffer].data
        axes = np.flatnonzero(np.asarray(tensor.shape) == units)
        if not len(axes):
            continue
        if data is not None and len(data):
            values = data.view(np.float32).reshape(tensor.shape)
            model.buffers[tensor.buffer].data = (
                np.take(values, kept, axes[0]).reshape(-1).view(np.uint8)
            )
        tensor.shape = np.where(np.asarray(tensor.shape) == units, len(kept), tensor.shape)
        tensor.shape = tensor.shape.astype(np.int32)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def milliseconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def compare(name: str, content: bytes, kept: range, rounds: int) -> list[str]:
    rows = []
    options = CutOptions(keep=kept)
    for _ in range(rounds):
        model = from_bytes(content, "original.tflite")
        model.sha256 = ""  # hashed in a column of its own
        plan = plan_cut(model, options).plan
        rows.append(
            (
                milliseconds(TfliteModel(content, "original.tflite").read),
                milliseconds(partial(plan_cut, model, options)),
                milliseconds(partial(model.apply, plan)),
                milliseconds(lambda: cut_objects(content, kept)),
                milliseconds(lambda: hashlib.sha256(content).hexdigest()),
            )
        )
    both = statistics.median((row[0] + row[2]) / row[3] for row in rows)
    ratios = (both, statistics.median(row[2] / row[3] for row in rows))
    times = [f"{statistics.median(column):.1f} ms" for column in zip(*rows, strict=True)]
    return [name, *times[:4], *(f"{ratio:.2f}" for ratio in ratios), times[4]]


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def loop(calls: int) -> list[str]:
    def prune(i: int) -> None:
        exporter.prune(str(MOBILENET), keep=[i, i + 1, 500 + i % 400], verify=False)

    for i in range(20):
        prune(i)
    before = resident()
    times = [milliseconds(partial(prune, i % 400)) for i in range(calls)]
    growth = (resident() - before) / 1e6
    return [f"{calls:,}", f"{statistics.median(times):.1f} ms", f"{growth:+.1f} MB"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = [
        compare("MobileNet, 1.9 MB", MOBILENET.read_bytes(), range(10), options.rounds),
        compare("a head of 50 MB", dense(), range(100), options.rounds),
    ]
    header = ["file", "open", "plan", "apply", "object API", "open and apply: ratio"]
    cuts = table([*header, "apply: ratio", "SHA-256"], rows)
    calls = table(["calls of prune", "median", "memory"], [loop(options.calls)])
    print(f"{cuts}\n\n{calls}")
    if options.write:
        write_between("performance.md", "splice tflite", f"{cuts}\n\n{calls}")


if __name__ == "__main__":
    main()
