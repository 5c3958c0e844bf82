"""The demo: a network trained on digits, cut to three of them, quantized, and what that costs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from exporter.conversion.process import Child
from exporter.data import Digits, split_digits
from exporter.formats import open_model
from exporter.formats.model import Model, RunOptions
from exporter.jobs.options import Job
from exporter.jobs.run import run_job
from exporter.planning.cut import CutOptions
from exporter.records import Report

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KEPT = ("zero", "one", "seven")
PRECISIONS = ("fp32", "int8")
CALIBRATION = 200  # pictures that the network was trained on
NETWORK = "digits.keras"
ALL_LABELS = "all-labels.txt"


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo shows.

    Attributes:
        trained_accuracy: of the whole network on the held-out pictures.
        pictures: how many held-out pictures show a kept digit.
        accuracy: (kind, precision) -> (float original, pruned), both on those pictures.
    """

    report: Report
    trained_accuracy: float
    pictures: int
    accuracy: Mapping[tuple[str, str], tuple[float, float]]


def run_demo(out: Path, job: Job) -> Demo:
    """Train, then do the whole job on the held-out pictures; everything ends up in `out`.

    Raises:
        OutputError, ConversionError: see `pipeline.run_job`.
    """
    seen, held_out = split_digits()
    with tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        network, data = Path(folder) / NETWORK, Path(folder) / "held-out digits.npz"
        np.savez(data, image=held_out.images)
        ranges = Path(folder) / "training digits.npz"
        np.savez(ranges, image=seen.images[:CALIBRATION])
        job.progress("training a small network on 1,437 pictures of digits")
        with Child(job.timeout_s, job.memory_limit_bytes) as child:
            answer = child.request("train", "training", what="digits", path=str(network), seed=0)
        choice = CutOptions(keep=",".join(KEPT), labels=LABELS)
        whole = replace(
            job, data=data, calibration=ranges, precisions=PRECISIONS, keep_original=True
        )
        report = run_job(network, out, choice, whole)
        shutil.copyfile(network, out / NETWORK)
        (out / ALL_LABELS).write_text("".join(f"{label}\n" for label in LABELS), "utf-8")
    shown = np.isin(held_out.labels, [LABELS.index(label) for label in KEPT])
    pictures = Digits(held_out.images[shown], held_out.labels[shown])
    accuracy = {
        (artifact.kind, artifact.precision): (
            _accuracy(open_model(out / f"original.{artifact.kind}"), pictures),
            _accuracy(open_model(out / artifact.path), pictures),
        )
        for artifact in report.artifacts
    }
    return Demo(report, float(answer["score"]), len(pictures.labels), accuracy)


def _accuracy(model: Model, pictures: Digits) -> float:
    runner = model.runner(RunOptions())
    best = np.array(
        [runner({"image": image[np.newaxis]})["digit"].argmax() for image in pictures.images]
    )
    named = best if model.remap is None else model.remap.to_original(best)
    return float((named == pictures.labels).mean())
