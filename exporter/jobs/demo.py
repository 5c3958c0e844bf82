"""The demo: train a network on digits, choose some of them by data, quantize, trim, measure."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from exporter.conversion.process import Child
from exporter.data.digits import Digits, split_digits
from exporter.formats import KINDS, open_model
from exporter.formats.model import RunOptions
from exporter.jobs.job import CONVERTING_S, Job
from exporter.jobs.run import run_job
from exporter.jobs.select import UnitChoice, select_units
from exporter.jobs.select_options import SelectOptions
from exporter.jobs.trim import trim_file
from exporter.jobs.trim_options import TrimOptions
from exporter.output.scratch import scratch_folder
from exporter.planning.cut import CutOptions
from exporter.quantization import FLOAT
from exporter.records import Report

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SEEN = (36, 28, 3, 4, 3, 4, 3, 26, 4, 3)  # how often the device of the demo sees each digit
COVERAGE, MIN_F1 = 0.75, 0.9
PRECISIONS = ("fp32", "int8")
CALIBRATION = 200  # images of the training set
MIN_AGREEMENT = 0.98  # of a trimmed file with the file that it is made from
NETWORK = "digits.keras"
ALL_LABELS = "all-labels.txt"
SELECTION = "selection.json"


@dataclass(frozen=True, eq=False)
class Demo:
    """The results of the demo.

    Attributes:
        choice: the kept digits, chosen on pictures as a device sees them.
        trained_accuracy: of the uncut network on the held-out images.
        images: the number of held-out images of a kept digit.
        accuracy: (kind, precision) -> (float original, pruned), both on those images.
        trimmed: kind -> report of the trimmed file, and its accuracy on those images.
    """

    report: Report
    choice: UnitChoice
    trained_accuracy: float
    images: int
    accuracy: Mapping[tuple[str, str], tuple[float, float]]
    trimmed: Mapping[str, tuple[Report, float]]


def run_demo(out: Path, job: Job) -> Demo:
    """Train a network, then run the whole job on the held-out images into the folder `out`.

    Raises:
        OutputError, ConversionError: as `run.run_job`.
    """
    training, held_out = split_digits()
    with scratch_folder() as folder:
        network, data = folder / NETWORK, folder / "held-out digits.npz"
        np.savez(data, image=held_out.images)
        calibration = folder / "training digits.npz"
        np.savez(calibration, image=training.images[:CALIBRATION])
        score = _train(network, job)
        seen = _as_seen_by_device(held_out)
        pictures, chosen = folder / "pictures from the device.npz", folder / SELECTION
        np.savez(pictures, image=seen.images, labels=seen.labels)
        criteria = SelectOptions(min_f1=MIN_F1, coverage=COVERAGE, labels=LABELS)
        job.progress(f"choosing digits: an F1 of {MIN_F1}, then {COVERAGE:.0%} of what is seen")
        choice = select_units(network, replace(job, data=pictures), criteria)
        chosen.write_text(choice.to_json(), "utf-8")
        options = CutOptions(keep=f"@{chosen}", labels=LABELS)
        job = replace(
            job, data=data, calibration=calibration, precisions=PRECISIONS, keep_original=True
        )
        labels = folder / ALL_LABELS
        labels.write_text("".join(f"{label}\n" for label in LABELS), "utf-8")
        unlabeled = folder / "training images of kept digits.npz"
        np.savez(unlabeled, image=_of_digits(training, choice.kept).images)
        trimmed: dict[str, Report] = {}

        def complete(result: Path) -> None:
            for file in (network, chosen, labels):
                shutil.copyfile(file, result / file.name)
            trimmed.update(_trim(result, unlabeled, job))

        report = run_job(network, out, options, job, complete=complete)
    images = _of_digits(held_out, choice.kept)
    accuracy = {
        (each.kind, each.precision): (
            _accuracy(out / f"original.{each.kind}", images),
            _accuracy(out / each.path, images),
        )
        for each in report.artifacts
    }
    smaller = {
        kind: (each, _accuracy(out / f"trimmed.{kind}", images)) for kind, each in trimmed.items()
    }
    return Demo(report, choice, score, len(images.labels), accuracy, smaller)


def _train(network: Path, job: Job) -> float:
    """Train the network, and save it; its accuracy on the held-out images."""
    job.progress("training a small network on 1,437 images of digits")
    with Child(job.timeout_s or CONVERTING_S, job.memory_limit_bytes) as child:
        answer = child.request("train", "training", what="digits", path=str(network), seed=0)
    return float(answer["score"])


def _trim(folder: Path, data: Path, job: Job) -> dict[str, Report]:
    """Trim the pruned float files of a folder; kind -> report.

    Args:
        data: images of the kept digits. No labels are used.
    """
    job.progress(f"trimming: an agreement of {MIN_AGREEMENT:.0%} on images of the kept digits")
    seconds, most = job.timeout_s, job.memory_limit_bytes
    job = Job(data=data, bench=False, timeout_s=seconds, memory_limit_bytes=most)
    options = TrimOptions(min_agreement=MIN_AGREEMENT)
    return {
        kind: trim_file(folder / pruned, folder / f"trimmed.{kind}", options, None, job)
        for kind in KINDS
        if (folder / (pruned := f"pruned.{FLOAT}.{kind}")).exists()
    }


def _of_digits(digits: Digits, chosen: Sequence[int]) -> Digits:
    rows = np.isin(digits.labels, chosen)
    return Digits(digits.images[rows], digits.labels[rows])


def _as_seen_by_device(held_out: Digits) -> Digits:
    """Images that were not trained on, with the class distribution of a device that mostly sees
    three digits.
    """
    rows = [np.flatnonzero(held_out.labels == digit)[:count] for digit, count in enumerate(SEEN)]
    chosen = np.concatenate(rows)
    return Digits(held_out.images[chosen], held_out.labels[chosen])


def _accuracy(path: Path, digits: Digits) -> float:
    model = open_model(path)
    runner = model.runner(RunOptions())
    best = np.array(
        [runner({"image": image[np.newaxis]})["digit"].argmax() for image in digits.images]
    )
    digit = best if model.remap is None else model.remap.to_original(best)
    return float((digit == digits.labels).mean())
