"""Operators of scikit-learn, LightGBM and XGBoost, after `classical.split` has split them."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.classical.attributes import FORMS, why_whole
from exporter.formats.onnx.classical.split import SOFTMAX_NORMALIZER
from exporter.formats.onnx.node_view import NodeView, Translate
from exporter.graph.operations import Activation, Elementwise, Gather, Linear, Operation


def _scores(_: NodeView) -> Operation:
    """input [batch, features], kernel [classes, ...], offsets [classes]"""
    return Linear(1, kernel_axis=0, output_axis=1, bias=2)


def _zip_map(_: NodeView) -> Operation:
    """A map from the labels, the second input, to the values; outputs show it as the values."""
    return Elementwise(channel_axis=1)


def _normalizer(node: NodeView) -> Operation:
    """Over axis 1 of [batch, classes]."""
    norm = str(node.attributes.get("norm", "MAX")).lower()
    return Activation(f"{norm}_normalize", axis=1)


def _binarizer(node: NodeView) -> Operation:
    """1 above the threshold, otherwise 0."""
    return Elementwise(keeps_zero=node.attributes.get("threshold", 0.0) >= 0, function="binarize")


def _feature_extractor(node: NodeView) -> Operation:
    shape = node.known_shape()
    if not node.is_constant(0) or len(shape) != 1:
        raise UntranslatableError("it selects columns by their positions")
    return Gather(0)


def _whole(operator: str) -> Translate:
    def refuse(node: NodeView) -> Operation:
        raise UntranslatableError(why_whole(operator, node.attributes) or "it cannot be split")

    return refuse


def _scaler(node: NodeView) -> Operation:
    """(input - offset) * scale"""
    if any(len(node.attributes.get(name, [])) > 1 for name in ("offset", "scale")):
        raise UntranslatableError("it scales each column by a number of its own")
    return Elementwise(keeps_zero=False, function="scaler")


SPLIT: Mapping[str, Translate] = {
    **dict.fromkeys(FORMS, _scores),
    "LabelEncoder": lambda _: Gather(0),
    SOFTMAX_NORMALIZER: lambda _: Elementwise(),
    "ZipMap": _zip_map,
}
"""Of the nodes that `split` makes."""

CLASSICAL: Mapping[str, Translate] = {
    **{operator: _whole(operator) for operator in FORMS},
    "ArrayFeatureExtractor": _feature_extractor,
    "Binarizer": _binarizer,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
}
"""Of the domain ai.onnx.ml."""

REASONS: Mapping[str, str] = {
    "SVMClassifier": "each pair of classes has a score of its own, and votes decide the class",
    "SVMRegressor": "its one output has no units",
    "TreeEnsemble": "a leaf belongs to one target, and there is no rule for it",
}
