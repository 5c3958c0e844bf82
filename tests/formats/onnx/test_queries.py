"""RT-DETR's post-process: the best flattened (query, class) pairs, and boxes gathered by query.

PyTorch's exporters write a // b and a % b in several ways; the trace has to follow all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from exporter.formats.onnx import from_proto
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.trace import trace
from tests.builders.onnx_models import node
from tests.builders.onnx_suppression import TAKEN, branches, run
from tests.builders.yolo_models import Net
from tests.builders.yolo_reference import BOXES, CLASSES

KEPT = (4, 0, 3)
RESTS = ("mod", "product", "product of casts")
FLOORS = ("plain", "script", "dynamo")


def queries(
    rest: str, floor: str, *, factor: int = CLASSES, returned: str = "labels"
) -> ModelProto:
    """Outputs `labels` [1, rows], `boxes` [1, rows, 4] and `scores` [1, rows].

    Args:
        rest: operators that compute the remainder.
        floor: operators that round a quotient down.
        factor: the quotient is multiplied by it.
        returned: the tensor of class indices.
    """
    net = Net()
    net.maps()
    cls = net.op("Sigmoid", [branches(net, CLASSES, "cls")], "values")
    line = net.op("Flatten", [net.op("Transpose", [cls], "rows", perm=[0, 2, 1])], "line", axis=1)
    found = ["scores", "index"]
    net.nodes.append(node("TopK", [line, net.integers("k", TAKEN)], found, "best", axis=1))
    row = quotient(net, floor)
    if rest == "mod":
        net.op("Mod", ["index", "count"], "labels")
    else:
        whole = row
        for name in ("cast", "cast again") if "casts" in rest else ():
            whole = net.op("Cast", [whole], name, to=TensorProto.INT64)
        whole = net.op("Mul", [whole, net.constant("factor", np.int64(factor))], "whole")
        net.op("Sub", ["index", whole], "labels")
    place = net.op("Unsqueeze", [row, net.integers("behind", 2)], "row1")
    place = net.op("Tile", [place, net.integers("four", 1, 1, 4)], "row4")
    box = net.op("Sigmoid", [branches(net, 4, "box")], "sides")
    box = net.op("Transpose", [box], "every", perm=[0, 2, 1])
    net.op("GatherElements", [box, place], "boxes", axis=1)
    made = net.model(scores=(1, TAKEN), boxes=(1, TAKEN, 4))
    made.graph.output.append(helper.make_tensor_value_info(returned, TensorProto.INT64, (1, TAKEN)))
    return made


def quotient(net: Net, floor: str) -> str:
    net.constant("count", np.int64(CLASSES))
    net.op("Div", ["index", "count"], "quotient")
    if floor == "plain":
        return "quotient"
    below = net.op("Less", ["index", net.constant("zero", np.int64(0))], "below")
    left = net.op("Mod", ["index", "count"], "left")
    if floor == "dynamo":
        below = net.op("Equal", [below, net.constant("true", np.bool_(True))], "differ")
        left = net.op("Cast", [left], "any", to=TensorProto.BOOL)
        less = net.op("And", [below, left], "less")
        return net.op(
            "Sub", ["quotient", net.op("Cast", [less], "one", to=TensorProto.INT64)], "floor"
        )
    other = net.op("Less", ["count", "zero"], "other")
    below = net.op("Xor", [below, other], "differ")
    left = net.op("Not", [net.op("Equal", [left, "zero"], "none")], "any")
    less = net.op("Sub", ["quotient", net.constant("one", np.int64(1))], "one less")
    return net.op("Where", [net.op("And", [below, left], "less"), less, "quotient"], "floor")


def expected(model: ModelProto, units: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """The expected rows in NumPy, from the original's values."""
    shown = ModelProto.FromString(model.SerializeToString())
    for name, width in (("rows", CLASSES), ("every", 4)):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, BOXES, width))
        shown.graph.output.append(info)
    results = run(from_proto(shown, "shown.onnx"))
    line = results["rows"][0][:, list(units)].ravel()
    best = np.argsort(-line, kind="stable")[:TAKEN]
    return best % len(units), results["every"][0][best // len(units)], line[best]


@pytest.mark.parametrize(("rest", "floor"), list(product(RESTS, FLOORS)))
def test_class_indices_and_boxes_follow_the_cut(rest: str, floor: str) -> None:
    proto = queries(rest, floor)
    model = from_proto(proto, "queries.onnx")
    assert trace(model.graph()).head("best").units == CLASSES
    labels, boxes, scores = expected(proto, KEPT)
    for restored in (False, True):
        options = CutOptions(keep=KEPT, keep_order=True, head="best", restore_ids=restored)
        done = prune_model(model, options, Job(samples=2))
        assert done.results.passed
        results = run(done.model)
        numbers = np.array(KEPT)[labels] if restored else labels
        np.testing.assert_array_equal(results["labels"][0], numbers)
        np.testing.assert_allclose(results["boxes"][0], boxes, rtol=0, atol=1e-6)
        np.testing.assert_allclose(results["scores"][0], scores, rtol=0, atol=1e-6)
    assert set(numbers.tolist()) == set(KEPT)


def test_returned_remainder_follows_the_cut() -> None:
    """The remainder is an output, not only used to round down."""
    proto = queries("product", "script", returned="left")
    options = CutOptions(keep=KEPT, keep_order=True, head="best")
    done = prune_model(from_proto(proto, "queries.onnx"), options, Job(samples=2))
    assert done.results.passed
    np.testing.assert_array_equal(run(done.model)["left"][0], expected(proto, KEPT)[0])


def changed(operator: str, name: str, *inputs: str) -> ModelProto:
    """Changes the inputs of one operator, or the operator."""
    model = queries("product of casts", "plain")
    for each in model.graph.node:
        if each.name == name:
            each.op_type = operator
            each.input[:] = inputs
            del each.attribute[:]
    return model


BY_ANOTHER = "Mul 'whole': it divides positions by a number other than the number of units"
COMPUTES = "Sub 'labels': it computes with unit indices, which a cut changes"

REFUSED: Mapping[str, tuple[ModelProto, str]] = {
    "another factor": (queries("product", "plain", factor=CLASSES + 1), BY_ANOTHER),
    "a constant is taken off": (changed("Sub", "labels", "index", "count"), COMPUTES),
    "a product of no quotient": (changed("Mul", "whole", "count", "factor"), COMPUTES),
    "a product of quotients": (changed("Mul", "whole", "quotient", "quotient"), COMPUTES),
    "a quotient with another divisor": (changed("Div", "quotient", "factor", "count"), COMPUTES),
    "a sum": (changed("Add", "whole", "quotient", "factor"), COMPUTES),
    "no product": (changed("Abs", "whole", "quotient"), COMPUTES),
    "a product of another quotient": (changed("Neg", "cast", "quotient"), COMPUTES),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_remainders_are_refused(name: str) -> None:
    model, reason = REFUSED[name]
    found = trace(from_proto(model, "queries.onnx").graph())
    assert "best" not in {head.name for head in found.heads}
    assert any(reason in str(refusal) for refusal in found.refusals)
