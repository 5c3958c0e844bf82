"""Make classical operators again from the nodes that `split` made for their steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx.classical.attributes import ACTIVATIONS, DOMAIN, FORMS, ML_DOMAIN
from exporter.formats.onnx.classical.split import LABEL_TYPES, SOFTMAX_NORMALIZER
from exporter.formats.onnx.classical.trees import attribute_of, values_of
from exporter.formats.onnx.protos import copy_without, model_without, replace_messages
from exporter.graph import Array


def join(model: ModelProto) -> ModelProto:
    """The model with classical operators; the model itself if it was not split.

    1. The steps of an operator are joined if each still reads the result of the one before.
    2. Scores that are read elsewhere come from a regressor with the same weights.
    3. If an operation was inserted between the steps, only the scores come from a classical
       operator, and the other steps stay standard operators.
    4. So they do if one class is left, or two classes of trees: onnxruntime reads such operators
       as binary ones, which decide by the sign of a score.
    """
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        return model
    joiner = _Joiner(model)
    nodes = [made for node in model.graph.node for made in joiner.nodes(node)]
    nodes = [node for node in nodes if node.name not in joiner.joined or node.domain == ML_DOMAIN]
    result = model_without(model, "node", "initializer", "output")
    result.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {o.name for o in model.graph.output}
    result.graph.initializer.extend(
        t for t in model.graph.initializer if t.name not in joiner.constants or t.name in read
    )
    for output in model.graph.output:
        made = result.graph.output.add()
        made.CopyFrom(output)
        if output.name in joiner.maps:
            made.type.CopyFrom(_type_of_maps(joiner.maps[output.name]))
    known = {name for node in nodes for name in node.output}
    infos = [info for info in result.graph.value_info if info.name in known - joiner.maps.keys()]
    replace_messages(result.graph.value_info, infos)
    replace_messages(result.opset_import, [o for o in model.opset_import if o.domain != DOMAIN])
    return result


_FEWEST, _FEWEST_OF_TREES = 2, 3  # classes of an operator, rule 4


class _Joiner:
    """Joins the nodes of one model.

    Attributes:
        joined: names of the nodes that became part of an operator.
        constants: names of the constants that became attributes.
        maps: output that returns maps -> its labels.
    """

    def __init__(self, model: ModelProto) -> None:
        self._nodes = {node.name: node for node in model.graph.node}
        self._values = {t.name: t for t in model.graph.initializer}
        self._readers: dict[str, set[str]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, set()).add(node.name)
        for output in model.graph.output:
            self._readers.setdefault(output.name, set()).add("")
        self.joined: set[str] = set()
        self.constants: set[str] = set()
        self.maps: dict[str, Array] = {}

    def nodes(self, node: NodeProto) -> Iterator[NodeProto]:
        if node.domain != DOMAIN:
            yield node
        elif node.op_type == "ZipMap":
            yield self._zip_map(node)
        elif node.op_type == "LabelEncoder":
            yield self._encoder(node)
        elif node.op_type == SOFTMAX_NORMALIZER:
            made = copy_without(node, "op_type", "domain")
            made.op_type, made.domain = "Normalizer", ML_DOMAIN
            yield made
        else:
            yield from self._scores(node)

    def _scores(self, node: NodeProto) -> Iterator[NodeProto]:
        form, name, logits = FORMS[node.op_type], node.name, node.output[0]
        kernel, offsets = (self._constant(each) for each in node.input[1:3])
        attributes = values_of(node)
        activation = ACTIVATIONS[attributes.get("post_transform", "NONE")]
        steps = {step: self._nodes.get(f"{name}/{step}") for step in ("activation", "ids", "label")}
        inside = {each.name for each in steps.values() if each is not None}
        elsewhere = self._readers.get(logits, set()) - inside
        fewest = _FEWEST_OF_TREES if form.entries else _FEWEST
        few = len(kernel) < fewest
        if not form.labels or few or not self._is_intact(logits, activation, steps):
            yield self._made(node, form.regressor, [logits], kernel, offsets)
            return
        act, label = steps["activation"], steps["label"]
        result = act.output[0] if act is not None else logits
        first = label.output[0] if label is not None else f"{result}/label"
        made = self._made(node, node.op_type, [first, result], kernel, offsets)
        labels = self._constant(label.input[0]) if label is not None else np.arange(len(kernel))
        is_text = labels.dtype == object
        made.attribute.append(attribute_of(form.labels[is_text], list(labels)))
        self.joined |= inside
        yield made
        if activation and elsewhere:
            yield self._made(node, form.regressor, [logits], kernel, offsets, "/logits")

    def _is_intact(
        self, logits: str, activation: str, steps: Mapping[str, NodeProto | None]
    ) -> bool:
        act, ids, label = steps["activation"], steps["ids"], steps["label"]
        if activation and (act is None or act.input[0] != logits):
            return False
        if ids is None or label is None:
            return ids is None and label is None
        only_label = self._readers.get(ids.output[0]) == {label.name}
        return ids.input[0] == logits and label.input[1] == ids.output[0] and only_label

    def _made(  # noqa: PLR0917 - what an operator consists of
        self,
        node: NodeProto,
        operator: str,
        outputs: list[str],
        kernel: Array,
        offsets: Array,
        suffix: str = "",
    ) -> NodeProto:
        """An operator with these weights: the classifier, or the regressor of the same scores."""
        form, made_form = FORMS[node.op_type], FORMS[operator]
        made = NodeProto(op_type=operator, domain=ML_DOMAIN, name=node.name + suffix)
        made.input.append(node.input[0])
        made.output.extend(outputs)
        values = values_of(node)
        if not form.entries:
            values["coefficients"] = kernel.ravel()
        as_tensor = any(name.endswith("_as_tensor") for name in values)
        if offsets.any() or not form.entries:
            values[form.offsets + "_as_tensor" * as_tensor] = offsets
        if operator != node.op_type:  # the scores alone
            values["post_transform"] = "NONE"
            values.pop("multi_class", None)
        if made_form.targets:
            values[made_form.targets] = len(kernel)
        for name, value in values.items():
            renamed = name
            if form.entries and made_form.entries != form.entries and name.startswith(form.entries):
                renamed = made_form.entries + name.removeprefix(form.entries)
            made.attribute.append(attribute_of(renamed, value))
        return made

    def _encoder(self, node: NodeProto) -> NodeProto:
        table = self._constant(node.input[0])
        made = helper.make_node(
            node.op_type, node.input[1:], node.output, node.name, domain=ML_DOMAIN
        )
        values = next(name for name, dtype in LABEL_TYPES.items() if table.dtype == dtype)
        made.attribute.append(attribute_of("keys_int64s", list(range(len(table)))))
        made.attribute.append(attribute_of(values, table))
        return made

    def _zip_map(self, node: NodeProto) -> NodeProto:
        if self._readers.get(node.output[0]) != {""}:
            raise ModelError(
                f"{node.op_type} {node.name!r} returns maps, and no operation can follow it",
                "export the model with zipmap=False, which returns an array",
            )
        labels = self._constant(node.input[1])
        self.maps[node.output[0]] = labels
        made = helper.make_node("ZipMap", node.input[:1], node.output, node.name, domain=ML_DOMAIN)
        name = "classlabels_strings" if labels.dtype == object else "classlabels_int64s"
        made.attribute.append(attribute_of(name, list(labels)))
        return made

    def _constant(self, name: str) -> Array:
        self.constants.add(name)
        values: Array = numpy_helper.to_array(self._values[name])
        return values


def _type_of_maps(labels: Array) -> TypeProto:
    key = TensorProto.STRING if labels.dtype == object else TensorProto.INT64
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    return helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
