"""The rules: how a unit axis passes through each neutral operation.

A rule is given a node and the unit axis of one of its inputs or outputs. It yields the unit axes of
the others, and the numbers in the file that state their length. It refuses where the operation
mixes units, or where they would not be on one axis.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.graph.operations import (
    Activation,
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    Gather,
    GatherComputed,
    GatherConstant,
    Linear,
    NonMaxSuppression,
    Operation,
    Pool,
    Reduce,
    Reshape,
    ShapeOf,
    Slice,
    Split,
    Stack,
    TopK,
    Transpose,
)
from exporter.trace.rules.concat_split_slice import concat, slice_, split
from exporter.trace.rules.detections import non_max_suppression
from exporter.trace.rules.elementwise import elementwise
from exporter.trace.rules.expand import constant_of_shape, expand
from exporter.trace.rules.gather import gather, gather_computed, gather_constant
from exporter.trace.rules.linear import NOT_CHANNELS, linear
from exporter.trace.rules.protocol import Refused, Rule
from exporter.trace.rules.reshape import reshape
from exporter.trace.rules.runtime_width import shape_of
from exporter.trace.rules.stack import stack
from exporter.trace.rules.transpose_reduce_pool import pool, reduce, top_k, transpose

__all__ = ["NOT_CHANNELS", "RULES", "Refused"]

RULES: Mapping[type[Operation], Rule] = {
    Linear: linear,
    Elementwise: elementwise,
    Activation: elementwise,
    Reshape: reshape,
    Transpose: transpose,
    Reduce: reduce,
    Pool: pool,
    Concat: concat,
    Stack: stack,
    Split: split,
    Slice: slice_,
    Expand: expand,
    ConstantOfShape: constant_of_shape,
    ShapeOf: shape_of,
    Gather: gather,
    GatherConstant: gather_constant,
    GatherComputed: gather_computed,
    TopK: top_k,
    NonMaxSuppression: non_max_suppression,
}
