"""Measure the quality and cost of each precision.

    python benchmarks/quantizing.py [FOLDER]

A digits network in both formats: accuracy on 360 held-out images, calibrated on 200 others. If
FOLDER exists (default: EXPORTER_ZOO, else ../shared/zoo), also a float MobileNet V1 from it, cut to
20 classes and quantized with the images there, in both orders.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import exporter
from exporter.conversion.process import Child
from exporter.data.digits import Digits, split_digits
from exporter.errors import ExporterError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.quantization import FLOAT, PRECISIONS
from exporter.records import Report

KINDS = ("onnx", "tflite")
KEPT = 20
PROJECT = Path(__file__).parent.parent


def digits(folder: Path) -> None:
    """Print a row for each precision of the uncut network."""
    training, held_out = split_digits()
    network, calibration, data = (
        folder / name for name in ("digits.keras", "training.npz", "held_out.npz")
    )
    np.savez(calibration, image=training.images[:200])
    np.savez(data, image=held_out.images)
    with Child() as child:
        child.request("train", "training", what="digits", path=str(network), seed=0)
    print(f"{'digits':<8}{'precision':<11}{'accuracy':>9}{'SQNR':>9}{'size':>9}{'speedup':>10}")
    for kind in KINDS:
        original = folder / f"digits.{kind}"
        exporter.convert(network, original)
        float_row = {
            "precision": FLOAT,
            "sqnr_db": None,
            "bytes": original.stat().st_size,
            "speedup": 1.0,
        }
        print_row(kind, accuracy(original, held_out), float_row)
        for precision in PRECISIONS:
            if precision != FLOAT:
                out = folder / f"digits.{precision}.{kind}"
                report = exporter.quantize(
                    original, out, precision=precision, calibration=calibration, data=data
                )
                row = report.to_dict()["precisions"][0]
                print_row(kind, accuracy(out, held_out), row)


def print_row(kind: str, share: float, row: Mapping[str, Any]) -> None:
    noise = "-" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f} dB"
    costs = f"{row['bytes']:>9,}{row['speedup']:>9.2f}x"
    print(f"{kind:<8}{row['precision']:<11}{share:>9.1%}{noise:>9}{costs}", flush=True)


def accuracy(file: Path, digits: Digits) -> float:
    model = open_model(file)
    runner = model.runner(RunOptions())
    (output,) = model.graph().outputs
    found = [int(runner({"image": p[np.newaxis]})[output].argmax()) for p in digits.images]
    return float((np.array(found) == digits.labels).mean())


def photographs(zoo: Path, folder: Path) -> None:
    """Print a row for each precision and order of a float MobileNet that is cut to 20 classes."""
    paths = sorted((zoo / "images").iterdir())
    images = [np.asarray(Image.open(p).convert("RGB").resize((224, 224))) for p in paths]
    data = folder / "images.npy"
    np.save(data, np.stack(images).astype(np.float32) / 127.5 - 1)
    for kind in KINDS:
        source = zoo / f"mobilenet_v1_025_224_float.{kind}"
        keep = likely_classes(source, np.load(data))
        for precision in ("dynamic", "int8", "int16x8"):
            for quantize_first in (False, True):
                out = folder / f"{kind}-{precision}-{quantize_first}"
                try:
                    report = exporter.run(
                        source,
                        out,
                        keep=keep,
                        precisions=[precision],
                        quantize_first=quantize_first,
                        data=data,
                        bench=False,
                    )
                except ExporterError as error:
                    print(f"{kind} {precision}: {error.message}")
                    continue
                order = "quantize, then cut" if quantize_first else "cut, then quantize"
                print_order(kind, order, report)


def likely_classes(
    source: Path, images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> list[int]:
    """The 20 classes with the highest scores on the images."""
    model = open_model(source)
    runner, name = model.runner(RunOptions()), model.graph().inputs[0]
    (output,) = model.graph().outputs
    total = sum(np.asarray(runner({name: p[np.newaxis]})[output]).ravel() for p in images)
    return sorted(int(i) for i in np.argsort(total)[-KEPT:])


def print_order(kind: str, order: str, report: Report) -> None:
    row = report.to_dict()["precisions"][0]
    text = f"{row['sqnr_db']:.1f} dB, top-1 {row['top1']:.1%}, {row['bytes']:,} bytes"
    print(f"{kind:<8}{row['precision']:<9}{order:<20}{text}", flush=True)


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EXPORTER_ZOO")
    zoo = Path(given) if given else PROJECT.parent / "shared" / "zoo"
    with tempfile.TemporaryDirectory() as folder:
        digits(Path(folder))
        if zoo.is_dir():
            print(
                f"\nMobileNet V1 0.25, {KEPT} of 1001 classes, calibrated on the images of the zoo"
            )
            photographs(zoo, Path(folder))


if __name__ == "__main__":
    main()
