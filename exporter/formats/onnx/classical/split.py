"""Replace classical operators by one node for each step, with their weights as constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.formats.onnx.classical.attributes import (
    ACTIVATIONS,
    DOMAIN,
    FORMS,
    ML_DOMAIN,
    offsets_of,
    scores_of,
    why_whole,
)
from exporter.formats.onnx.classical.trees import KERNEL, values_of
from exporter.formats.onnx.protos import (
    DEFAULT_DOMAINS,
    FileNode,
    attributes_of,
    copy_without,
    model_without,
)
from exporter.graph import Array

_OPSET = 13  # of the standard operators, in a file that has none of them

SOFTMAX_NORMALIZER = "NormalizerOfProbabilities"
"""The operator for a Normalizer (L1) whose input is a softmax: its values add up to 1 already."""


def split(model: ModelProto, nodes: Sequence[FileNode]) -> ModelProto:
    """The model with its classical operators split; the model itself if it has none.

    Operators that cannot be split stay whole: the trace refuses them by name.

    Args:
        model: any.
        nodes: of its graph.
    """
    if not any(node.domain == ML_DOMAIN for node in nodes):
        return model
    result = model_without(model, "node", "output")
    for domain, version in (("", _OPSET), (DOMAIN, 1)):
        known = {"" if o.domain in DEFAULT_DOMAINS else o.domain for o in model.opset_import}
        if domain not in known:
            result.opset_import.add(domain=domain, version=version)
    splitter = _Splitter(result, model)
    for index, node in enumerate(model.graph.node):
        result.graph.node.extend(splitter.nodes(node, index))
    for output in model.graph.output:
        width = splitter.widths.get(output.name)
        if width is None:
            result.graph.output.append(output)
        else:  # a map of labels, or a width that the file states wrongly
            result.graph.output.append(
                helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [None, width])
            )
    return result


class _Splitter:
    """Makes the nodes and constants of one model.

    Attributes:
        widths: tensor -> the number of its classes.
    """

    def __init__(self, result: ModelProto, source: ModelProto) -> None:
        self._result = result
        self._sources = {name: node for node in source.graph.node for name in node.output}
        self._outputs = {output.name for output in source.graph.output}
        self.widths: dict[str, int] = {}

    def nodes(self, node: NodeProto, index: int) -> Iterator[NodeProto]:
        name = node.name or f"{node.op_type}#{index}"
        if node.domain == ML_DOMAIN and node.op_type in FORMS:
            attributes = values_of(node)
            if not why_whole(node.op_type, attributes):
                yield from self._scores(node, name, attributes)
                return
        if node.domain == ML_DOMAIN and node.op_type == "ZipMap":
            yield self._zip_map(node, name)
        elif node.domain == ML_DOMAIN and self._is_table(node):
            yield self._table(node, name)
        elif node.op_type == "Normalizer" and self._normalizes_softmax(node):
            made = copy_without(node, "op_type", "domain")
            made.op_type, made.domain = SOFTMAX_NORMALIZER, DOMAIN
            yield made
        else:
            if node.domain == ML_DOMAIN and len(node.output) > 1:
                self._state_width(node.output[1], _width_of_whole(node))
            yield node

    def _state_width(self, tensor: str, width: int) -> None:
        self.widths[tensor] = width
        stated = {info.name for info in self._result.graph.value_info} | self._outputs
        if tensor not in stated:
            kind = helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [None, width])
            self._result.graph.value_info.append(kind)

    def _scores(
        self, node: NodeProto, name: str, attributes: Mapping[str, Any]
    ) -> Iterator[NodeProto]:
        form, width = FORMS[node.op_type], scores_of(node.op_type, attributes)
        activation = ACTIVATIONS[attributes.get("post_transform", "NONE")]
        is_classifier = bool(form.labels)
        result = node.output[1 if is_classifier else 0]
        logits = f"{result}/logits" if activation else result
        if form.entries:
            kernel: Array = np.arange(1, width + 1, dtype=np.float32)
        else:
            kernel = np.asarray(attributes["coefficients"], np.float32).reshape(width, -1)
        offsets = np.asarray(offsets_of(node.op_type, attributes))
        offsets = offsets if offsets.size else np.zeros(width, np.float32)
        if form.entries and not is_classifier:  # onnxruntime adds no base value without a leaf
            offsets = np.where(np.isin(np.arange(width), attributes["target_ids"]), offsets, 0)
        constants = [
            self._constant(f"{name}{KERNEL}", kernel),
            self._constant(f"{name}/offsets", offsets),
        ]
        hoisted = {
            "coefficients",
            form.offsets,
            f"{form.offsets}_as_tensor",
            form.targets,
            *form.labels,
        }
        made = NodeProto(op_type=node.op_type, domain=DOMAIN, name=name)
        made.input.extend([node.input[0], *constants])
        made.output.append(logits)
        made.attribute.extend(a for a in node.attribute if a.name not in hoisted)
        yield made
        for tensor in (logits, result):
            self._state_width(tensor, width)
        if activation:
            made = helper.make_node(activation, [logits], [result], f"{name}/activation")
            made.attribute.extend([helper.make_attribute("axis", 1)] * (activation == "Softmax"))
            yield made
        if is_classifier and node.output[0]:
            labels = self._constant(f"{name}/labels", labels_of_classes(form.labels, attributes))
            ids = f"{node.output[0]}/ids"
            yield helper.make_node("ArgMax", [logits], [ids], f"{name}/ids", axis=1, keepdims=0)
            yield helper.make_node(
                "Gather", [labels, ids], node.output[:1], f"{name}/label", axis=0
            )

    def _zip_map(self, node: NodeProto, name: str) -> NodeProto:
        labels = labels_of_classes(FORMS["TreeEnsembleClassifier"].labels, values_of(node))
        self.widths[node.output[0]] = len(labels)
        constant = self._constant(f"{name}/labels", labels)
        return helper.make_node(
            "ZipMap", [node.input[0], constant], node.output, name, domain=DOMAIN
        )

    def _is_table(self, node: NodeProto) -> bool:
        """Is it a LabelEncoder that looks up class indices?"""
        if node.op_type != "LabelEncoder" or not table_of(values_of(node)).size:
            return False
        source = self._sources.get(node.input[0])
        while source is not None and source.op_type in _MOVES:
            source = self._sources.get(source.input[0])
        return source is not None and source.op_type in {"ArgMax", "TopK"}

    def _table(self, node: NodeProto, name: str) -> NodeProto:
        table = self._constant(f"{name}/labels", table_of(values_of(node)))
        inputs = [table, node.input[0]]
        return helper.make_node(node.op_type, inputs, node.output, name, domain=DOMAIN)

    def _normalizes_softmax(self, node: NodeProto) -> bool:
        norm = attributes_of(node).get("norm", "MAX")
        source = self._sources.get(node.input[0])
        while source is not None and source.op_type == "Identity":
            source = self._sources.get(source.input[0])
        if norm != "L1" or source is None:
            return False
        return "SOFTMAX" in {source.op_type.upper(), attributes_of(source).get("post_transform")}

    def _constant(self, name: str, values: Array) -> str:
        self._result.graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def _width_of_whole(node: NodeProto) -> int:
    """The number of scores of a classifier that is not split: of its classes, or of their pairs."""
    values = values_of(node)
    labels = ("classlabels_ints", "classlabels_int64s", "classlabels_strings")
    classes = max((len(values[name]) for name in labels if name in values), default=0)
    pairs = node.op_type == "SVMClassifier" and "prob_a" not in values
    return max(2, classes * (classes - 1) // 2 if pairs else classes)


def table_of(attributes: Mapping[str, Any]) -> Array:
    """The entry of a LabelEncoder for each index 0, 1, 2, ...; empty if its keys are others."""
    if "classes_strings" in attributes:
        return np.asarray(attributes["classes_strings"], object)
    keys = np.asarray(attributes.get("keys_int64s", ()), np.int64)
    if not np.array_equal(np.sort(keys), np.arange(len(keys))):
        return np.empty(0)
    for name, dtype in LABEL_TYPES.items():
        if name in attributes:
            return np.asarray(attributes[name], dtype)[np.argsort(keys)]
    return np.empty(0)


LABEL_TYPES = {"values_strings": object, "values_int64s": np.int64, "values_floats": np.float32}
_MOVES = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}


def labels_of_classes(names: tuple[str, ...], attributes: Mapping[str, Any]) -> Array:
    """The class labels: int64, or objects for strings."""
    integers, strings = (attributes.get(name, ()) for name in names)
    return np.asarray(strings, object) if len(strings) else np.asarray(integers, np.int64)
