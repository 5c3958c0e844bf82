"""Small ONNX detectors with a post-process of standard operators, as exporters write it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper

from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from tests.builders.onnx_models import node, numbers
from tests.builders.yolo_models import TO_THE_END, Net
from tests.builders.yolo_reference import CHANNELS, CLASSES, SIZES

ROOM = 200  # more than a class has boxes
TAKEN = 8  # boxes of 20 that the end-to-end model returns


def suppressed(net: Net, boxes: str, scores: str, *, overlap: float) -> str:
    limits = [
        net.integers("room", ROOM),
        net.constant("overlap", np.array([overlap], np.float32)),
        net.constant("least", np.array([0.0], np.float32)),
    ]
    return net.op("NonMaxSuppression", [boxes, scores, *limits], "selected")


def column(net: Net, position: int, name: str, *, flat: bool = True) -> str:
    index = np.int64(position) if flat else np.array([position], np.int64)
    return net.op("Gather", ["selected", net.constant(f"{name}.at", index)], name, axis=1)


def branches(net: Net, width: int, name: str, *, batch: int = 1) -> str:
    """[batch, width, boxes] of both feature maps; batch 0 is dynamic."""
    levels = [
        net.reshape(net.conv(x, width, f"{name}{i}"), f"{name}.flat{i}", batch, width, -1)
        for i, x in enumerate(("p0", "p1"))
    ]
    return net.op("Concat", levels, name, axis=2)


def finished(net: Net, **kinds: int) -> ModelProto:
    model = net.model()
    shapes = {"boxes": (None, 4), "rows": (None, 6), "detected": (None, 7), "selected": (None, 3)}
    for name, kind in kinds.items():
        info = helper.make_tensor_value_info(name, kind, shapes.get(name, (None,)))
        model.graph.output.append(info)
    return model


def ssd(
    *,
    background: bool = False,
    sliced: bool = False,
    shared_out: bool = False,
    split: bool = False,
    more: int = 0,
) -> ModelProto:
    """Class values [1, classes, boxes]; output rows are gathered by the selected indices.

    Args:
        background: a class before the others, which is dropped.
        shared_out: a softmax on the last axis instead of a sigmoid.
        split: a Split between the softmax and the Transpose drops the background.
        more: is added to class indices, which then count a background.
    """
    net = Net()
    net.maps()
    box = net.op("Transpose", [branches(net, 4, "box")], "corners", perm=[0, 2, 1])
    width = CLASSES + background
    logits = branches(net, width, "cls")
    if shared_out:
        logits = net.op("Transpose", [logits], "logits", perm=[0, 2, 1])
        values = net.op("Softmax", [logits], "shares", axis=2)
        if split:
            net.split(values, ["none", "some"], [1, CLASSES], 2)
            values = "some"
        values = net.op("Transpose", [values], "values", perm=[0, 2, 1])
    else:
        values = net.op("Sigmoid", [logits], "values")
    if background and not split:
        values = net.slice(values, "without", 1, TO_THE_END, 1)
    suppressed(net, box, values, overlap=0.5)
    if sliced:
        columns = [net.slice("selected", f"column{i}", i, i + 1, 1) for i in (1, 2)]
        flat = [
            net.op("Squeeze", [each, net.integers(f"{each}.one", 1)], f"{each}.flat")
            for each in columns
        ]
    else:
        flat = [column(net, 1, "number"), column(net, 2, "place")]
    number, position = flat
    if more:
        number = net.op("Add", [number, net.constant("more", np.int64(more))], "number_more")
    net.op("Cast", [number], "numbers", to=TensorProto.INT32)
    net.op("Squeeze", [box, net.integers("front", 0)], "flat_boxes")
    net.op("Gather", ["flat_boxes", position], "boxes", axis=0)
    net.op("GatherND", [values, "selected_as_stored"], "best")
    net.nodes[-1].input[1] = "selected"
    return finished(net, boxes=TensorProto.FLOAT, numbers=TensorProto.INT32, best=TensorProto.FLOAT)


def selected_alone() -> ModelProto:
    net = Net()
    net.maps()
    box = net.op("Transpose", [branches(net, 4, "box")], "corners", perm=[0, 2, 1])
    suppressed(net, box, net.op("Sigmoid", [branches(net, CLASSES, "cls")], "v"), overlap=0.5)
    return finished(net, selected=TensorProto.INT64)


def largest(*, overlap: float = 1.0) -> ModelProto:
    """Each box has its best class; the suppression ignores classes (YOLOv5's own export)."""
    net = Net()
    net.maps()
    y = net.op("Sigmoid", [branches(net, 5 + CLASSES, "row")], "sigmoid")
    rows = net.op("Transpose", [y], "every", perm=[0, 2, 1])
    box = net.slice(rows, "xywh", 0, 4, 2)
    score = net.op(
        "Mul", [net.slice(rows, "obj", 4, 5, 2), net.slice(rows, "each", 5, TO_THE_END, 2)], "score"
    )
    best = net.op("ReduceMax", [score], "largest", axes=[2], keepdims=1)
    kind = net.op("ArgMax", [score], "kind", axis=2, keepdims=1)
    turned = net.op("Transpose", [best], "turned", perm=[0, 2, 1])
    suppressed(net, box, turned, overlap=overlap)
    position = column(net, 2, "place")
    kind = net.op("Cast", [kind], "kind_float", to=TensorProto.FLOAT)
    row = net.op("Concat", [box, best, kind], "with_kind", axis=2)
    net.op("Gather", [row, position], "chosen", axis=1)
    net.op("Squeeze", ["chosen", net.integers("front", 0)], "rows")
    return finished(net, rows=TensorProto.FLOAT)


FURTHEST = 640.0  # distance between the boxes of one class and the next


def as_yolov7() -> ModelProto:
    """YOLOv7's `--end2end --max-wh`: (image, box, class index, score), gathered by index."""
    net = Net()
    net.maps()
    y = net.op("Sigmoid", [branches(net, 5 + CLASSES, "row")], "sigmoid")
    every = net.op("Transpose", [y], "every", perm=[0, 2, 1])
    score = net.op(
        "Mul", [net.slice(every, "each", 5, TO_THE_END, 2), net.slice(every, "sure", 4, 5, 2)], "s"
    )
    ends = np.block([[np.eye(2), np.eye(2)], [-np.eye(2) / 2, np.eye(2) / 2]])
    corners = net.constant("corners", ends.astype(np.float32))
    box = net.op("MatMul", [net.slice(every, "xywh", 0, 4, 2), corners], "places")
    best = net.op("ReduceMax", [score], "largest", axes=[2], keepdims=1)
    kind = net.op("ArgMax", [score], "kind", axis=2, keepdims=1)
    moved = net.op("Cast", [kind], "kind_float", to=TensorProto.FLOAT)
    moved = net.op("Mul", [moved, net.number("furthest", FURTHEST)], "distance")
    moved = net.op("Add", [box, moved], "apart")
    turned = net.op("Transpose", [best], "turned", perm=[0, 2, 1])
    suppressed(net, moved, turned, overlap=0.45)
    picture, position = column(net, 0, "picture"), column(net, 2, "place")
    parts = [_taken(net, each, picture, position) for each in (box, kind, best)]
    parts[1] = net.op("Cast", [parts[1]], "number", to=TensorProto.FLOAT)
    front = net.op("Unsqueeze", [picture, net.integers("last_axis", 1)], "picture1")
    front = net.op("Cast", [front], "picture_float", to=TensorProto.FLOAT)
    net.op("Concat", [front, *parts], "detected", axis=1)
    return finished(net, detected=TensorProto.FLOAT)


def _taken(net: Net, values: str, picture: str, position: str) -> str:
    """values[image, index], gathered from flattened rows; the other axes are measured."""
    shape = net.op("Shape", [values], f"{values}.shape")
    count, width = (
        net.op("Gather", [shape, net.integers(f"axis{axis}", axis)], f"{values}.{axis}", axis=0)
        for axis in (1, 2)
    )
    line = net.op("Flatten", [values], f"{values}.line", axis=2)
    at = net.op("Mul", [picture, count], f"{values}.before")
    at = net.op("Add", [position, at], f"{values}.at")
    rows = net.op("Gather", [line, at], f"{values}.taken", axis=0)
    shapes = (net.integers("any", -1), net.op("Shape", [at], f"{values}.count"))
    for i, front in enumerate(shapes):
        target = net.op("Concat", [front, width], f"{values}.target{i}", axis=0)
        rows = net.op("Reshape", [rows, target], f"{values}.rows{i}")
    return rows


def end_to_end(*, dynamo: bool = False, batch: int = 1) -> ModelProto:
    """YOLOv10 and later: the best boxes, then the best of all their classes; no suppression.

    Args:
        dynamo: indices are divided as PyTorch's later exporter writes it.
        batch: 0 for a dynamic one, as the earlier exporter writes it: the number of classes
            is measured.
    """
    net = Net()
    net.maps()
    boxes = branches(net, 4, "box", batch=batch)
    box = net.op("Transpose", [boxes], "corners", perm=[0, 2, 1])
    cls = net.op("Sigmoid", [branches(net, CLASSES, "cls", batch=batch)], "values")
    both = net.op(
        "Concat", [box, net.op("Transpose", [cls], "turned", perm=[0, 2, 1])], "both", axis=2
    )
    net.split(both, ["boxes", "scores"], [4, CLASSES], 2)
    net.op("ReduceMax", ["scores"], "largest", axes=[2], keepdims=0)
    best = ["best", "place"]
    net.nodes.append(node("TopK", ["largest", net.integers("k", TAKEN)], best, "first", axis=1))
    position = net.op("Unsqueeze", ["place", net.integers("last_axis", 2)], "place1")
    for name, width in (("boxes", 4), ("scores", CLASSES)):
        if batch:
            times = net.integers(f"{name}.times", 1, 1, width)
            tiled = net.op("Tile", [position, times], f"{name}.at")
        else:
            tiled = _measured(net, position, name)
        net.op("GatherElements", [name, tiled], f"{name}.best", axis=1)
    line = net.op("Flatten", ["scores.best"], "line", axis=1)
    ranked = ["value", "index"]
    net.nodes.append(node("TopK", [line, net.integers("k2", TAKEN)], ranked, "second", axis=1))
    count = net.constant("count", np.int64(CLASSES)) if batch else "scores.count"
    kind = net.op("Mod", ["index", count], "kind")
    row = _floored(net, count) if dynamo else net.op("Div", ["index", count], "row")
    rows = net.op("Unsqueeze", [row, "last_axis"], "row1")
    four = net.op("Tile", [rows, net.integers("four", 1, 1, 4)], "row4")
    net.op("GatherElements", ["boxes.best", four], "box_of", axis=1)
    parts = ["box_of"]
    kind = net.op("Cast", [kind], "kind_float", to=TensorProto.FLOAT)
    for name, source in (("score_of", "value"), ("kind_of", kind)):
        parts.append(net.op("Unsqueeze", [source, net.integers(f"{name}.axes", 2)], name))
    net.op("Concat", parts, "y", axis=2)
    made = net.model(y=(1, TAKEN, 6))
    for info in () if batch else (made.graph.input[0], made.graph.output[0]):
        info.type.tensor_type.shape.dim[0].dim_param = "batch"
    return made


def _measured(net: Net, position: str, name: str) -> str:
    """Indices repeated for the width of `name`: Expand to [-1, -1, length]."""
    last = net.constant(f"{name}.last", np.int64(2))
    count = net.op("Gather", [net.op("Shape", [name], f"{name}.shape"), last], f"{name}.count")
    wide = net.op("Unsqueeze", [count, net.integers("front", 0)], f"{name}.count1")
    wide = net.op("Concat", [net.integers("open", -1, -1), wide], f"{name}.open", axis=0)
    wide = net.op("Reshape", [wide, net.integers("all", -1)], f"{name}.target")
    one = helper.make_tensor("value", TensorProto.INT64, [1], [1])
    rank = net.op("Shape", [wide], f"{name}.rank")
    ones = net.op("ConstantOfShape", [rank], f"{name}.ones", value=one)
    minus = net.op("Mul", [ones, net.constant("minus", np.int64(-1))], f"{name}.minus")
    stays = net.op("Equal", [wide, minus], f"{name}.stays")
    wide = net.op("Where", [stays, ones, wide], f"{name}.wide")
    return net.op("Expand", [position, wide], f"{name}.at")


def _floored(net: Net, count: str) -> str:
    """index // count, minus 1 where the index is negative and there is a remainder (never)."""
    below = net.op("Less", ["index", net.constant("nothing", np.int64(0))], "below")
    below = net.op("Equal", [below, net.constant("true", np.bool_(True))], "signs_differ")
    rest = net.op("Cast", ["kind"], "a_rest", to=TensorProto.BOOL)
    less = net.op("Cast", [net.op("And", [below, rest], "one_less")], "less", to=TensorProto.INT64)
    return net.op("Sub", [net.op("Div", ["index", count], "quotient"), less], "row")


SIDE = 16.0  # of the image, in pixels


def moved_apart(*, least: float = 0.25, overlap: float = 0.5) -> ModelProto:
    """`nms=True` of ultralytics: the best class of each box, boxes above a threshold, each moved by
    its class index, suppressed together; rows of zeros fill up the output.
    """
    net = Net()
    net.maps()
    values = net.op("Sigmoid", [branches(net, CLASSES, "cls")], "values")
    both = net.op("Concat", [branches(net, 4, "box"), values], "both", axis=1)
    every = net.op("Transpose", [both], "every", perm=[0, 2, 1])
    box, cls = net.slice(every, "box4", 0, 4, 2), net.slice(every, "cls4", 4, 4 + CLASSES, 2)
    net.op("ReduceMax", [cls], "largest", axes=[2], keepdims=0)
    net.op("ArgMax", [cls], "kind", axis=-1, keepdims=0)
    first = net.constant("first", np.int64(0))
    box, best, kind = (
        net.op("Gather", [x, first], f"{x}.0", axis=0) for x in (box, "largest", "kind")
    )
    net.op("NonZero", [net.op("Greater", [best, net.number("least", least)], "above")], "where")
    net.op("Transpose", ["where"], "places", perm=[1, 0])
    box, best, kind = (net.op("GatherND", [x, "places"], f"{x}.above") for x in (box, best, kind))
    share = net.number("share", 1 / CLASSES)
    small = net.op("Mul", [net.op("Div", [box, net.number("side", SIDE)], "unit"), share], "small")
    column = net.op("Reshape", [kind, net.integers("a_column", -1, 1)], "as_column")
    count = net.op("Gather", [net.op("Shape", [kind], "length"), first], "count", axis=0)
    wide = net.op("Unsqueeze", [count, net.integers("zero", 0)], "count1")
    wide = net.op("Concat", [wide, net.integers("four", 4)], "wide", axis=0)
    wide = net.op("Expand", [column, wide], "repeated")
    offset = net.op("Mul", [net.op("Cast", [wide], "as_float", to=1), share], "offset")
    net.op("Unsqueeze", [net.op("Add", [small, offset], "apart"), "zero"], "boxes3")
    net.op("Unsqueeze", [best, net.integers("two", 0, 1)], "best3")
    limits = [net.integers("room", 2**31), net.constant("iou", np.array([overlap], np.float32))]
    net.op("NonMaxSuppression", ["boxes3", "best3", *limits], "selected")
    taken = net.op("Gather", ["selected", net.integers("place", 2)], "taken", axis=1)
    taken = net.op("Squeeze", [taken, net.integers("one", 1)], "taken1")
    taken = net.slice(taken, "at_most", 0, ROOM, 0)
    box, best, kind = (net.op("Gather", [x, taken], f"{x}.kept", axis=0) for x in (box, best, kind))
    best = net.op("Reshape", [best, "a_column"], "best.column")
    kind = net.op("Cast", [net.op("Reshape", [kind, "a_column"], "kind.column")], "kind.real", to=1)
    return _filled_up(net, net.op("Concat", [box, best, kind], "found", axis=-1))


def _filled_up(net: Net, found: str) -> ModelProto:
    """Pads with rows of zeros: scatters the flattened rows into a tensor of zeros."""
    length = net.op("Gather", [net.op("Shape", [found], "shape"), "first"], "rows", axis=0)
    missing = net.op("Sub", [net.constant("all", np.int64(ROOM)), length], "missing")
    values = net.op("Mul", [missing, net.constant("six", np.int64(6))], "missing6")
    ends = net.op("Unsqueeze", [values, "zero"], "missing7")
    ends = net.op("Concat", ["zero", ends], "widths", axis=0)
    line = net.reshape(found, "line", -1)
    net.reshape(net.op("Pad", [line, ends], "padded"), "full", 1, ROOM, 6)
    zeros = net.constant("zeros", np.zeros((1, ROOM, 6), np.float32))
    at = net.constant("all_places", np.zeros((1, 1), np.int64))
    net.op("ScatterND", [zeros, at, "full"], "y")
    return net.model(y=(1, ROOM, 6))


BUILDERS = (ssd, selected_alone, largest, as_yolov7, moved_apart, end_to_end)


def picture(seed: int = 7) -> dict[str, Array]:
    return {"x": numbers(1, CHANNELS, SIZES[0], SIZES[0], seed=seed)}


def run(model: object) -> Mapping[str, Array]:
    assert isinstance(model, OnnxModel)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, picture()), strict=True))
