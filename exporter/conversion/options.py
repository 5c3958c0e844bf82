"""How to convert a model. This module is light: the command line reads its defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LARGE_HEAD_BYTES = 256 * 10**6


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        opset: of the standard ONNX operators.
        batch: leading dimension, for kinds that need a fixed one, where Keras leaves it open.
        input_shapes: input name -> complete shape, for open dimensions. Its batch is ignored.
        signature: of a SavedModel; None for serving_default, or the only one.
        dims: name of an open dimension -> its length, for files that are not converted.
        large_head_bytes: a head with a kernel of this size is not built in Keras if a file contains
            it. The TFLite converter gets a stub, and the original weights are written afterwards.
    """

    opset: int = 17
    batch: int = 1
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    signature: str | None = None
    large_head_bytes: int = LARGE_HEAD_BYTES
    dims: Mapping[str, int] = field(default_factory=dict)
