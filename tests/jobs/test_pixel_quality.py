"""Segmentation before and after: scikit-learn counts the pixels of scores that NumPy computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

from exporter.errors import UsageError
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.records import Quality
from tests.builders.onnx_models import node, numbers, proto

UNITS, HEIGHT, WIDTH, COUNT = 5, 6, 8, 4
KEPT = [0, 2, 3]
KERNEL = 2 * numbers(UNITS, 3)
IMAGES = numbers(COUNT, 3, HEIGHT, WIDTH)
SCORES = np.einsum("uc,nchw->nuhw", KERNEL.astype(np.float64), IMAGES.astype(np.float64))


def masks() -> Array:
    """The model's own units, some of them wrong and some of them unknown."""
    random = np.random.default_rng(2)
    units = SCORES.argmax(axis=1)
    wrong, unknown = random.random(units.shape) < 0.3, random.random(units.shape) < 0.1
    units = np.where(wrong, random.integers(UNITS, size=units.shape), units)
    return np.where(unknown, 255, units)


MASKS = masks()


def segmenter(*, last: bool = False, ranked: bool = False, batch: int = 1) -> OnnxModel:
    """A convolution of 1 x 1 pixel.

    Args:
        last: the units are on the last axis.
        ranked: it returns indices only.
    """
    nodes = [node("Conv", ["x", "kernel"], ["z"], "conv")]
    outputs: dict[str, tuple[int | str, ...]] = {"z": (batch, UNITS, HEIGHT, WIDTH)}
    if last:
        nodes.append(node("Transpose", ["z"], ["y"], "turn", perm=[0, 2, 3, 1]))
        outputs = {"y": (batch, HEIGHT, WIDTH, UNITS)}
    if ranked:
        nodes.append(node("ArgMax", ["z"], ["best"], "rank", axis=1, keepdims=0))
        outputs = {"best": (batch, HEIGHT, WIDTH)}
    kernel = KERNEL[:, :, None, None]
    made = proto(nodes, {"kernel": kernel}, x=(batch, 3, HEIGHT, WIDTH), outputs=outputs)
    if ranked:
        made.graph.output[0].type.tensor_type.elem_type = 7  # int64
    return from_proto(made, "net.onnx")


def written(folder: Path, truth: Array = MASKS) -> Job:
    np.savez(folder / "x.npz", x=IMAGES[:, None])
    np.savez(folder / "masks.npz", masks=truth.astype(np.uint8))
    return Job(data=folder / "x.npz", truth=folder / "masks.npz")


def value(rows: Sequence[Quality], measure: str, classes: str) -> Quality:
    (found,) = (each for each in rows if (each.measure, each.classes) == (measure, classes))
    return found


def expected(found: Array, among: Sequence[int]) -> tuple[float, float]:
    """Mean IoU, and the share of correct pixels, on the pixels of these units."""
    chosen = np.isin(MASKS, among)
    truth, read = MASKS[chosen], found[chosen]
    present = np.unique(truth)
    iou = jaccard_score(truth, read, labels=present, average="macro")
    return float(iou), float((truth == read).mean())


