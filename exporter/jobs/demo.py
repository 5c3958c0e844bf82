"""The demo: train a network on digits, keep three of them, quantize, and measure the cost."""

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
CALIBRATION = 200  # images of the training set
NETWORK = "digits.keras"
ALL_LABELS = "all-labels.txt"


@dataclass(frozen=True, eq=False)
class Demo:
    """The results of the demo.

    Attributes:
        trained_accuracy: of the uncut network on the held-out images.
        images: the number of held-out images of a kept digit.
        accuracy: (kind, precision) -> (float original, pruned), both on those images.
    """

    report: Report
    trained_accuracy: float
    images: int
    accuracy: Mapping[tuple[str, str], tuple[float, float]]


def run_demo(out: Path, job: Job) -> Demo:
    """Train a network, then run the whole job on the held-out images into the folder `out`.

    Raises:
        OutputError, ConversionError: as `run.run_job`.
    """
    training, held_out = split_digits()
    with tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        network, data = Path(folder) / NETWORK, Path(folder) / "held-out digits.npz"
        np.savez(data, image=held_out.images)
        calibration = Path(folder) / "training digits.npz"
        np.savez(calibration, image=training.images[:CALIBRATION])
        job.progress("training a small network on 1,437 images of digits")
        with Child(job.timeout_s, job.memory_limit_bytes) as child:
            answer = child.request("train", "training", what="digits", path=str(network), seed=0)
        options = CutOptions(keep=",".join(KEPT), labels=LABELS)
        job = replace(
            job, data=data, calibration=calibration, precisions=PRECISIONS, keep_original=True
        )
        report = run_job(network, out, options, job)
        shutil.copyfile(network, out / NETWORK)
        (out / ALL_LABELS).write_text("".join(f"{label}\n" for label in LABELS), "utf-8")
    is_kept = np.isin(held_out.labels, [LABELS.index(label) for label in KEPT])
    images = Digits(held_out.images[is_kept], held_out.labels[is_kept])
    accuracy = {
        (artifact.kind, artifact.precision): (
            _accuracy(open_model(out / f"original.{artifact.kind}"), images),
            _accuracy(open_model(out / artifact.path), images),
        )
        for artifact in report.artifacts
    }
    return Demo(report, float(answer["score"]), len(images.labels), accuracy)


def _accuracy(model: Model, digits: Digits) -> float:
    runner = model.runner(RunOptions())
    best = np.array(
        [runner({"image": image[np.newaxis]})["digit"].argmax() for image in digits.images]
    )
    digit = best if model.remap is None else model.remap.to_original(best)
    return float((digit == digits.labels).mean())
