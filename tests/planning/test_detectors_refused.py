"""Detectors that cannot be cut, or not as asked: the error names the operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.errors import ModelError, UsageError
from exporter.formats.onnx import from_proto
from exporter.formats.tflite import from_bytes
from exporter.graph import Graph
from exporter.graph.operations import Activation, Opaque
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace
from exporter.trace.rules.protocol import RAW
from tests.builders.box_graphs import NAMES, boxes_and_classes
from tests.builders.commands import exporter, listing
from tests.builders.graphs import Builder
from tests.builders.onnx_models import node
from tests.builders.onnx_ssd import ssd
from tests.builders.onnx_suppression import branches, end_to_end, finished
from tests.builders.onnx_suppression import ssd as suppressed
from tests.builders.refusals import Refusal, assert_refused
from tests.builders.ssd_models import ROWS
from tests.builders.ssd_models import ssd as tflite_ssd
from tests.builders.yolo_models import Net, anchored
from tests.builders.yolo_reference import ANCHORS, CLASSES, SIZES

JOINED = "export the model with it after the join, which gives the same values, or without it"

# --- rows that cannot follow a cut ---------------------------------------------------------------


def values(net: Net) -> str:
    """Class values, [1, classes, boxes]."""
    net.maps()
    return net.op("Sigmoid", [branches(net, CLASSES, "cls")], "values")


def class_by_class() -> ModelProto:
    """torchvision's SSD: boxes of one class, then of the next."""
    net = Net()
    each = net.op("Transpose", [values(net)], "scores", perm=[0, 2, 1])
    each = net.op("Squeeze", [each, net.integers("front", 0)], "flat")
    net.number("least", 0.05)
    found = []
    for number in range(1, CLASSES):
        name = f"class{number}"
        one = net.op("Gather", [each, net.constant(name, np.int64(number))], f"{name}.s", axis=1)
        above = net.op("Greater", [one, "least"], f"{name}.above")
        where = net.op("Transpose", [net.op("NonZero", [above], f"{name}.nz")], f"{name}.at")
        found.append(net.op("GatherND", [one, where], f"{name}.found"))
    net.op("Concat", found, "best", axis=0)
    return finished(net, best=TensorProto.FLOAT)


def open_rows() -> ModelProto:
    """torchvision's RetinaNet: the number of boxes of a map is computed while the model runs."""
    net = Net()
    net.maps()
    turned = net.op("Transpose", [branches(net, CLASSES, "cls")], "turned", perm=[0, 2, 1])
    many = net.op("Shape", [net.op("NonZero", ["x"], "places")], "shape")
    many = net.op("Gather", [many, net.integers("one", 1)], "many", axis=0)
    rows = net.op("Slice", [turned, net.integers("zero", 0), many, "one"], "rows")
    line = net.reshape(net.op("Sigmoid", [rows], "values"), "line", -1)
    where = net.op("NonZero", [net.op("Greater", [line, net.number("least", 0.5)], "above")], "nz")
    net.op("Gather", [line, where], "best", axis=0)
    return finished(net, best=TensorProto.FLOAT)


def looped() -> ModelProto:
    """TensorFlow's object detection, converted by tf2onnx: a Loop over the images."""
    net = Net()
    values(net)
    body = helper.make_graph(
        [
            node("Identity", ["go"], ["goes"], "goes"),
            node("Gather", ["values", "i"], ["picture"], "picture", axis=0),
            node("ReduceMax", ["picture"], ["largest"], "largest", axes=[0], keepdims=0),
        ],
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("go", 9))],
        [helper.make_tensor_value_info(n, t, None) for n, t in (("goes", 9), ("largest", 1))],
    )
    ends = [net.constant("times", np.int64(1)), net.constant("start", np.array(True))]
    net.nodes.append(node("Loop", ends, ["best"], "pictures", body=body))
    return finished(net, best=TensorProto.FLOAT)


def of_no_known_shape() -> Graph:
    b = Builder()
    z = b.dense(b.feed("x", None, 3, 4), CLASSES, "fc")
    odd = b.node(Opaque(), [z], None, "odd")
    late = b.node(Activation("sigmoid"), [odd], None, "late")
    b.node(Opaque(), [late], None, "rows")
    return b.graph("rows")


def in_a_branch(*, returned: bool = False) -> ModelProto:
    """torchvision's `batched_nms`: a branch for the case that there is no box."""
    net = Net()
    values(net)
    box = net.op("Transpose", [branches(net, 4, "box")], "corners", perm=[0, 2, 1])
    ends = [helper.make_tensor_value_info("s", TensorProto.INT64, None)]
    some = node("NonMaxSuppression", [box, "values"], ["s"], "nms")
    none = node("Constant", [], ["s"], value=numpy_helper.from_array(np.zeros((0, 3), np.int64)))
    branch = {
        name: helper.make_graph([each], name, [], ends)
        for name, each in (("then_branch", some), ("else_branch", none))
    }
    largest = net.op("ReduceMax", [box], "largest", keepdims=0)
    net.op("Greater", [largest, net.number("nothing", 0)], "any")
    net.nodes.append(node("If", ["any"], ["selected"], "found", **branch))
    if returned:
        return finished(net, selected=TensorProto.INT64)
    net.op("Gather", ["selected", net.constant("two", np.int64(2))], "places", axis=1)
    return finished(net, places=TensorProto.INT64)


