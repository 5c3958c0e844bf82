"""ONNX files: refused when they are opened, or read, named and run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.errors import ModelError, UsageError
from exporter.formats.model import Model, RunOptions
from exporter.formats.onnx import from_bytes, from_proto, open_file
from exporter.graph.edits import AddOutput, Plan
from exporter.graph.operations import Activation, Contraction, Linear, Opaque
from exporter.remap import HeadRemap, Origin, Remap
from tests.builders.onnx_models import classifier, cut, model, node, numbers, proto, run, softmax

X = numbers(3, 6, seed=1)
REMAP = Remap.of_cut(
    Origin("network.onnx", None),
    [
        HeadRemap(
            name="y",
            output="y",
            axis=1,
            mode="slice",
            activation="softmax",
            old_units=9,
            new_units=5,
            kept=(0, 2, 4, 6, 8),
            new_to_old=(0, 2, 4, 6, 8),
        )
    ],
)


# --- refused --------------------------------------------------------------------------------------


def altered(change: Callable[[ModelProto], object]) -> bytes:
    source = ModelProto()
    source.CopyFrom(classifier().proto)
    change(source)
    content: bytes = source.SerializeToString()
    return content


def external(source: ModelProto) -> None:
    tensor = source.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def external_inside_a_branch(source: ModelProto) -> None:
    info = helper.make_tensor_value_info("s", TensorProto.FLOAT, [5])
    branch = helper.make_graph([node("Neg", ["w"], ["s"])], "branch", [], [info])
    tensor = branch.initializer.add(name="w", data_type=1, dims=[5])
    tensor.data_location = TensorProto.EXTERNAL
    source.graph.node.append(
        node("If", ["x"], ["o"], "choice", then_branch=branch, else_branch=branch)
    )


WHOLE = classifier().to_bytes()
BROKEN = {
    "empty": (b"", "network.onnx is empty"),
    "text": (b"hello, world\n", "not an ONNX file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "not an ONNX"),
    "flatbuffer": (b"\x1c\0\0\0TFL3" + bytes(99), "not an ONNX"),
    "zeros": (bytes(64), "not an ONNX"),
    "saved model": (b"\x08\x01\x12\x04\x0a\x02\x08\x01", "no graph"),
    "another message": (TensorProto(name="t", data_type=1).SerializeToString(), "not an ONNX"),
    **{
        f"cut to {n} bytes": (WHOLE[:n], "not an ONNX file|no graph|opset")
        for n in (1, 2, 10, 40, len(WHOLE) // 2, len(WHOLE) - 7, len(WHOLE) - 1)
    },
    "text that is not UTF-8": (WHOLE.replace(b"kernel", b"ker\xffel"), "not valid UTF-8"),
    "no output": (altered(lambda m: m.graph.ClearField("output")), "no graph with an output"),
    "no opset": (altered(lambda m: m.ClearField("opset_import")), "no standard opset"),
    "weights outside": (
        altered(external),
        "'kernel' is stored in 'weights.bin', which cannot be read",
    ),
    "weights outside, in a branch": (
        altered(external_inside_a_branch),
        "'w' is stored in '', which is not a path",
    ),
    "read from nowhere": (
        altered(lambda m: m.graph.node.pop(0)),
        "Softmax 'softmax' reads 'z', which no node before it makes",
    ),
    "cycle": (
        altered(lambda m: m.graph.node[0].input.__setitem__(0, "y")),
        "Gemm 'gemm' reads a tensor that depends on its output",
    ),
    "made twice": (
        altered(lambda m: m.graph.node.append(m.graph.node[0])),
        "Gemm 'gemm#2' makes 'z' a second time",
    ),
    "two constants of one name": (
        altered(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "two constants are named 'kernel'",
    ),
    "output of nothing": (
        altered(lambda m: m.graph.output.add(name="other")),
        "no node makes the output 'other'",
    ),
    "remap that is no JSON": (
        altered(lambda m: m.metadata_props.add(key="exporter.remap", value="{")),
        "network.onnx: the remap is not valid JSON",
    ),
}


OTHERS = [classifier(node("Flatten", ["z"], ["y"], "flatten")).to_bytes()]
OTHERS.append(
    classifier(
        node("Reshape", ["z", "to"], ["r"]),
        node("Softmax", ["r"], ["y"]),
        constants={"to": np.array([-1, 1, 5])},
    ).to_bytes()
)


def test_damaged_bytes_are_refused_or_harmless() -> None:
    """Any exception but a ModelError fails the test."""
    random = np.random.default_rng(0)
    refused = []
    for source in (WHOLE, *OTHERS) * 150:
        content = bytearray(source)
        for place in random.integers(0, len(content), size=random.integers(1, 4)):
            content[place] = random.integers(0, 256)
        try:
            cut(from_bytes(bytes(content), "network.onnx"), [0, 2])
        except ModelError as error:
            refused.append(error.message)
    assert len(refused) > 200
    assert not any("\n" in message for message in refused)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    path = tmp_path / "network.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        open_file(path)
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    assert path.read_bytes() == content


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.onnx: No such file"):
        open_file(tmp_path / "none.onnx")


def test_constant_that_is_shorter_than_its_shape() -> None:
    content = altered(lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234"))
    (read,) = (
        t.read for t in from_bytes(content, "n").graph().tensors.values() if t.name == "kernel"
    )
    assert read is not None
    with pytest.raises(
        ModelError, match=r"values of constant 'kernel' do not fit its shape \[6, 5\]"
    ):
        read()


def test_onnxruntime_errors_name_the_model(capfd: pytest.CaptureFixture[str]) -> None:
    strange = node("Strange", ["x"], ["y"], domain="own")
    source = proto([strange], {}, outputs={"y": [3, 6]})
    source.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(ModelError, match=r"cannot load network\.onnx: .*Strange") as caught:
        from_proto(source, "network.onnx").runner(RunOptions())
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


FEEDS = {
    "another shape": {"x": X[:, :4]},
    "another dtype": {"x": X.astype(np.float64)},
    "nothing": {},
    "another name": {"x": X, "w": X},
}


@pytest.mark.parametrize("name", FEEDS)
def test_wrong_feeds(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    runner = classifier().runner(RunOptions())
    with pytest.raises(ModelError, match=r"cannot run network\.onnx: ") as caught:
        runner(FEEDS[name])
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_lengths_that_the_network_does_not_take_can_be_stated() -> None:
    add = node("Add", ["x", "b"], ["y"])
    source = proto([add], {"b": X[0]}, x=("n", "length"), outputs={"y": ["n", 6]})
    with pytest.raises(ModelError, match=r"cannot run network\.onnx: ") as caught:
        from_proto(source, "network.onnx").runner(RunOptions())({"x": X[:, :4]})
    assert caught.value.hint == "if the network needs other lengths: --input-shape x=3,?"


# --- read -----------------------------------------------------------------------------------------


def test_file_opens_writes_and_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "network.bin"
    path.write_bytes(WHOLE)
    opened: Model = open_file(path)
    assert (opened.kind, opened.name, opened.precision) == ("onnx", "network.bin", "fp32")
    assert opened.sha256 == hashlib.sha256(WHOLE).hexdigest()
    assert opened.remap is None
    opened.write(tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == WHOLE
    runner = opened.runner(RunOptions(threads=2))
    assert runner.engine.startswith("onnxruntime 1.")
    expected = softmax(X @ numbers(6, 5) + numbers(5))
    for rows in (1, 3):
        np.testing.assert_allclose(runner({"x": X[:rows]})["y"], expected[:rows], atol=1e-6)
    assert capfd.readouterr() == ("", "")


def test_remap_is_stored_in_the_metadata() -> None:
    again = from_bytes(classifier().apply(Plan((), REMAP)).to_bytes(), "cut.onnx")
    assert again.remap == REMAP
    assert again.apply(Plan((AddOutput("z", "z"),))).remap == REMAP
    replaced = again.apply(Plan((), REMAP)).proto.metadata_props
    assert [entry.key for entry in replaced] == ["exporter.remap"]


def test_graph_of_a_classifier() -> None:
    graph = classifier().graph()
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))
    gemm, last = graph.nodes
    sums = Contraction(data=0, input_axis=1, kernel_axis=0)
    linear = Linear(1, kernel_axis=1, output_axis=1, bias=2, contraction=sums)
    assert gemm.operation == linear
    assert last.operation == Activation("softmax", axis=1)
    assert str(gemm) == "Gemm 'gemm'"
    assert {name: tensor.shape for name, tensor in graph.tensors.items()} == {
        "x": (None, 6),
        "kernel": (6, 5),
        "bias": (5,),
        "z": (None, 5),
        "y": (None, 5),
    }
    assert {tensor.dtype for tensor in graph.tensors.values()} == {"float32"}


def test_names_are_made_unique() -> None:
    chain = ["z", "a", "b", "c", "y"]
    names = ["", "same", "same", ""]
    steps = [
        node("Relu", [i], [o], name)
        for i, o, name in zip(chain, chain[1:], names, strict=False)  # pairs of neighbors
    ]
    opened = classifier(*steps)
    assert [n.name for n in opened.graph().nodes] == ["gemm", "#1", "same", "same#3", "#4"]
    assert [n.name for n in opened.proto.graph.node] == ["gemm", "", "same", "same", ""]


def test_absent_input_and_absent_output() -> None:
    clip = node("Clip", ["z", "", "high"], ["c"], "clip")
    drop = node("Dropout", ["c"], ["y", ""], "drop")
    opened = classifier(clip, drop, constants={"high": np.array(1, np.float32)})
    graph = opened.graph()
    assert graph.nodes[1].inputs == ("z", "", "high")
    assert graph.nodes[1].operation == Activation("clip", parameters=(("max", 1.0),))
    assert graph.nodes[2].outputs == ("y", "")
    run(opened, {"x": X})


def test_tensor_read_in_a_branch_is_an_input_of_the_node() -> None:
    info = helper.make_tensor_value_info("s", TensorProto.FLOAT, [5])
    inner = helper.make_graph([node("Neg", ["bias"], ["s"])], "inner", [], [info])
    chosen = node("If", ["yes"], ["s"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph([chosen], "outer", [], [info])
    choice = node("If", ["yes"], ["o"], "choice", then_branch=outer, else_branch=outer)
    softmax_ = node("Softmax", ["z"], ["y"])
    constants = {"yes": np.array(True)}
    opened = classifier(softmax_, choice, constants=constants, outputs={"y": None, "o": [5]})
    found = [each for each in opened.graph().nodes if each.operator == "If"]  # the inner ones
    assert [each.inputs for each in found] == [("yes", "bias")] * 2  # then of branches
    assert all(isinstance(each.operation, Opaque) for each in found)


def test_initializers_that_are_inputs_too_are_constants() -> None:
    opened = classifier(ir=3, opset=9)
    assert len(opened.proto.graph.input) == 3
    assert opened.graph().inputs == ("x",)
    assert opened.graph().tensors["kernel"].is_constant


def test_shape_that_is_not_inferred_is_unknown() -> None:
    strange = node("Strange", ["x"], ["s"], domain="own")
    opened = from_proto(proto([strange, node("Ceil", ["s"], ["y"])], {}, outputs={"y": [3]}), "n")
    tensor = opened.graph().tensors["s"]
    assert (tensor.shape, tensor.dtype) == (None, "undefined")


def test_stated_shapes_are_completed_by_inference() -> None:
    opened = classifier(outputs={"y": [None, None]})
    assert opened.graph().shape("y") == (None, 5)


def test_shapes_computed_in_the_graph_are_known() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "first"], ["batch"]),
        node("Concat", ["batch", "rest"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["y"]),
    ]
    constants = {"first": np.array([0]), "rest": np.array([3, 2])}
    assert model(nodes, constants).graph().shape("y") == (None, 3, 2)


def test_large_constants_do_not_hinder_inference() -> None:
    k = numbers(6, 700)
    held = node("Constant", [], ["l"], "held", value=numpy_helper.from_array(numbers(700, 9), "t"))
    nodes = [held, node("MatMul", ["x", "k"], ["m"]), node("MatMul", ["m", "l"], ["y"])]
    graph = model(nodes, {"k": k}, outputs={"y": [None, 9]}).graph()
    assert graph.shape("m") == (None, 700)
    assert graph.inputs == ("x",)
    assert [n.operator for n in graph.nodes] == ["MatMul", "MatMul"]


def dequantized(dtype: str) -> ModelProto:
    quantized = numpy_helper.to_array(
        helper.make_tensor("k", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [1], [1])
    )
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = {"scale": np.array([1], np.float32), "zero": quantized}
    return proto(nodes, constants, outputs={"y": [3]}, opset=23, ir=11)


def test_nodes_out_of_order_are_sorted() -> None:
    """onnxruntime's converter to float16 appends the casts of the inputs at the end."""
    turned = altered(lambda m: m.graph.node.append(m.graph.node.pop(0)))
    before = from_bytes(turned, "network.onnx")
    assert [n.op_type for n in before.proto.graph.node] == ["Gemm", "Softmax"]
    x = numbers(3, 6, seed=1)
    expected = run(classifier(), {"x": x})["y"]
    np.testing.assert_array_equal(run(before, {"x": x})["y"], expected)
    kept = expected[:, [0, 2]] / expected[:, [0, 2]].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(cut(before, [0, 2]), {"x": x})["y"], kept, atol=1e-6)


PRECISIONS: Mapping[str, ModelProto] = {
    "fp32": classifier().proto,
    "fp16": proto(
        [
            node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
            node("MatMul", ["h", "k"], ["m"]),
            node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
        ],
        {"k": numbers(6, 5).astype(np.float16), "unused": numbers(2)},
    ),
    "int8": dequantized("uint8"),
    "int16x8": dequantized("int16"),
    "fp8": dequantized("float8_e4m3fn"),
    "fp4": dequantized("float4_e2m1fn"),
    "dynamic": proto([node("DynamicQuantizeLinear", ["x"], ["y", "s", "o"])], {}),
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_precision(name: str) -> None:
    assert from_proto(PRECISIONS[name], "n").precision == name
