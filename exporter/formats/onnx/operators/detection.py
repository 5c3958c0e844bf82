"""Operators that drop boxes which overlap a better one."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.node_view import NodeView, Translate
from exporter.graph.operations import NonMaxSuppression, Operation

_SCORES, _SCORES_RANK = 1, 3  # slot, number of axes
_CLASS_COLUMN = 1  # an output row is (batch, class, box)


def _non_max_suppression(node: NodeView) -> Operation:
    """Inputs: boxes [batch, boxes, 4], scores [batch, classes, boxes]. Output: [selected, 3]."""
    if len(node.known_shape(_SCORES)) != _SCORES_RANK:
        raise UntranslatableError("its scores are not [batch, classes, boxes]")
    return NonMaxSuppression(_SCORES, axis=1, column=_CLASS_COLUMN)


ROWS: Mapping[str, Translate] = {"NonMaxSuppression": _non_max_suppression}
