"""`--bisect` names the first tensor that differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporter
from exporter.data.samples import Samples
from exporter.formats.tflite import from_bytes
from exporter.graph import Array, Use
from exporter.graph.edits import Plan, Replace
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.verification.bisect import first_difference
from exporter.verification.roles import ModelPair
from exporter.verification.verify import VerifyOptions
from tests.builders import onnx_models as onnx
from tests.builders.commands import exporter as run_command
from tests.builders.tflite_builder import Builder

KEPT = (0, 1, 3)


def onnx_net(hidden: int = 8) -> Any:
    constants = {
        "first": onnx.numbers(6, hidden, seed=1),
        "shift": onnx.numbers(hidden, seed=1),
        "kernel": onnx.numbers(hidden, 5, seed=2),
        "bias": onnx.numbers(5, seed=2),
    }
    nodes = [
        onnx.node("Gemm", ["x", "first", "shift"], ["h"], "hidden"),
        onnx.node("Relu", ["h"], ["f"], "relu"),
        onnx.node("Gemm", ["f", "kernel", "bias"], ["z"], "head"),
        onnx.node("Softmax", ["z"], ["y"], "softmax"),
    ]
    return onnx.model(nodes, constants)


def tflite_net() -> Any:
    builder = Builder()
    x = builder.feed("x", 1, 6)
    builder.dense(x, 8, "h")
    builder.op("RELU", ["h"], (1, 8), "f")
    builder.dense("f", 5, "z")
    builder.softmax("z", "y")
    return from_bytes(builder.content("y"), "net.tflite")


NETS = {"onnx": (onnx_net, "shift", "bias"), "tflite": (tflite_net, "h/bias", "z/bias")}


def files(folder: Path, kind: str, constant: int, mode: str = "slice") -> tuple[Path, Path]:
    """The original, and a cut in which the shift of a layer is off by 0.5 in one entry."""
    build, *names = NETS[kind]
    net, original, bad = build(), folder / f"net.{kind}", folder / f"bad.{kind}"
    net.write(original)
    pruned = prune_model(net, CutOptions(keep=KEPT, mode=mode), Job(samples=2)).model
    tensor = pruned.graph().tensors[names[constant]]
    assert tensor.read is not None
    values: Array = tensor.read().copy()
    values[1] += 0.5
    uses = tuple(Use(n.name, slot) for n, slot in pruned.graph().consumers[tensor.name])
    pruned.apply(Plan((Replace(tensor.name, values, uses),), pruned.remap)).write(bad)
    return original, bad


@pytest.mark.parametrize("mode", ["slice", "zero", "mask"])
@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("kind", NETS)
def test_the_first_tensor_that_differs(tmp_path: Path, kind: str, constant: int, mode: str) -> None:
    tensor, equal = [("h", 0), ("z", 2)][constant]
    report = exporter.verify(*files(tmp_path, kind, constant, mode), bisect=True)
    assert not report.ok
    (found,) = report.first_differences
    assert (found.tensor, found.equal) == (tensor, equal)
    assert found.place[-1] == 1
    assert found.expected is not None
    assert found.actual == pytest.approx(found.expected + 0.5, rel=1e-4)


def test_a_difference_after_the_logits(tmp_path: Path) -> None:
    """The tail of the cut file computes something else."""
    net = onnx_net()
    net.write(tmp_path / "net.onnx")
    pruned: Any = prune_model(net, CutOptions(keep=KEPT), Job(samples=2)).model
    last = pruned.proto.graph.node[-1]
    assert last.op_type == "Softmax"
    last.op_type = "LogSoftmax"
    pruned.write(tmp_path / "bad.onnx")
    report = exporter.verify(tmp_path / "net.onnx", tmp_path / "bad.onnx", bisect=True)
    (found,) = report.first_differences
    assert (found.tensor, found.equal) == ("", 3)


def test_values_that_are_not_finite_differ(tmp_path: Path) -> None:
    original, bad = files(tmp_path, "onnx", 0)
    net = exporter.open_model(bad)
    uses = tuple(Use(n.name, slot) for n, slot in net.graph().consumers["shift"])
    broken = np.full(8, np.nan, np.float32)
    net.apply(Plan((Replace("shift", broken, uses),), net.remap)).write(bad)
    (found,) = exporter.verify(original, bad, bisect=True).first_differences
    assert (found.tensor, found.actual) == ("h", None)


def test_a_quantized_file_differs_where_noise_exceeds_the_signal(tmp_path: Path) -> None:
    original, bad = files(tmp_path, "onnx", 1)
    options: Any = {"quantized_to": "int8", "bisect": True, "min_sqnr": 200.0}
    (found,) = exporter.verify(original, bad, **options).first_differences
    assert found.tensor == "", "half a logit is less than the noise of a good int8 file may be"


def test_tensors_of_another_shape_are_passed_over() -> None:
    """A hidden layer of another width, and a file whose head is not cut as its table says."""
    net, wider = onnx_net(), onnx_net(hidden=9)
    samples = Samples({"x": onnx.numbers(2, 1, 6, seed=5)}, "made here")
    options = VerifyOptions(samples)
    found = first_difference(ModelPair("cut", net, wider), (), 0, options)
    assert (found.tensor, found.equal) == ("z", 0), "h and f have other shapes"
    tables = plan_cut(net, CutOptions(keep=KEPT)).remap.heads
    uncut = first_difference(ModelPair("cut", net, net), tables, 0, options)
    assert (uncut.tensor, uncut.equal) == ("", 2), "z has another width"


def test_bisect_as_a_command(tmp_path: Path) -> None:
    files(tmp_path, "onnx", 0)
    done = run_command("verify net.onnx bad.onnx --bisect -q", tmp_path)
    assert done.code == 1
    text = " ".join(done.out.split())
    assert "bad.onnx: the first tensor that differs is 'h', of Gemm 'hidden': at [0, 1] it" in text
    passed = run_command("verify net.onnx net.onnx --bisect --json -q", tmp_path)
    assert (passed.code, passed.record["first_differences"]) == (0, [])
