"""A TFLite file as plain values, read by the library's schema."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema


def objects(content: bytes) -> Any:
    """All tables and values of a flatbuffer, to compare."""
    return plain(schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)))


def plain(value: Any) -> Any:
    """An object of the schema as values that can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tolist()
    if isinstance(value, list):
        return [plain(each) for each in value]
    if hasattr(value, "__dict__"):
        return type(value).__name__, {key: plain(each) for key, each in vars(value).items()}
    return value
