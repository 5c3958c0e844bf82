"""Hostile and damaged model files, as whole commands: one line, exit 3 or 5, nothing written."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.builders.commands import Done, exporter, leftover_files

pytestmark = pytest.mark.usefixtures("isolated_libraries")

PRUNE = "prune {} --keep 0,2 -o out{} --timeout 5"


def _network(
    *nodes: onnx.NodeProto,
    functions: list[onnx.FunctionProto] | None = None,
    outputs: tuple[str, ...] = ("y",),
) -> bytes:
    """x (1, 4) times a kernel (4, 6) is z; the nodes make the outputs of z."""
    kernel = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "kernel"], ["z"]), *nodes],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 6]) for name in outputs],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=functions or [])
    model.ir_version = 9
    return bytes(model.SerializeToString())


def _function(name: str, *calls: str) -> onnx.FunctionProto:
    nodes, last = [], "a"
    for i, call in enumerate(calls):
        nodes.append(helper.make_node(call, [last], [f"t{i}"], domain="own"))
        last = f"t{i}"
    nodes.append(helper.make_node("Identity", [last], ["b"]))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], ["b"], nodes, imports)


def _endless_loop() -> bytes:
    """A Loop that adds 0 to z for ever; its condition is computed from the input."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [1, 6]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [1, 6]),
        ],
    )
    yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    loop = helper.make_node("Loop", ["", "yes", "unused"], ["looped"], body=body)
    zero = helper.make_node(
        "Constant", [], ["unused"], value=numpy_helper.from_array(np.zeros((1, 6), np.float32))
    )
    same = helper.make_node("Identity", ["z"], ["y"])
    return _network(yes, zero, loop, same, outputs=("y", "looped"))


def _huge_constant() -> bytes:
    """A ConstantOfShape of 10^9 values, which shape inference would compute."""
    length = numpy_helper.from_array(np.array([10**9]))
    zero = numpy_helper.from_array(np.array([0]))
    return _network(
        helper.make_node("Constant", [], ["length"], value=length),
        helper.make_node("ConstantOfShape", ["length"], ["zeros"], value=zero),
        helper.make_node("Constant", [], ["first"], value=zero),
        helper.make_node("Gather", ["zeros", "first"], ["shift"]),
        helper.make_node("Cast", ["shift"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["z", "real"], ["y"]),
    )


def _unknown_operator_set() -> bytes:
    model = onnx.ModelProto.FromString(_network(helper.make_node("Relu", ["z"], ["y"])))
    model.opset_import[0].version = 2**31  # does not fit in the type that libraries use
    return bytes(model.SerializeToString())


def _archive(config: Callable[[], bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", b"{}")
        archive.writestr("config.json", config())
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    return content.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a function that calls itself": (
        ".onnx",
        lambda: _network(
            helper.make_node("A", ["z"], ["y"], domain="own"),
            functions=[_function("A", "B"), _function("B", "A")],
        ),
        "the function 'A' calls itself",
    ),
    "2^30 nodes in 30 functions": (
        ".onnx",
        lambda: _network(
            helper.make_node("F0", ["z"], ["y"], domain="own"),
            functions=[
                *(_function(f"F{i}", f"F{i + 1}", f"F{i + 1}") for i in range(29)),
                _function("F29"),
            ],
        ),
        "has more than 1000000 nodes when its functions are expanded",
    ),
    "a loop without end": (".onnx", _endless_loop, "onnxruntime running net.onnx took longer"),
    "a tensor of 10^9 values": (".onnx", _huge_constant, "shape inference needs more than"),
    "an operator set that does not exist": (
        ".onnx",
        _unknown_operator_set,
        "comparing the structure of net.onnx failed",
    ),
    "an archive that unpacks to 64 MB": (
        ".keras",
        lambda: _archive(lambda: b'{"a": "' + bytes(64 << 20) + b'"}'),
        "config.json unpacks from",
    ),
    "a class that is not text": (
        ".keras",
        lambda: _archive(lambda: json.dumps({"class_name": {"a": 1}, "config": {}}).encode()),
        "",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_file(name: str, tmp_path: Path) -> None:
    suffix, content, message = FILES[name]
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / f"net{suffix}").write_bytes(content())
    done = exporter(PRUNE.format(f"net{suffix}", suffix), folder)
    _check(done)
    assert message in done.err
    assert [path.name for path in folder.iterdir()] == [f"net{suffix}"]
    assert not leftover_files(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    """Reading it would wait for a writer for ever."""
    folder = tmp_path / "work"
    folder.mkdir()
    os.mkfifo(folder / "net.onnx")
    done = exporter(PRUNE.format("net.onnx", ".onnx"), folder)
    assert done.code == 2
    assert "'net.onnx' is a pipe and no regular file" in done.err


def _check(done: Done) -> None:
    assert done.code in {3, 5}, done.err
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1


CASES = Path(__file__).parents[3] / "shared" / "cases" / "reliability"
DAMAGED = sorted(
    path
    for kind in ("onnx", "tflite", "ext", "attacks")
    for path in (CASES / kind).rglob("*.*")
    if path.suffix in {".onnx", ".tflite"}
)


# Only the output shape that these files state is wrong. onnxruntime runs them with the real one.
RUNNABLE = {
    "bug-modes_tail.py_taken_63",
    "bug-trace___init__.py_trace_axis_214",
    "bug-trace_sharing.py_parts_of_99",
    "bug-verification_pairing.py__apart_177",
}


@pytest.mark.skipif(not DAMAGED, reason="no folder of damaged files")
@pytest.mark.parametrize("path", DAMAGED, ids=lambda path: path.parent.name)
def test_damaged_file(path: Path, tmp_path: Path) -> None:
    """Damaged files that once ended in a traceback, a crash or a hang."""
    folder = tmp_path / "work"
    folder.mkdir()
    done = exporter(PRUNE.format(path, path.suffix), folder)
    if path.parent.name in RUNNABLE:
        assert done.code == 0, done.err
        assert "Proof  proved" in done.out
        assert "to match the original" in done.out
        return
    _check(done)
    assert not list(folder.iterdir())


def test_debug_prints_the_traceback_of_a_damaged_file(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    suffix, content, _ = FILES["a class that is not text"]
    (folder / f"net{suffix}").write_bytes(content())
    done = exporter(f"inspect net{suffix} --debug", folder)
    assert done.code == 3
    assert "Traceback" in done.err
