"""Mean average precision as the COCO benchmark defines it: files, loadRes and summarize."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from exporter.graph import Array

WIDTH, HEIGHT = 100, 50  # of every picture, in pixels
Found = tuple[int, Array, int, float]  # sample, corners as shares, category, score


def records(count: int, boxes: Sequence[Found], categories: Sequence[str]) -> dict[str, Any]:
    """A file of true boxes; the ids of the categories are 10, 20, ..."""
    return {
        "images": [
            {"id": 7 + i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT}
            for i in range(count)
        ],
        "categories": [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(categories)],
        "annotations": [
            {
                "id": i,
                "image_id": 7 + sample,
                "category_id": 10 * (category + 1),
                "bbox": in_pixels(corners),
                "area": float(np.prod(in_pixels(corners)[2:])),
                "iscrowd": 0,
            }
            for i, (sample, corners, category, _) in enumerate(boxes, 1)
        ],
    }


def in_pixels(corners: Array) -> list[float]:
    """Left, top, width, height."""
    left, top, right, bottom = (float(value) for value in corners)
    return [left * WIDTH, top * HEIGHT, (right - left) * WIDTH, (bottom - top) * HEIGHT]


def reference(
    folder: Path, truth: dict[str, Any], found: Sequence[Found], categories: Sequence[int]
) -> tuple[float, float]:
    """AP at IoU 0.50:0.95, and at 0.50, of some of the categories."""
    (folder / "reference.json").write_text(json.dumps(truth))
    index = COCO(str(folder / "reference.json"))
    results = [
        {
            "image_id": 7 + sample,
            "category_id": 10 * (category + 1),
            "bbox": in_pixels(corners),
            "score": score,
        }
        for sample, corners, category, score in found
    ]
    evaluated = COCOeval(index, index.loadRes(results), "bbox")
    evaluated.params.catIds = [10 * (each + 1) for each in categories]
    evaluated.evaluate()
    evaluated.accumulate()
    evaluated.summarize()
    return float(evaluated.stats[0]), float(evaluated.stats[1])
