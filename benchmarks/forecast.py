"""Compare forecasts with the files that are written, and the bound of the latency with timings.

For every model and every precision that it can have: the size of the file that `exporter.inspect`
predicts, and of the one that `exporter.run` writes. They must not differ by more than 1 %. The run
calibrates on other samples than the forecast. For the float files also: the largest speedup by the
count of multiply-adds and by the measured share of the head, next to the measured speedup of the
pruned file; and the memory that the forecast estimates, next to the measured memory.

    python benchmarks/forecast.py                  # the zoo, and small networks made here
    python benchmarks/forecast.py --applications   # also one network of each family of Keras
    python benchmarks/forecast.py NAME...          # only models with these words in their names
    python benchmarks/forecast.py --sizes          # no timings

The folder of the zoo is the one that EXPORTER_ZOO names, else ../shared/zoo; without it, only the
networks that are made here are compared. Exits with 1 if a size is more than 1 % off.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import exporter
from exporter.conversion.digits_network import train
from exporter.errors import ExporterError
from exporter.forecast.forecast import Forecast
from exporter.forecast.verdict import LatencyBound
from exporter.formats import KINDS, kind_of, size_bytes
from exporter.quantization import PRECISIONS
from exporter.report import formatting

PROJECT = Path(__file__).parent.parent
ALLOWED = 0.01
SEED = 7
SAMPLES = 20  # to calibrate on
KEPT = "1,7,100-103,999"  # of applications
FAST = {"MobileNetV3Small", "EfficientNetB0"}  # of them, which are compared in any case
ZOO = {
    "mobilenet_v1_025_224_float.onnx": "1-10",
    "mobilenet_v1_025_224_float.tflite": "1-10",
    "mobilenet_v1_025_224_uint8_metadata.tflite": "1-10",
    "mobilenet_v2_100_224_qdq_logits.onnx": "1-10",
    "mobilenet_v2_100_224_uint8_logits.tflite": "1-10",
    "coco_ssd_mobilenet_v1_uint8_metadata.tflite": "person,car",
    "automl_flowers_uint8_metadata.tflite": "1-3",
    "movie_review_float.tflite": "1",
    "yolox_nano_3class.onnx": "0,2",
    "light_resnet50.onnx": "1-10",
    "light_squeezenet.onnx": "1-10",
    "fer2013_mini_xception.hdf5": "1-3",
}


@dataclass(frozen=True)
class SizeRow:
    """One file: its name, and its size in bytes."""

    model: str
    file: str
    predicted: int
    written: int

    @property
    def error(self) -> float:
        return self.predicted / self.written - 1


@dataclass(frozen=True)
class SpeedRow:
    """One float file.

    Attributes:
        counted, measured: the bound by the share of the multiply-adds, and of the time.
        speedup, interval: measured on the file, with its 95 % interval.
        estimate, memory: bytes, before and after the cut.
    """

    model: str
    counted: LatencyBound
    measured: LatencyBound
    speedup: float
    interval: tuple[float, float]
    estimate: tuple[int, int]
    memory: tuple[int, int]


# --- models -------------------------------------------------------------------------------------


def save_vocabulary(path: Path, units: int = 50_000, features: int = 256) -> None:
    """A language model's head: two products, the second with a unit for each token."""
    random = np.random.default_rng(SEED)
    weights = {
        "body": random.normal(size=(features, features)),
        "kernel": random.normal(size=(features, units)),
        "bias": random.normal(size=units),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "body"], ["h"], "body"),
            helper.make_node("Tanh", ["h"], ["t"], "tanh"),
            helper.make_node("Gemm", ["t", "kernel", "bias"], ["y"], "head"),
        ],
        "vocabulary",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", units])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")


def save_application(member: Any, path: Path) -> None:
    from applications import build  # noqa: PLC0415 - its folder is on the path then

    build(member).save(path)


def models(folder: Path, words: Sequence[str], *, applications: bool) -> Iterator[tuple[Path, str]]:
    """Each model with one of these words in its name, and the units to keep.

    Models that are not in the zoo are made when their turn comes.
    """
    zoo = Path(os.environ.get("EXPORTER_ZOO", PROJECT.parent / "shared" / "zoo"))
    sys.path.insert(0, str(PROJECT / "tools"))
    from applications import MEMBERS  # noqa: PLC0415 - its folder is on the path now

    made: dict[str, tuple[Callable[[Path], object], str]] = {
        "vocabulary.onnx": (save_vocabulary, "0-4999"),
        "digits.keras": (partial(train, seed=0), "0,1,7"),
    }
    for member in MEMBERS:
        if applications or member.name in FAST:
            made[f"{member.name}.keras"] = (partial(save_application, member), KEPT)
    for name in (*ZOO, *made):
        if words and not any(word in name for word in words):
            continue
        if name in made:
            make, keep = made[name]
            make(folder / name)
            yield folder / name, keep
        elif (zoo / name).exists():
            yield zoo / name, ZOO[name]


