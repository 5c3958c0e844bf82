"""Measure the quality of good quantization, for the floors in `verification.floors.FLOORS`.

    python benchmarks/quantized_floors.py [FOLDER] [NETWORK ...]

Networks: the digits network of the demo, the float classifiers and the detector in FOLDER (default:
EXPORTER_ZOO, else ../shared/zoo), and seeded networks of `keras.applications` if they are named.
Each is quantized to every precision by `exporter`, calibrated on real inputs where there are some,
and compared with its float model on other real inputs and on synthetic ones. A row is the worst
output. The last table is the lowest value of each precision over all rows, next to its floor.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import exporter
from exporter.conversion.process import Child
from exporter.data.digits import split_digits
from exporter.data.options import DataOptions, parse_normalize
from exporter.data.read import read_samples
from exporter.data.samples import Samples, synthetic_samples
from exporter.errors import ExporterError
from exporter.formats import open_model
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.quantization import FLOAT, PRECISIONS, QuantizationSpec
from exporter.quantization.remote import quantize_in
from exporter.verification.verify import VerifyOptions, verify_pair

PROJECT = Path(__file__).parent.parent
METRICS = ("sqnr_db", "cosine", "top1")
ZOO = {  # file -> the range of its pictures
    "mobilenet_v1_025_224_float.onnx": "-1..1",
    "mobilenet_v1_025_224_float.tflite": "-1..1",
    "movie_review_float.tflite": "",
    "yolox_nano_3class.onnx": "0..255",
}
SYNTHETIC, CALIBRATION = 64, 100

Case = tuple[str, Model, Samples, Samples]  # name, model, calibration, other inputs


def digits(folder: Path) -> Iterator[Case]:
    """The demo's network in both formats."""
    training, held_out = split_digits()
    network = folder / "digits.keras"
    with Child() as child:
        child.request("train", "training", what="digits", path=str(network), seed=0)
    for kind in ("onnx", "tflite"):
        file = folder / f"digits.{kind}"
        exporter.convert(network, file)
        given, other = (
            Samples({"image": images[:, np.newaxis]}, "digits")
            for images in (training.images[:200], held_out.images)
        )
        yield file.name, open_model(file), given, other


def zoo(folder: Path) -> Iterator[Case]:
    """Real networks; those that read pictures are calibrated on one half of shifted pictures."""
    for name, values_range in ZOO.items():
        if not (folder / name).exists():
            continue
        model = open_model(folder / name)
        graph = model.graph()
        if not values_range:  # it reads words
            given = synthetic_samples(graph, CALIBRATION, seed=1)
            yield name, model, given, synthetic_samples(graph, SYNTHETIC, seed=2)
            continue
        options = DataOptions(parse_normalize(values_range), "crop")
        pictures = read_samples(folder / "images", graph, options=options)
        (read,) = pictures.values
        values = np.concatenate([shifted(np.asarray(x)) for x in pictures.values[read]])
        order = np.random.default_rng(0).permutation(len(values))
        half = len(values) // 2
        given, other = (
            replace(pictures, values={read: values[part]}) for part in (order[:half], order[half:])
        )
        yield name, model, given, other


def shifted(picture: Array) -> Array:
    """(8, batch, ...) the picture moved by up to 16 pixels, and mirrored."""
    axes = (-3, -2) if picture.shape[-1] in {1, 3} else (-2, -1)
    moved = [np.roll(picture, move, axes) for move in ((0, 0), (16, 0), (0, 16), (-16, -16))]
    return np.stack([*moved, *(np.flip(each, axes[1]) for each in moved)])


def applications(names: list[str], folder: Path) -> Iterator[Case]:
    """Networks of `keras.applications` with seeded weights, built by `tools/applications.py`."""
    sys.path.insert(0, str(PROJECT / "tools"))
    import applications as families  # noqa: PLC0415 - only if networks are named

    for member in families.MEMBERS:
        if member.name not in names:
            continue
        file = folder / f"{member.name}.keras"
        families.build(member).save(file)
        for kind in ("onnx", "tflite"):
            converted = folder / f"{member.name}.{kind}"
            exporter.convert(file, converted)
            model = open_model(converted)
            (read,) = model.graph().inputs
            given, other = (
                Samples({read: member.images(CALIBRATION, seed)[:, np.newaxis]}, "seeded")
                for seed in (1, 2)
            )
            yield converted.name, model, given, other


def measure(case: Case) -> Iterator[tuple[str, dict[str, float]]]:
    """Precision -> the worst value of each metric, of each set of inputs; prints a row for each."""
    name, model, calibration, others = case
    inputs = {"real": others, "synthetic": synthetic_samples(model.graph(), SYNTHETIC)}
    for precision in PRECISIONS:
        if precision == FLOAT:
            continue
        try:
            with Child() as child:
                made = quantize_in(child, model, QuantizationSpec(precision), calibration).model
        except ExporterError as error:
            print(f"{name:<34}{precision:<9} {error.message}", flush=True)
            continue
        for title, samples in inputs.items():
            options = VerifyOptions(samples, precision=precision)
            checks = verify_pair("quantize", model, made, (), options).checks
            worst = {
                metric: min(
                    (c.value for c in checks if c.metric == metric and c.value is not None),
                    default=float("nan"),
                )
                for metric in METRICS
            }
            shown = "".join(f"{worst[metric]:>10.4f}" for metric in METRICS)
            print(f"{name:<34}{precision:<9}{title:<10}{samples.count:>4}{shown}", flush=True)
            yield f"{precision}, {title}", worst


def main() -> None:
    named = [each for each in sys.argv[1:] if not Path(each).is_dir()]
    folders = [Path(each) for each in sys.argv[1:] if Path(each).is_dir()]
    usual = Path(os.environ.get("EXPORTER_ZOO", PROJECT.parent / "shared" / "zoo"))
    lowest: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cases = (
            *(digits(folder) if "--no-digits" not in sys.argv else ()),
            *zoo(folders[0] if folders else usual),
            *applications(named, folder),
        )
        for case in cases:
            for row, worst in measure(case):
                before = lowest.setdefault(row, dict(worst))
                for metric, value in worst.items():
                    before[metric] = float(np.nanmin([before[metric], value]))
    print("\nlowest")
    for row, worst in sorted(lowest.items()):
        print(f"{row:<24}" + "".join(f"{worst[metric]:>10.4f}" for metric in METRICS))


if __name__ == "__main__":
    main()