def arithmetic_with_class_indices() -> ModelProto:
    model = suppressed()
    model.graph.node.append(node("Add", ["number", "number"], ["twice"], "twice"))
    model.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.INT64, (None,)))
    return model


def divided_by_another_number() -> ModelProto:
    model = end_to_end()
    (count,) = (each for each in model.graph.initializer if each.name == "count")
    count.CopyFrom(numpy_helper.from_array(np.array(CLASSES + 1), "count"))
    return model


def softmax_before_a_join_with_boxes() -> ModelProto:
    net = Net()
    net.maps()
    cls = net.op("Softmax", [branches(net, CLASSES, "cls")], "shares", axis=1)
    net.op("Concat", [branches(net, 4, "box"), cls], "y", axis=1)
    return net.model(y=(1, 4 + CLASSES, sum(size**2 for size in SIZES)))


def opened(model: ModelProto) -> Graph:
    return from_proto(model, "detector.onnx").graph()


def tflite_softmax_for_each_map() -> Graph:
    content = tflite_ssd(activation="SOFTMAX", apart=True).content(*ROWS)
    return from_bytes(content, "ssd.tflite").graph()


MADE = " (of '{}', from which rows are computed)"

UNFOLLOWED: Mapping[str, tuple[Callable[[], Graph], str, str]] = {
    "class by class": (
        lambda: opened(class_by_class()),
        "Gather 'class1.s': it selects units by position" + MADE.format("values"),
        RAW,
    ),
    "a computed number of rows": (
        lambda: opened(open_rows()),
        "Gather 'best': it selects rows at computed positions",
        "",
    ),
    "a loop": (
        lambda: opened(looped()),
        "Loop 'pictures': it contains graphs, which exporter does not trace",
        "",
    ),
    "class values of no known shape": (
        of_no_known_shape,
        "Activation 'late': the shape of its result is not known before the model runs"
        + MADE.format("late"),
        RAW,
    ),
    "a branch": (
        lambda: opened(in_a_branch()),
        "Choice 'found/0': it computes with class indices, which a cut changes",
        RAW,
    ),
    "arithmetic with class indices": (
        lambda: opened(arithmetic_with_class_indices()),
        "Add 'twice': it computes with class indices, which a cut changes",
        RAW,
    ),
    "positions are divided by another number": (
        lambda: opened(divided_by_another_number()),
        "Mod 'kind': it divides positions by a number other than the number of units",
        RAW,
    ),
    "a softmax for each map": (
        lambda: opened(ssd("Softmax", apart=True)),
        "it mixes the units of only one input of Concat 'scores'",
        JOINED,
    ),
    "a softmax before a join with boxes": (
        lambda: opened(softmax_before_a_join_with_boxes()),
        "Softmax 'shares': it mixes the units of only one input of Concat 'y'",
        "export the model without it",
    ),
    "a softmax for each map, TFLite": (
        tflite_softmax_for_each_map,
        "SOFTMAX 'score0': it mixes the units of only one input of CONCATENATION 'scores'",
        JOINED,
    ),
}


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_the_refusing_operation_is_named_with_a_hint(name: str) -> None:
    build, reason, hint = UNFOLLOWED[name]
    found = trace(build())
    assert not found.heads
    with_hint = [each for each in found.refusals if each.hint]
    assert {each.hint for each in with_hint} == ({hint} if hint else set())
    assert reason in str((with_hint or found.refusals)[0])


def test_an_operation_is_named_once() -> None:
    (refusal,) = trace(opened(in_a_branch(returned=True))).refusals
    assert str(refusal).count("'found/0'") == 1
    assert refusal.hint == RAW


@pytest.mark.parametrize(
    ("made", "head"),
    [(suppressed(shared_out=True), "selected"), (end_to_end(), None)],
    ids=["suppressed", "ranked in line"],
)
def test_classes_of_a_detector_are_not_merged(made: ModelProto, head: str | None) -> None:
    model = from_proto(made, "detector.onnx")
    with pytest.raises(ModelError, match="makes rows of one class each"):
        plan_cut(model, CutOptions(keep=[0], merge={"group": [1, 2]}, head=head))


def test_boxes_are_a_head_only_if_named_or_labeled() -> None:
    found = trace(opened(boxes_alone()))
    with pytest.raises(UsageError, match="whose 4 values in each row may be a box"):
        found.head()
    assert found.head("boxes").units == 4
    labeled = boxes_alone()
    labeled.metadata_props.add(key="names", value=repr(["ant", "bee", "cat", "dog"]))
    assert trace(opened(labeled)).head().name == "boxes"


# --- on the command line -------------------------------------------------------------------------


def raw_maps() -> ModelProto:
    net = Net()
    anchored(net, 0, net.maps()[0])
    return net.model(raw0=(1, ANCHORS, SIZES[0], SIZES[0], 5 + CLASSES))


