"""What drops boxes that overlap a better one."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.onnx.call import Call, Row
from exporter.graph.operations import NonMaxSuppression, Opaque, Operation

_CLASSES = 1  # slot
_COLUMN = 1  # of (batch, class, box)


def _suppression(call: Call) -> Operation:
    """boxes [batch, boxes, 4], classes [batch, classes, boxes]; gives (batch, class, box) a row"""
    shape = call.shape(_CLASSES)
    if shape is None:
        return Opaque("the rank of its input is not known")
    return NonMaxSuppression(_CLASSES, axis=1, column=_COLUMN)


ROWS: Mapping[str, Row] = {"NonMaxSuppression": _suppression}
