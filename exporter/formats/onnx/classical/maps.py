"""Outputs that are one map of labels to values for each sample (ZipMap)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto

from exporter.errors import ModelError
from exporter.formats.onnx.classical.attributes import FORMS, ML_DOMAIN
from exporter.formats.onnx.classical.split import labels_of_classes
from exporter.formats.onnx.classical.trees import values_of
from exporter.graph import Array


def labels_of_maps(model: ModelProto) -> dict[str, Array]:
    """Output of a ZipMap -> its labels, in the order of the values."""
    return {
        node.output[0]: labels_of_classes(FORMS["TreeEnsembleClassifier"].labels, values_of(node))
        for node in model.graph.node
        if node.domain == ML_DOMAIN and node.op_type == "ZipMap"
    }


def array_of_maps(maps: Sequence[Mapping[Any, float]], labels: Array) -> Array:
    """(samples, classes) float32: the values of the labels.

    Raises:
        ModelError: a map has other labels.
    """
    wanted = labels.tolist()
    if any(set(each) != set(wanted) for each in maps):
        raise ModelError("the maps that the model returns have other labels than its ZipMap states")
    return np.array([[each[label] for label in wanted] for each in maps], np.float32)
