"""MediaPipe finds the same cats and dogs with a pruned detector: run by `make clients`.

See `mediapipe_client.py`; no test is skipped here either.
"""

from __future__ import annotations

import io
import os
import subprocess
import zipfile
from pathlib import Path

import mediapipe
import pytest
from mediapipe.tasks.python import BaseOptions, vision

PROJECT = Path(__file__).parents[2]
ZOO = Path(os.environ.get("EXPORTER_ZOO", PROJECT.parent / "shared" / "zoo"))
EXPORTER = os.environ["EXPORTER"]  # the command
MODEL = ZOO / "coco_ssd_mobilenet_v1_uint8_metadata.tflite"
PETS = ZOO / "images" / "cats_and_dogs.jpg"
KEPT = {"cat", "dog", "horse"}

Detection = tuple[str, float, int, int, int, int]


def detections(model: Path) -> list[Detection]:
    """Label, score and box of each detection, highest score first."""
    options = vision.ObjectDetectorOptions(
        base_options=BaseOptions(model_asset_path=str(model)), score_threshold=0.4
    )
    with vision.ObjectDetector.create_from_options(options) as detector:
        result = detector.detect(mediapipe.Image.create_from_file(str(PETS)))
    rows: list[Detection] = []
    for each in result.detections:
        name, box = each.categories[0], each.bounding_box
        corner = box.origin_x, box.origin_y, box.width, box.height
        rows.append((name.category_name, name.score, *corner))
    return rows


def without_metadata(model: Path, target: Path) -> None:
    """The model without the name of its metadata, and without the archive with its labels."""
    content = model.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = min(entry.header_offset for entry in archive.infolist())
    target.write_bytes(content[:start].replace(b"TFLITE_METADATA", b"OTHER__METADATA"))


def test_a_detector_without_metadata_gets_it(tmp_path: Path) -> None:
    bare, small = tmp_path / "bare.tflite", tmp_path / "small.tflite"
    without_metadata(MODEL, bare)
    with pytest.raises(ValueError, match="require TFLite Model Metadata"):
        detections(bare)
    labels = str(ZOO / "labels" / "coco_90.txt")
    kept = ["--keep", ",".join(sorted(KEPT)), "--labels", labels]
    done = subprocess.run(
        [EXPORTER, "prune", str(bare), "-o", str(small), *kept],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before = [row for row in detections(MODEL) if row[0] in KEPT]
    assert detections(small)[: len(before)] == before


@pytest.mark.parametrize("options", [[], ["--restore-ids"]], ids=["new ids", "original ids"])
def test_cats_and_dogs_are_still_found(tmp_path: Path, options: list[str]) -> None:
    small = tmp_path / "small.tflite"
    command = [EXPORTER, "prune", str(MODEL), "-o", str(small), "--keep", ",".join(sorted(KEPT))]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    before = [row for row in detections(MODEL) if row[0] in KEPT]
    assert {row[0] for row in before} == {"cat", "dog"}
    assert detections(small)[: len(before)] == before
    assert small.stat().st_size < 0.8 * MODEL.stat().st_size