@pytest.mark.parametrize(
    "options", [{}, {"last": True}, {"ranked": True}], ids=["first", "last", "indices"]
)
def test_mean_iou_and_pixel_accuracy_before_and_after(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    cut = CutOptions(keep=KEPT, new_ids=options.get("ranked", False))
    found = prune_model(segmenter(**options), cut, written(tmp_path)).results.quality
    before = SCORES.argmax(axis=1)
    after = np.asarray(KEPT)[SCORES[:, KEPT].argmax(axis=1)]
    for i, measure in enumerate(("mean_iou", "pixel_accuracy")):
        kept, every = (value(found, measure, name) for name in ("kept", "all"))
        assert kept.task == "pixels"
        assert kept.samples == COUNT
        assert kept.original == pytest.approx(expected(before, KEPT)[i])
        assert kept.original_kept == pytest.approx(expected(after, KEPT)[i])
        assert kept.value == kept.original_kept
        assert kept.drop == 0
        assert every.original == pytest.approx(expected(before, range(UNITS))[i])
        assert every.value == pytest.approx(expected(after, range(UNITS))[i])
        assert value(found, measure, "removed").value == 0


def test_members_of_a_group_are_one_class(tmp_path: Path) -> None:
    cut = CutOptions(keep=[0, 2, 3], merge={"pair": [2, 3]})
    found = prune_model(segmenter(), cut, written(tmp_path)).results.quality
    assert value(found, "mean_iou", "kept").drop == pytest.approx(0, abs=1e-12)


def test_gates(tmp_path: Path) -> None:
    job = Job(**{**vars(written(tmp_path)), "min_accuracy": 0.99, "max_drop": 0.0})
    checks = prune_model(segmenter(), CutOptions(keep=KEPT), job).results.checks
    found = {check.metric: check.passed for check in checks if check.stage == "quality"}
    assert found == {"mean_iou": False, "drop": True}


def test_masks_that_no_pixel_of_a_kept_class_has(tmp_path: Path) -> None:
    job = written(tmp_path, np.full_like(MASKS, 4))
    found = prune_model(segmenter(), CutOptions(keep=KEPT), job).results.quality
    assert value(found, "mean_iou", "kept").samples == 0
    assert value(found, "mean_iou", "kept").value is None


def test_a_folder_of_pictures_and_masks_that_are_resized(tmp_path: Path) -> None:
    """Masks have twice the size of the input, with equal blocks of 2 x 2 pixels."""
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    for i in range(COUNT):
        Image.fromarray(pixels[i]).save(tmp_path / "pictures" / f"{i}.png")
        mask = Image.fromarray(np.kron(MASKS[i], np.ones((2, 2))).astype(np.uint8))
        mask.save(tmp_path / "masks" / f"{i}.png")
    job = Job(data=tmp_path / "pictures", truth=tmp_path / "masks", normalize="0..255")
    found = prune_model(segmenter(), CutOptions(keep=KEPT), job).results.quality
    after = np.asarray(KEPT)[(pixels @ KERNEL.T.astype(np.float64))[..., KEPT].argmax(axis=-1)]
    iou, share = expected(after, KEPT)
    assert value(found, "mean_iou", "kept").value == pytest.approx(iou)
    assert value(found, "pixel_accuracy", "kept").value == pytest.approx(share)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        pytest.param(np.full_like(MASKS, 9), "mask 0 .* has the value 9, .* 5 units", id="unit"),
        pytest.param(MASKS[:2], r"uint8 of shape \[2, 6, 8\], for 4 samples", id="count"),
        pytest.param(MASKS[0], r"uint8 of shape \[6, 8\], for 4 samples", id="shape"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path: Path, truth: Array, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prune_model(segmenter(), CutOptions(keep=KEPT), written(tmp_path, truth))


def test_other_refusals(tmp_path: Path) -> None:
    job = written(tmp_path)
    np.savez(tmp_path / "other.npz", labels=MASKS)
    with pytest.raises(UsageError, match=r"other.npz has no masks"):
        prune_model(
            segmenter(),
            CutOptions(keep=KEPT),
            Job(data=job.data, truth=tmp_path / "other.npz"),
        )
    with pytest.raises(UsageError, match="belong to images, and the samples are in one file"):
        prune_model(segmenter(), CutOptions(keep=KEPT), Job(data=job.data, truth=tmp_path))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        pytest.param(None, "there is no mask", id="missing"),
        pytest.param(b"text", "cannot be decoded", id="damaged"),
        pytest.param(Image.new("RGB", (8, 6)), "is an image of colors", id="colors"),
    ],
)
def test_images_that_are_no_masks_are_refused(
    tmp_path: Path, mask: Image.Image | bytes | None, message: str
) -> None:
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "pictures" / "a.png")
    if isinstance(mask, bytes):
        (tmp_path / "masks" / "a.png").write_bytes(mask)
    elif mask is not None:
        mask.save(tmp_path / "masks" / "a.png")
    job = Job(data=tmp_path / "pictures", truth=tmp_path / "masks", normalize="0..255")
    with pytest.raises(UsageError, match=message):
        prune_model(segmenter(), CutOptions(keep=KEPT), job)
