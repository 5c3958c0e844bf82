"""Cut a detector of 90 classes to pets, and draw what it finds on a photograph before and after.

    EXPORTER_ZOO=... python examples/detector.py pets.png

The folder that EXPORTER_ZOO names holds the detector and the photograph. Needs Pillow.
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
SHOWN = 0.4  # score from which on a box is drawn
COLORS = {"cat": "#d6336c", "dog": "#1c7ed6", "horse": "#2f9e44"}

Row = tuple[str, float, npt.NDArray[np.float32]]  # label, score, box


def find(model: Model, picture: Image.Image) -> list[Row]:
    """What the detector finds; boxes are ymin, xmin, ymax, xmax, in shares of the picture."""
    graph = model.graph()
    boxes, numbers, scores, _ = graph.outputs  # a row each; the last says how many
    labels = graph.labels[numbers]
    pixels = np.asarray(picture.resize((300, 300)))[None]
    found = model.runner(RunOptions())({graph.inputs[0]: pixels})
    rows = zip(*(found[name][0] for name in (numbers, scores, boxes)), strict=True)
    return [(labels[int(n)], float(score), box) for n, score, box in rows if score >= SHOWN]


def draw(picture: Image.Image, rows: list[Row], title: str) -> Image.Image:
    """The picture with a frame and a name for each row, under a title."""
    width, height = picture.size
    font = ImageFont.load_default(size=max(14, width // 32))
    band = max(28, width // 16)
    sheet = Image.new("RGB", (width, height + band), "white")
    sheet.paste(picture, (0, band))
    pen = ImageDraw.Draw(sheet)
    scale = height, width, height, width
    pen.text((band // 4, band // 4), title, fill="black", font=font)
    corners = [
        [float(np.clip(share, 0, 1)) * length for share, length in zip(box, scale, strict=True)]
        for _, _, box in rows
    ]
    for (label, _, _), (top, left, bottom, right) in zip(rows, corners, strict=True):
        frame = left, top + band, right, bottom + band
        pen.rectangle(frame, outline=COLORS.get(label, "#868e96"), width=3)
    for (label, score, _), (top, left, _, _) in zip(rows, corners, strict=True):
        place, name = (left + 4, top + band + 2), f"{label} {score:.2f}"
        pen.rectangle(pen.textbbox(place, name, font=font), fill=COLORS.get(label, "#868e96"))
        pen.text(place, name, fill="white", font=font)
    return sheet


def main(out: Path) -> None:
    """Cut, find, draw, and say what became of it."""
    whole = exporter.open_model(DETECTOR)
    small = exporter.prune(whole, keep=KEPT).model
    with Image.open(PHOTOGRAPH) as opened:
        picture = opened.convert("RGB")
    before, after = find(whole, picture), find(small, picture)
    for label, score, _ in after:
        print(f"{label} {score:.4f}")
    left = {(label, score, *box.tolist()) for label, score, box in after}
    same = all((n, s, *box.tolist()) in left for n, s, box in before if n in KEPT)
    print(f"boxes and scores of {', '.join(KEPT)}: {'the same' if same else 'CHANGED'}")
    sheets = [draw(picture, before, "90 classes"), draw(picture, after, ", ".join(KEPT))]
    both = Image.new("RGB", (sum(s.width for s in sheets) + 12, sheets[0].height), "white")
    both.paste(sheets[0], (0, 0))
    both.paste(sheets[1], (sheets[0].width + 12, 0))
    both.save(out)
    print(f"drawn: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "pets.png"))
