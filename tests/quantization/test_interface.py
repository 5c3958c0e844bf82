"""Integer or float, for each input and output of a quantized file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper

from exporter.data.samples import Samples
from exporter.errors import ModelError, UsageError
from exporter.formats.model import Model
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.quantization import QuantizationSpec
from exporter.quantization.interface import integer_ends
from exporter.quantization.quantize import quantize_model
from tests.builders.commands import Done, exporter
from tests.builders.onnx_models import node, numbers, proto, softmax
from tests.builders.tflite_builder import Builder

KINDS = ("onnx", "tflite")
LEFT, RIGHT = numbers(40, 1, 6, seed=1), numbers(40, 1, 4, seed=2)
A, B = numbers(6, 5, seed=3), numbers(4, 5, seed=4)
BIAS = numbers(5)


def succeeded(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def two_ends(kind: str) -> Model:
    """left [1, 6] and right [1, 4] -> logits z [1, 5] and probabilities y [1, 5]."""
    if kind == "onnx":
        nodes = [
            node("Gemm", ["x", "a", "bias"], ["p"], "left product"),
            node("Gemm", ["right", "b", "bias"], ["q"], "right product"),
            node("Add", ["p", "q"], ["z"], "sum"),
            node("Softmax", ["z"], ["y"], "softmax", axis=1),
        ]
        constants = {"a": A, "b": B, "bias": BIAS}
        made = proto(nodes, constants, x=(1, 6), outputs={"z": (1, 5), "y": (1, 5)})
        made.graph.input.append(helper.make_tensor_value_info("right", TensorProto.FLOAT, (1, 4)))
        return from_proto(made, "network.onnx")
    builder = Builder()
    ends = []
    for name, kernel in (("x", A), ("right", B)):
        x = builder.feed(name, 1, len(kernel))
        held = builder.constant(f"{name}/k", kernel.T), builder.constant(f"{name}/b", BIAS)
        operands = [x, *held]
        ends.append(
            builder.op("FULLY_CONNECTED", operands, (1, 5), f"{name}/p", "FullyConnectedOptions")
        )
    builder.softmax(builder.op("ADD", ends, (1, 5), "z", "AddOptions"), "y")
    builder.signature({"x": "x", "right": "right"}, {"z": "z", "y": "y"})
    return from_bytes(builder.content("z", "y"), "net.tflite")


def quantized(kind: str, precision: str = "int8", **ends: Any) -> Model:
    samples = Samples({"x": LEFT, "right": RIGHT}, "points.npz")
    return quantize_model(two_ends(kind), QuantizationSpec(precision, **ends), samples).model


def run(made: Model, feeds: dict[str, Array]) -> dict[str, Array]:
    """The runtime itself on values of the file's dtypes."""
    if isinstance(made, TfliteModel):
        runner = Interpreter(model_content=made.content).get_signature_runner()
        return dict(runner(**feeds))
    assert isinstance(made, OnnxModel)
    session = onnxruntime.InferenceSession(made.to_bytes())
    return dict(zip(("z", "y"), session.run(["z", "y"], feeds), strict=True))