def scrambled() -> ModelProto:
    """Channels and positions are not transposed."""
    net = Net()
    net.reshape(net.conv(net.maps()[0], 5 + CLASSES, "m"), "y", 16, 5 + CLASSES, 1)
    return net.model(y=(16, 5 + CLASSES, 1))


def boxes_alone() -> ModelProto:
    """The classes are refused, and boxes look like a head."""
    net = Net()
    each = net.op("Transpose", [values(net)], "scores", perm=[0, 2, 1])
    net.op("ReduceMean", [each], "best", axes=[2], keepdims=0)
    box = net.op("Sigmoid", [branches(net, 4, "box")], "box.s")
    net.op("Transpose", [box], "boxes", perm=[0, 2, 1])
    count = sum(size**2 for size in SIZES)
    return net.model(boxes=(1, count, 4), best=(1, count))


FILES: Mapping[str, Callable[[], bytes]] = {
    "raw.onnx": lambda: raw_maps().SerializeToString(),
    "scrambled.onnx": lambda: scrambled().SerializeToString(),
    "background.onnx": lambda: boxes_and_classes(*NAMES).to_bytes(),
    "boxes.onnx": lambda: boxes_alone().SerializeToString(),
    "classes.onnx": lambda: class_by_class().SerializeToString(),
    "ssd.tflite": lambda: tflite_ssd().content(*ROWS),
    "maps.tflite": lambda: tflite_ssd(activation="SOFTMAX", apart=True).content(*ROWS),
    "six.txt": lambda: b"a\nb\nc\nd\ne\nf\n",
    "four.txt": lambda: b"a\nb\nc\nd\n",
}

REMOVED = "prune background.onnx -o x.onnx --head classes --remove background"

COMMANDS: Mapping[str, Refusal] = {
    "units that may be boxes": Refusal(
        "prune raw.onnx -o x.onnx --keep 0,1",
        3,
        "no head can be cut: output 'raw0': its 11 values for each anchor may be only classes, or "
        "boxes and objectness too: give --units A:B",
    ),
    "a part that is wider than the labels": Refusal(
        "prune raw.onnx -o x.onnx --keep a --units 4:11 --labels six.txt",
        2,
        "6 labels for 7 units",
    ),
    "a part that is narrower than the labels": Refusal(
        "prune ssd.tflite -o x.tflite --keep a --labels four.txt",
        2,
        "4 labels for 5 units",
    ),
    "the background": Refusal(
        REMOVED,
        4,
        "unit 0, 'background', is the class that a detector returns where there is no object",
        "--allow-remove-special removes it anyway",
    ),
    "a reshape that scrambles boxes and classes": Refusal(
        "prune scrambled.onnx -o x.onnx --keep 0",
        3,
        "no head can be cut: output 'y': Reshape 'y': it spreads the units over several axes, or "
        "mixes them with the batch",
    ),
    "boxes that look like units": Refusal(
        "prune boxes.onnx -o x.onnx --keep 0,1",
        2,
        "the only head is 'boxes', whose 4 values in each row may be a box; refused is output "
        "'best': ReduceMean 'best': it mixes the units",
        "--head boxes cuts it anyway",
    ),
    "a post-process that selects classes one by one": Refusal(
        "prune classes.onnx -o x.onnx --keep 0,1",
        3,
        "no head can be cut: output 'best': Gather 'class1.s': it selects units by position",
        RAW,
    ),
    "a softmax for each map": Refusal(
        "prune maps.tflite -o x.tflite --keep 0,1", 3, "no head can be cut: output", JOINED
    ),
    "a group of classes": Refusal(
        "prune ssd.tflite -o x.tflite --keep 0 --merge group=1,2",
        3,
        "TFLite_Detection_PostProcess 'boxes' makes rows of one class each",
        "leave out --merge",
    ),
    "zeros before a post-process": Refusal(
        "prune ssd.tflite -o x.tflite --keep 0 --mode zero",
        3,
        "TFLite_Detection_PostProcess 'boxes' would return removed classes",
        "use --mode slice",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors") / "work"
    folder.mkdir()
    for name, made in FILES.items():
        (folder / name).write_bytes(made())
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_refused(name: str, folder: Path) -> None:
    assert_refused(COMMANDS[name], folder)


def test_inspect_reports_the_refusal(folder: Path) -> None:
    done = exporter("inspect classes.onnx", folder)
    refusal, hint = done.out.splitlines()[-2:]
    assert (done.code, hint) == (0, f"hint: {RAW}")
    assert refusal.startswith("refused: output 'best': Gather 'class1.s': it selects units by")
    (refused_output,) = exporter("inspect classes.onnx --json", folder).record["refused"]
    assert refused_output["hint"] == RAW


def test_the_background_is_removed_if_allowed(folder: Path) -> None:
    done = exporter(f"{REMOVED} --allow-remove-special --samples 2", folder)
    assert done.code == 0, done.err
    assert "2 of 3 units kept" in done.out
    new = set(listing(folder)).difference(FILES)
    assert new == {"x.onnx", "x.onnx.remap.json"}
    for name in new:
        (folder / name).unlink()
