"""Trees without the leaves of removed classes, and without the trees that only have such leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper

from exporter.formats.onnx.classical.attributes import DOMAIN, FORMS
from exporter.formats.onnx.protos import copy_without, model_without
from exporter.graph import Array

KERNEL = "/kernel"  # end of the name of the constant that selects classes
Attributes = Mapping[str, Any]  # name -> value: arrays, strings and numbers


def cut_split_trees(model: ModelProto) -> ModelProto:
    """A split model whose trees have only the leaves of the classes that their constants select."""
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        return model
    kernels = {t.name: t for t in model.graph.initializer if t.name.endswith(KERNEL)}
    changed = {}
    for index, node in enumerate(model.graph.node):
        entries = (
            FORMS[node.op_type].entries if node.domain == DOMAIN and node.op_type in FORMS else ""
        )
        kernel = kernels.get(node.input[1]) if entries else None
        if kernel is None:
            continue
        selected = numpy_helper.to_array(kernel)
        values = cut_trees(values_of(node), entries, selected)
        made = copy_without(node, "attribute")
        made.attribute.extend(attribute_of(name, value) for name, value in values.items())
        every = np.arange(1, len(selected) + 1, dtype=np.float32)
        changed[index] = made, numpy_helper.from_array(every, kernel.name)
    if not changed:
        return model
    result = model_without(model, "node", "initializer")
    constants = {tensor.name: tensor for _, tensor in changed.values()}
    for index, node in enumerate(model.graph.node):
        result.graph.node.append(changed[index][0] if index in changed else node)
    result.graph.initializer.extend(constants.get(t.name, t) for t in model.graph.initializer)
    return result


def cut_trees(values: Attributes, entries: str, selected: Array) -> dict[str, Any]:
    """The attributes of trees for some of their classes.

    1. Entries of other classes are dropped: a leaf adds nothing to a class without an entry.
    2. Trees in which no leaf has an entry are dropped, unless the mean over the trees is computed.
    3. A class without entries gets entries of 0 at all leaves of one tree: onnxruntime adds the
       base value only to a class that a leaf has.

    Args:
        values: of the attributes that begin with "nodes_" and with `entries`.
        entries: "class" or "target".
        selected: for each new class, the index of the old one plus 1; 0 for a class without leaves.
    """
    ids, trees, leaves = (
        np.asarray(values[f"{entries}_{name}"], np.int64) for name in ("ids", "treeids", "nodeids")
    )
    (weights_name,) = (name for name in values if name.startswith(f"{entries}_weights"))
    weights = np.asarray(values[weights_name])
    new_ids = np.full(int(ids.max(initial=0)) + 1, -1, np.int64)
    for new, old in enumerate(np.asarray(selected, np.int64)):
        if 0 < old <= len(new_ids):
            new_ids[old - 1] = new
    kept = new_ids[ids] >= 0
    remaining: tuple[Array, ...] = (new_ids[ids[kept]], trees[kept], leaves[kept], weights[kept])
    places = _leaves_of(values, remaining[1][0] if kept.any() else trees[0])
    for missing in sorted(set(range(len(selected))) - set(remaining[0].tolist())):
        zeros = [np.full(len(places[0]), missing), *places, np.zeros(len(places[0]))]
        remaining = tuple(
            np.concatenate([old, np.asarray(new, old.dtype)])
            for old, new in zip(remaining, zeros, strict=True)
        )
    result = dict(values)
    names = (f"{entries}_ids", f"{entries}_treeids", f"{entries}_nodeids", weights_name)
    result |= dict(zip(names, remaining, strict=True))
    if values.get("aggregate_function", "SUM") == "SUM":
        nodes = np.isin(np.asarray(values["nodes_treeids"]), remaining[1])
        for name, value in values.items():
            if name.startswith("nodes_") and len(value):
                result[name] = np.asarray(value)[nodes]
    return result


def _leaves_of(values: Attributes, tree: int) -> tuple[Array, Array]:
    """The tree of each leaf of a tree, and the leaf's id."""
    is_leaf = np.asarray(values["nodes_modes"]) == "LEAF"
    leaves = np.asarray(values["nodes_nodeids"])[is_leaf & (values["nodes_treeids"] == tree)]
    return np.full(len(leaves), tree), leaves


def values_of(node: NodeProto) -> dict[str, Any]:
    """The attributes by name: numbers, strings and arrays of them."""
    return {attribute.name: _value(attribute) for attribute in node.attribute}


def _value(attribute: AttributeProto) -> Any:
    match attribute.type:
        case AttributeProto.TENSOR:
            return numpy_helper.to_array(attribute.t)
        case AttributeProto.STRINGS:
            return [text.decode("utf-8", "replace") for text in attribute.strings]
        case AttributeProto.STRING:
            return attribute.s.decode("utf-8", "replace")
        case AttributeProto.FLOATS:
            return np.asarray(attribute.floats, np.float32)
        case AttributeProto.INTS:
            return np.asarray(attribute.ints, np.int64)
    return helper.get_attribute_value(attribute)


def attribute_of(name: str, value: Any) -> AttributeProto:
    """An attribute of a classical operator, in the type that its name has in the schema."""
    if name.endswith("_as_tensor"):
        return helper.make_attribute(name, numpy_helper.from_array(np.asarray(value), name))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if name in _FLOATS:
        return helper.make_attribute(
            name, [float(v) for v in value], attr_type=AttributeProto.FLOATS
        )
    return helper.make_attribute(name, value)


_FLOATS = {
    *("base_values", "class_weights", "coefficients", "intercepts", "nodes_hitrates"),
    *("nodes_values", "target_weights", "values_floats"),
}