def dtypes(made: Model) -> dict[str, str]:
    graph = made.graph()
    return {name: graph.tensors[name].dtype for name in (*graph.inputs, *graph.outputs)}


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "message", "hint"),
    [
        ({"integer_io": ("rigth",)}, "no input or output 'rigth'", "did you mean 'right'"),
        ({"float_io": ("scores",)}, "no input or output 'scores'", "x, right, z, y"),
        ({"integer_io": True, "float_io": True}, "exclude each other", "exceptions"),
        ({"integer_io": ("x", "y"), "float_io": ("y",)}, "both name 'y'", "one of them"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_names(kind: str, ends: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        quantized(kind, **ends)
    assert hint in error.value.hint


@pytest.mark.parametrize("ends", [{"integer_io": ("x",)}, {"float_io": ("x",)}, {"float_io": True}])
@pytest.mark.parametrize("precision", ["fp16", "dynamic", "int4"])
def test_precisions_with_float_activations(precision: str, ends: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"at {precision} has float inputs and outputs") as error:
        Job(precisions=(precision,), **ends)
    assert error.value.hint == "int8 and int16x8 models can have integer ones"


def test_an_input_of_indices_keeps_its_dtype() -> None:
    builder = Builder()
    ids = builder.feed("ids", 1, 3, dtype="int32")
    builder.op("CAST", [ids], (1, 3), "x", "CastOptions")
    builder.softmax(builder.dense("x", 5, "z"), "y")
    graph = from_bytes(builder.content("y"), "net.tflite").graph()
    with pytest.raises(UsageError, match="'ids' is int32, which quantization does not") as error:
        integer_ends(graph, QuantizationSpec("int8", float_io=("ids",)))
    assert error.value.hint == "name float32 inputs and outputs: y"
    assert integer_ends(graph, QuantizationSpec("int8", integer_io=True)) == {"y"}


@pytest.mark.parametrize(("operator", "end"), [("first", "input 'x'"), ("last", "output 'y'")])
def test_an_end_that_the_library_leaves_float(operator: str, end: str) -> None:
    """litert-quantizer has no rule for an exponential."""
    builder = Builder()
    x = builder.feed("x", 1, 4)
    x = builder.op("EXP", [x], (1, 4), "e", "ExpOptions") if operator == "first" else x
    z = builder.dense(x, 5, "z")
    y = builder.op("EXP", [z], (1, 5), "y", "ExpOptions") if operator == "last" else z
    made = from_bytes(builder.content(y), "net.tflite")
    spec = QuantizationSpec("int8", integer_io=True)
    with pytest.raises(ModelError, match=rf"the {end} of net\.tflite stays float") as error:
        quantize_model(made, spec, Samples({"x": numbers(20, 1, 4)}, "points.npz"))
    assert error.value.hint == "leave it out of --integer-io"


# --- chosen ---------------------------------------------------------------------------------------

CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "none": ({}, set()),
    "all float": ({"float_io": True}, set()),
    "all": ({"integer_io": True}, {"x", "right", "z", "y"}),
    "one input": ({"integer_io": ("right",)}, {"right"}),
    "one output": ({"integer_io": ("y",)}, {"y"}),
    "an input and an output": ({"integer_io": ("x", "z")}, {"x", "z"}),
    "all but one output": ({"integer_io": True, "float_io": ("y",)}, {"x", "right", "z"}),
    "all but the inputs": ({"integer_io": True, "float_io": ("x", "right")}, {"z", "y"}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_input_and_output_is_chosen(kind: str, name: str) -> None:
    """The values are those of a file with float inputs and outputs, quantized by NumPy."""
    ends, integer = CASES[name]
    made, plain = quantized(kind, **ends), quantized(kind)
    dtype = {"onnx": "uint8", "tflite": "int8"}[kind]
    assert dtypes(made) == {
        name: dtype if name in integer else "float32" for name in ("x", "right", "z", "y")
    }
    tensors = made.graph().tensors
    for left, right in zip(LEFT[:10], RIGHT[:10], strict=True):
        feeds = {"x": left, "right": right}
        for end in integer.intersection(feeds):
            known = tensors[end].quantization
            assert known is not None
            feeds[end] = known.quantize(feeds[end]).astype(dtype)
        found, wanted = run(made, feeds), run(plain, {"x": left, "right": right})
        for output in ("z", "y"):
            real = tensors[output].dequantize(found[output])
            assert found[output].dtype == (dtype if output in integer else "float32")
            np.testing.assert_allclose(real, wanted[output], rtol=1e-5, atol=1e-6)
        z = left.astype(np.float64) @ A + right.astype(np.float64) @ B + 2 * BIAS
        assert np.abs(tensors["y"].dequantize(found["y"]) - softmax(z)).max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_int16_activations(kind: str) -> None:
    made = quantized(kind, "int16x8", integer_io=("x",), float_io=("y",))
    assert dtypes(made) == {"x": "int16", "right": "float32", "z": "float32", "y": "float32"}


# --- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_names_the_interface(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"net.{kind}"
    two_ends(kind).write(path)
    np.savez(tmp_path / "data.npz", x=LEFT, right=RIGHT)
    line = f"quantize {path} -o small.{kind} --precision int8 --data data.npz --no-bench"
    plain = succeeded(exporter(f"{line} --json", tmp_path))
    (artifact,) = json.loads(plain.out)["artifacts"]
    assert {end["dtype"] for end in artifact["inputs"] + artifact["outputs"]} == {"float32"}
    line += " --integer-io --float-io z,y --force"
    (artifact,) = json.loads(succeeded(exporter(f"{line} --json", tmp_path)).out)["artifacts"]
    dtype = {"onnx": "uint8", "tflite": "int8"}[kind]
    assert [(end["name"], end["dtype"]) for end in artifact["inputs"] + artifact["outputs"]] == [
        ("x", dtype),
        ("right", dtype),
        ("z", "float32"),
        ("y", "float32"),
    ]
    step = (RIGHT.max() - RIGHT.min()) / 255
    assert artifact["inputs"][1]["scale"] == pytest.approx(step, rel=0.02)
    text = " ".join(succeeded(exporter(line, tmp_path)).out.split())
    assert f"Interface small.{kind} takes x {dtype} (scale " in text
    assert "and returns z float32, y float32" in text


def test_a_wrong_name_is_reported_before_the_work(tmp_path: Path) -> None:
    two_ends("tflite").write(tmp_path / "net.tflite")
    np.savez(tmp_path / "data.npz", x=LEFT, right=RIGHT)
    line = "quantize net.tflite -o q.tflite --precision int8 --data data.npz --integer-io left"
    done = exporter(line, tmp_path)
    assert (done.code, done.err.splitlines()[-2:]) == (
        2,
        [
            "error: there is no input or output 'left'",
            "hint: there are x, right, z, y",
        ],
    )
