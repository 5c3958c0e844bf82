"""Cut a detector of 90 classes to three, and draw its detections before and after the cut.

    EXPORTER_ZOO=... python examples/detector.py pets.png

EXPORTER_ZOO is the folder with the detector and the photograph. Needs Pillow.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

import exporter
from exporter.formats.model import Model, RunOptions

ZOO = Path(os.environ.get("EXPORTER_ZOO", Path(__file__).parents[2] / "shared" / "zoo"))
DETECTOR = ZOO / "coco_ssd_mobilenet_v1_uint8_metadata.tflite"
PHOTOGRAPH = ZOO / "images" / "cats_and_dogs.jpg"
KEPT = ["cat", "dog", "horse"]
MIN_SCORE = 0.4  # boxes with lower scores are not drawn
COLORS = {"cat": "#d6336c", "dog": "#1c7ed6", "horse": "#2f9e44"}

Detection = tuple[str, float, npt.NDArray[np.float32]]  # label, score, box


def detect(model: Model, image: Image.Image) -> list[Detection]:
    """Run the detector; boxes are ymin, xmin, ymax, xmax, from 0 to 1."""
    graph = model.graph()
    boxes, classes, scores, _ = graph.outputs  # the last is the number of detections
    labels = graph.labels[classes]
    pixels = np.asarray(image.resize((300, 300)))[None]
    outputs = model.runner(RunOptions())({graph.inputs[0]: pixels})
    rows = zip(*(outputs[name][0] for name in (classes, scores, boxes)), strict=True)
    return [
        (labels[int(index)], float(score), box) for index, score, box in rows if score >= MIN_SCORE
    ]


def draw(image: Image.Image, detections: list[Detection], title: str) -> Image.Image:
    """The image with a title, and a frame and a label for each detection."""
    width, height = image.size
    font = ImageFont.load_default(size=max(14, width // 32))
    band = max(28, width // 16)
    sheet = Image.new("RGB", (width, height + band), "white")
    sheet.paste(image, (0, band))
    pen = ImageDraw.Draw(sheet)
    scale = height, width, height, width
    pen.text((band // 4, band // 4), title, fill="black", font=font)
    corners = [
        [float(np.clip(share, 0, 1)) * length for share, length in zip(box, scale, strict=True)]
        for _, _, box in detections
    ]
    for (label, _, _), (top, left, bottom, right) in zip(detections, corners, strict=True):
        frame = left, top + band, right, bottom + band
        pen.rectangle(frame, outline=COLORS.get(label, "#868e96"), width=3)
    for (label, score, _), (top, left, _, _) in zip(detections, corners, strict=True):
        position, text = (left + 4, top + band + 2), f"{label} {score:.2f}"
        pen.rectangle(pen.textbbox(position, text, font=font), fill=COLORS.get(label, "#868e96"))
        pen.text(position, text, fill="white", font=font)
    return sheet


def main(out: Path) -> None:
    """Cut the detector, run both, compare the detections, and draw them."""
    original = exporter.open_model(DETECTOR)
    pruned = exporter.prune(original, keep=KEPT).model
    with Image.open(PHOTOGRAPH) as opened:
        image = opened.convert("RGB")
    before, after = detect(original, image), detect(pruned, image)
    for label, score, _ in after:
        print(f"{label} {score:.4f}")
    found = {(label, score, *box.tolist()) for label, score, box in after}
    same = all((n, s, *box.tolist()) in found for n, s, box in before if n in KEPT)
    print(f"boxes and scores of {', '.join(KEPT)}: {'equal' if same else 'CHANGED'}")
    sheets = [draw(image, before, "90 classes"), draw(image, after, ", ".join(KEPT))]
    both = Image.new("RGB", (sum(s.width for s in sheets) + 12, sheets[0].height), "white")
    both.paste(sheets[0], (0, 0))
    both.paste(sheets[1], (sheets[0].width + 12, 0))
    both.save(out)
    print(f"drawn: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "pets.png"))
