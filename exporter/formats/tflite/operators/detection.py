"""Non-maximum suppression: builtin, and the post-process of detectors, a custom operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.tflite.operator_view import OperatorView, Translate
from exporter.graph.operations import DetectionSlots, NonMaxSuppression, Operation

_ROWS = DetectionSlots(boxes=0, classes=1, scores=2, number=3)
_CLASSES = 1  # slot
_COUNT = "num_classes"  # the only option that a cut changes


def _post_process(view: OperatorView) -> Operation:
    """box encodings [1, boxes, 4], classes [1, boxes, background + classes], anchors [boxes, 4]

    If there is one position more than classes, the runtime takes the first one as background.
    """
    options, width = view.custom or {}, view.length(_CLASSES, -1)
    count = _number(options, _COUNT)
    if view.rank(_CLASSES) != 3 or width is None or count is None:  # noqa: PLR2004
        raise UntranslatableError("its options, or the shape of its classes, cannot be read")
    if not 0 <= width - count <= 1 or len(view.outputs) < len(_ROWS):
        raise UntranslatableError(f"it states {count:g} classes and its input has {width}")
    return NonMaxSuppression(
        classes=_CLASSES,
        axis=2,
        background=int(width - count),
        count=int(count),
        attribute=_COUNT,
        ids=_ROWS.classes,
        rows=_ROWS,
        overlap=float(_number(options, "nms_iou_threshold") or 0.0),
        settings=tuple((n, repr(v)) for n, v in sorted(options.items()) if n != _COUNT),
    )


def _number(options: Mapping[str, Any], name: str) -> float | None:
    value = options.get(name)
    return value if isinstance(value, int | float) else None


def _suppression(_: OperatorView) -> Operation:
    """boxes [boxes, 4], scores [boxes]; returns the indices of the kept boxes of all classes."""
    return NonMaxSuppression(_CLASSES, axis=1)


ROWS: Mapping[str, Translate] = {
    "NON_MAX_SUPPRESSION_V4": _suppression,
    "NON_MAX_SUPPRESSION_V5": _suppression,
    "TFLite_Detection_PostProcess": _post_process,
}
