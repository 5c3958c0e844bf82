"""The boxes that a report draws are those that the runtime returns for that sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.data.options import DataOptions
from exporter.data.read import read_samples
from exporter.data.samples import Samples
from exporter.formats import open_model
from exporter.formats.model import Model, RunOptions
from exporter.jobs import box_pictures as module
from exporter.jobs.box_pictures import box_pictures
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.remap import HeadRemap
from tests.builders import onnx_models as onnx
from tests.builders.ssd_models import CHANNELS, CLASSES, OPTIONS, ROWS, SIZES, ssd

KEPT = (1, 4)
COUNT = 6
FEW = {**OPTIONS, "max_detections": 30, "detections_per_class": 30}
VALUES = np.random.default_rng(8).normal(size=(COUNT, SIZES[0], SIZES[0], CHANNELS))
JOB = Job(verify=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    folder = tmp_path_factory.mktemp("detector")
    (folder / "ssd.tflite").write_bytes(ssd(background=1, options=FEW).content(*ROWS))
    model = open_model(folder / "ssd.tflite")
    return model, prune_model(model, CutOptions(keep=KEPT), Job(verify=False)).model


def tables(model: Model) -> tuple[HeadRemap, ...]:
    assert model.remap is not None
    return model.remap.heads


def samples(folder: Path, model: Model) -> Samples:
    np.savez(folder / "x.npz", x=VALUES.astype(np.float32))
    return read_samples(folder / "x.npz", model.graph(), None, DataOptions())


def rows(model: Model, sample: int, units: tuple[int, ...]) -> list[tuple[int, float]]:
    """(unit, score) of the rows with a score that is drawn, highest first."""
    outputs = model.runner(RunOptions())({"x": VALUES[[sample]].astype(np.float32)})
    _, classes, scores, count = (np.ravel(outputs[name]) for name in ROWS)
    found = [(units[int(classes[i])], float(scores[i])) for i in range(int(count[0]))]
    found = [row for row in found if row[1] >= module.LOWEST_SCORE]
    return sorted(found, key=lambda row: -row[1])[:12]


def test_the_boxes_of_both_models(tmp_path: Path, models: tuple[Model, Model]) -> None:
    original, cut = models
    names = [f"label {unit}" for unit in range(CLASSES)]
    found = box_pictures(JOB, original, cut, samples(tmp_path, original), tables(cut), names)
    (drawn,) = found.box_pictures
    before = rows(original, drawn.sample, tuple(range(CLASSES)))
    after = rows(cut, drawn.sample, KEPT)
    assert before
    for boxes, expected in ((drawn.before, before), (drawn.after, after)):
        assert [(box.original_unit, box.score) for box in boxes] == expected
        assert all(box.label == f"label {box.original_unit}" for box in boxes)
        assert all(box.is_kept == (box.original_unit in KEPT) for box in boxes)
    assert any(box.is_kept for box in drawn.before)
    assert (drawn.width, drawn.height) == (SIZES[0], SIZES[0])
    assert drawn.sample < 4


@pytest.mark.parametrize(
    "why", ["synthetic", "not verified", "no pictures", "no remap", "no likely box"]
)
def test_nothing_is_drawn(
    tmp_path: Path, models: tuple[Model, Model], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, cut = models
    values, heads, job = samples(tmp_path, original), tables(cut), JOB
    if why == "synthetic":
        values = Samples(values.values, "synthetic, seed 0", synthetic=True)
    elif why == "no likely box":
        monkeypatch.setattr(module, "LOWEST_SCORE", 2.0)
    elif why == "no remap":
        heads = ()
    else:
        job = Job(verify=why != "not verified", plots=why != "no pictures")
    assert box_pictures(job, original, cut, values, heads).box_pictures == ()


def test_nothing_is_drawn_of_a_classifier(tmp_path: Path) -> None:
    onnx.classifier().write(tmp_path / "net.onnx")
    model = open_model(tmp_path / "net.onnx")
    cut = prune_model(model, CutOptions(keep=(0, 2)), Job(verify=False)).model
    np.save(tmp_path / "x.npy", onnx.numbers(4, 6, seed=1))
    values = read_samples(tmp_path / "x.npy", model.graph(), None, DataOptions())
    assert box_pictures(JOB, model, cut, values, tables(cut)).box_pictures == ()
