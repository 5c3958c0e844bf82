"""Refused after a detector: classes counted at run time, and TensorRT's post-processes.

`test_suppression` tests the operators that follow a cut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx import from_proto
from exporter.trace import trace
from tests.builders.onnx_models import node
from tests.builders.onnx_suppression import branches, end_to_end
from tests.builders.yolo_models import TO_THE_END, Net
from tests.builders.yolo_reference import CLASSES

COUNT = "scores.count"


def producer(model: ModelProto, name: str) -> NodeProto:
    found: NodeProto = next(each for each in model.graph.node if name in each.output)
    return found


def constant(model: ModelProto, name: str, value: object) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def returned(model: ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info(COUNT, TensorProto.INT64, ()))


def multiplied(model: ModelProto) -> None:
    model.graph.node.append(node("Mul", [COUNT, COUNT], ["squared"], "squared"))


def as_an_index(model: ModelProto) -> None:
    constant(model, "table", np.arange(9))
    model.graph.node.append(node("Gather", ["table", COUNT], ["found"], "found"))


def as_a_dividend(model: ModelProto) -> None:
    constant(model, "seven", np.int64(7))
    model.graph.node.append(node("Div", [COUNT, "seven"], ["share"], "share"))


def as_a_divisor_of_values(model: ModelProto) -> None:
    producer(model, "kind").input[0] = "value"


def as_what_is_repeated(model: ModelProto) -> None:
    model.graph.node.append(node("Expand", [COUNT, "scores.wide"], ["again"], "again"))


def divided_by_another_length(model: ModelProto) -> None:
    """Four coordinates."""
    producer(model, "kind").input[1] = "boxes.count"


def repeated_by_another_length(model: ModelProto) -> None:
    """Expand reads six lengths of another tensor, which a cut does not change."""
    constant(model, "six", np.zeros(6, np.float32))
    model.graph.node.insert(0, node("Shape", ["six"], ["length"], "length"))
    producer(model, "scores.open").input[1] = "length"


MEASURED: dict[Callable[[ModelProto], None], str] = {
    returned: "Shape 'scores.shape': it computes with the number of units",
    multiplied: "Shape 'scores.shape': it computes with the number of units",
    as_an_index: "Shape 'scores.shape': it computes with the number of units",
    as_a_dividend: "Shape 'scores.shape': it computes with the number of units",
    as_a_divisor_of_values: "Shape 'scores.shape': it computes with the number of units",
    as_what_is_repeated: "Shape 'scores.shape': it computes with the number of units",
    divided_by_another_length: "Mod 'kind': it divides positions by a number other than",
    repeated_by_another_length: "Expand 'scores.at': it repeats or pads the units",
}


@pytest.mark.parametrize("change", MEASURED, ids=lambda change: change.__name__)
def test_measured_number_of_classes(change: Callable[[ModelProto], None]) -> None:
    model = end_to_end(batch=0)
    change(model)
    found = trace(from_proto(model, "yolo.onnx").graph())
    with pytest.raises(ModelError) as caught:
        found.head()
    assert MEASURED[change] in caught.value.message


def another_limit(model: ModelProto) -> None:
    constant(model, "one", np.int64(1))
    producer(model, "below").input[1] = "one"


def a_computed_limit(model: ModelProto) -> None:
    producer(model, "below").input[1] = "kind"


def of_other_numbers(model: ModelProto) -> None:
    producer(model, "below").input[0] = "kind"


def where_signs_are_the_same(model: ModelProto) -> None:
    constant(model, "false", np.bool_(False))
    producer(model, "signs_differ").input[1] = "false"


def where_signs_are_compared(model: ModelProto) -> None:
    producer(model, "signs_differ").input[1] = "a_rest"


def where_either_holds(model: ModelProto) -> None:
    producer(model, "one_less").op_type = "Or"


def wherever_something_is_left(model: ModelProto) -> None:
    constant(model, "yes", np.bool_(True))
    producer(model, "one_less").input[0] = "yes"


DIVIDED = (
    another_limit,
    a_computed_limit,
    of_other_numbers,
    where_signs_are_the_same,
    where_signs_are_compared,
    where_either_holds,
    wherever_something_is_left,
)


@pytest.mark.parametrize("change", DIVIDED, ids=lambda change: change.__name__)
def test_other_divisions_of_indices_are_refused(change: Callable[[ModelProto], None]) -> None:
    model = end_to_end(dynamo=True)
    change(model)
    found = trace(from_proto(model, "yolo.onnx").graph())
    with pytest.raises(ModelError, match="computes with unit indices, which a cut changes"):
        found.head()


@pytest.mark.parametrize("domain", ["TRT", ""])
@pytest.mark.parametrize("operator", ["EfficientNMS_TRT", "BatchedNMSDynamic_TRT"])
def test_tensorrt_post_process_is_refused(operator: str, domain: str) -> None:
    """Each of its outputs is refused with its name and a hint."""
    net = Net()
    net.maps()
    boxes = net.op("Transpose", [branches(net, 4, "box")], "boxes", perm=[0, 2, 1])
    values = net.op("Sigmoid", [branches(net, 1 + CLASSES, "cls")], "values")
    rows = net.op("Transpose", [values], "rows", perm=[0, 2, 1])
    sure, classes = net.slice(rows, "sure", 0, 1, 2), net.slice(rows, "kinds", 1, TO_THE_END, 2)
    scores = net.op("Mul", [sure, classes], "scores")
    outputs = {"count": (1, 1), "places": (1, 9, 4), "best": (1, 9), "numbers": (1, 9)}
    net.nodes.append(node(operator, [boxes, scores], [*outputs], "nms", domain=domain))
    model = net.model(**outputs)
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    found = trace(from_proto(model, "yolo.onnx").graph())
    assert {refusal.output for refusal in found.refusals} == {*outputs}
    for refusal in found.refusals:
        assert refusal.operation == f"{operator} 'nms'"
        assert "belongs to TensorRT" in refusal.reason
        assert "--include-nms" in refusal.hint