def in_files(path: Path, folder: Path) -> Iterator[Path]:
    """The model; one of a kind that is not quantized itself is converted first."""
    if KINDS[kind_of(path)].quantizable:
        yield path
        return
    for kind in ("onnx", "tflite"):
        out = folder / f"{path.stem}.{kind}"
        exporter.convert(path, out, verify=False)
        yield out


# --- comparisons --------------------------------------------------------------------------------


def possible_precisions(path: Path, keep: str) -> Iterator[str]:
    """The precisions that the libraries can give the model."""
    for name in PRECISIONS:
        try:
            exporter.inspect(path, keep=keep, precisions=name)
        except ExporterError as error:
            print(f"  not {name}: {error.message}", flush=True)
        else:
            yield name


def forecast(path: Path, **options: Any) -> Forecast:
    found = exporter.inspect(path, **options).forecast
    if found is None:
        raise SystemExit(f"no forecast of {path.name}")
    return found


def compare(path: Path, keep: str, out: Path, precisions: tuple[str, ...]) -> list[SizeRow]:
    found = forecast(path, keep=keep, precisions=precisions)
    calibration: Any = {"synthetic_calibration": True, "samples": SAMPLES, "seed": SEED}
    options = calibration if set(precisions) & {"int8", "int16x8"} else {}
    report = exporter.run(
        path, out, keep=keep, precisions=precisions, verify=False, bench=False, **options
    )
    written = {f"{a.kind} {a.precision}": size_bytes(out / a.path) for a in report.artifacts}
    return [
        SizeRow(path.name, file.name, file.counts.bytes or 0, written[file.name])
        for file in found.files
    ]


def time_cut(path: Path, keep: str, out: Path) -> SpeedRow:
    """The bounds, and the speedup and the memory of the float file."""
    (counted,) = forecast(path, keep=keep).files
    (measured,) = forecast(path, keep=keep, measure_share=True).files
    report = exporter.run(path, out, keep=keep, verify=False)
    (latency,), (memory,) = report.latency, report.memory
    return SpeedRow(
        path.name,
        counted.bound,
        measured.bound,
        latency.speedup,
        latency.speedup_ci95,
        (counted.original.memory.bytes, counted.counts.memory.bytes),
        (memory.original_bytes, memory.bytes),
    )


# --- output -------------------------------------------------------------------------------------


def print_sizes(rows: list[SizeRow]) -> None:
    print("\n| model | file | predicted | written | difference |\n|---|---|---:|---:|---:|")
    for row in rows:
        cells = f"{row.predicted:,} | {row.written:,} | {100 * row.error:+.3f} %"
        print(f"| {row.model} | {row.file} | {cells} |")
    worst = max(rows, key=lambda row: abs(row.error))
    exact = sum(row.predicted == row.written for row in rows)
    print(f"\n{exact} of {len(rows)} sizes are exact; the worst is {100 * worst.error:+.3f} % off")


def print_speeds(rows: list[SpeedRow]) -> None:
    columns = "bound (counted) | bound (measured) | speedup | memory estimate | memory measured"
    print(f"\n| model | {columns} |\n|---|---:|---:|---:|---:|---:|")
    for row in rows:
        low, high = row.interval
        interval = f"{row.speedup:.2f} [{low:.2f}, {high:.2f}]"
        bounds = " | ".join(bound_text(each) for each in (row.counted, row.measured))
        memory = f"{formatting.size(*row.estimate)} | {formatting.size(*row.memory)}"
        print(f"| {row.model} | {bounds} | {interval} | {memory} |")


def bound_text(bound: LatencyBound) -> str:
    return f"{'<=' if bound.is_strict else '~'} {formatting.factor(bound.speedup)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--applications", action="store_true", help="every family, not two")
    parser.add_argument("--sizes", action="store_true", help="no timings")
    given = parser.parse_args()
    sizes, speeds = list[SizeRow](), list[SpeedRow]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, keep in models(folder, given.names, applications=given.applications):
            print(path.name, flush=True)
            if not KINDS[kind_of(path)].quantizable:
                sizes += compare(path, keep, folder / f"{path.name} all", ("fp32", "fp16"))
            for file in in_files(path, folder):
                precisions = tuple(possible_precisions(file, keep))
                sizes += compare(file, keep, folder / f"{file.name} sizes", precisions)
                if not given.sizes:
                    speeds.append(time_cut(file, keep, folder / f"{file.name} speed"))
    print_sizes(sizes)
    print_speeds(speeds)
    return any(abs(row.error) > ALLOWED for row in sizes)


if __name__ == "__main__":
    sys.exit(main())
