"""What each precision keeps and costs: digits in both formats, and MobileNet V1 in both orders.

    python benchmarks/quantizing.py [FOLDER]

Accuracy is that on 360 held-out digits, calibrated on 200 others. Times are ratios within one run.
With FOLDER (default: EXPORTER_ZOO, else ../shared/zoo) a float MobileNet is cut to 20 classes and
quantized with the pictures there, cut first and quantized first; without it that part is left out.
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
from exporter.data import Digits, split_digits
from exporter.errors import ExporterError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.quantization import FLOAT, PRECISIONS
from exporter.records import Report

KINDS = ("onnx", "tflite")
KEPT = 20
PROJECT = Path(__file__).parent.parent


def digits(folder: Path) -> None:
    """The whole network at each precision, on pictures that it never saw."""
    seen, held_out = split_digits()
    network, ranges, data = (folder / name for name in ("digits.keras", "seen.npz", "held.npz"))
    np.savez(ranges, image=seen.images[:200])
    np.savez(data, image=held_out.images)
    with Child() as child:
        child.request("train", "training", what="digits", path=str(network), seed=0)
    print(f"{'digits':<8}{'precision':<11}{'accuracy':>9}{'SQNR':>9}{'size':>9}{'speed-up':>10}")
    for kind in KINDS:
        whole = folder / f"digits.{kind}"
        exporter.convert(network, whole)
        uncut = {"precision": FLOAT, "sqnr_db": None, "bytes": whole.stat().st_size, "speedup": 1.0}
        line(kind, accuracy(whole, held_out), uncut)
        for precision in PRECISIONS:
            if precision != FLOAT:
                out = folder / f"digits.{precision}.{kind}"
                report = exporter.quantize(
                    whole, out, precision=precision, calibration=ranges, data=data
                )
                row = report.to_dict()["precisions"][0]
                line(kind, accuracy(out, held_out), row)


def line(kind: str, share: float, row: Mapping[str, Any]) -> None:
    noise = "-" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f} dB"
    costs = f"{row['bytes']:>9,}{row['speedup']:>9.2f}x"
    print(f"{kind:<8}{row['precision']:<11}{share:>9.1%}{noise:>9}{costs}", flush=True)


def accuracy(file: Path, pictures: Digits) -> float:
    model = open_model(file)
    runner = model.runner(RunOptions())
    (output,) = model.graph().outputs
    named = [int(runner({"image": p[np.newaxis]})[output].argmax()) for p in pictures.images]
    return float((np.array(named) == pictures.labels).mean())


def photographs(zoo: Path, folder: Path) -> None:
    """A float MobileNet cut to 20 classes: ranges of what is left, or those of the whole."""
    paths = sorted((zoo / "images").iterdir())
    pictures = [np.asarray(Image.open(p).convert("RGB").resize((224, 224))) for p in paths]
    data = folder / "pictures.npy"
    np.save(data, np.stack(pictures).astype(np.float32) / 127.5 - 1)
    for kind in KINDS:
        source = zoo / f"mobilenet_v1_025_224_float.{kind}"
        keep = common(source, np.load(data))
        for precision in ("dynamic", "int8", "int16x8"):
            for first in (False, True):
                out = folder / f"{kind}-{precision}-{first}"
                try:
                    report = exporter.run(
                        source,
                        out,
                        keep=keep,
                        precisions=[precision],
                        quantize_first=first,
                        data=data,
                        bench=False,
                    )
                except ExporterError as error:
                    print(f"{kind} {precision}: {error.message}")
                    continue
                tell(kind, "quantize, then cut" if first else "cut, then quantize", report)


def common(source: Path, pictures: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[int]:
    """The 20 classes that the network finds likeliest on the pictures."""
    model = open_model(source)
    runner, name = model.runner(RunOptions()), model.graph().inputs[0]
    (output,) = model.graph().outputs
    total = sum(np.asarray(runner({name: p[np.newaxis]})[output]).ravel() for p in pictures)
    return sorted(int(i) for i in np.argsort(total)[-KEPT:])


def tell(kind: str, order: str, report: Report) -> None:
    row = report.to_dict()["precisions"][0]
    told = f"{row['sqnr_db']:.1f} dB, top-1 {row['top1']:.1%}, {row['bytes']:,} bytes"
    print(f"{kind:<8}{row['precision']:<9}{order:<20}{told}", flush=True)


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EXPORTER_ZOO")
    zoo = Path(given) if given else PROJECT.parent / "shared" / "zoo"
    with tempfile.TemporaryDirectory() as folder:
        digits(Path(folder))
        if zoo.is_dir():
            print(f"\nMobileNet V1 0.25, {KEPT} of 1001 classes, calibrated on the zoo's pictures")
            photographs(zoo, Path(folder))


if __name__ == "__main__":
    main()
