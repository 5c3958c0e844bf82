"""Variants with one body: what is in it, who shares it, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import exporter
from exporter.errors import ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.onnx import OnnxModel, from_proto
from tests.builders.onnx_models import node, numbers, proto

BODY, KERNEL, BIAS = numbers(6, 300), numbers(300, 500), numbers(500)
X = numbers(3, 6, seed=1)
Z = np.maximum(X @ BODY, 0) @ KERNEL + BIAS
NODES = [
    node("MatMul", ["x", "body"], ["h"], "first"),
    node("Relu", ["h"], ["r"], "relu"),
    node("Gemm", ["r", "kernel", "bias"], ["y"], "head"),
]
CONSTANTS = {"body": BODY, "kernel": KERNEL, "bias": BIAS}


def inline(folder: Path) -> Path:
    onnx.save(proto(NODES, CONSTANTS), folder / "net.onnx")
    return folder / "net.onnx"


def external(folder: Path, threshold: int = 0) -> Path:
    onnx.save(
        proto(NODES, {**CONSTANTS, "none": np.zeros((0, 4), np.float32)}),
        folder / "net.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=threshold,
    )
    return folder / "net.onnx"


def large(folder: Path) -> Path:
    """A file whose weights are not parsed, and a Constant node."""
    wide, kernel = numbers(6, 60_000), numbers(60_000, 20)
    value = helper.make_attribute("value", numpy_helper.from_array(wide, "inner"))
    constant = NodeProto(op_type="Constant", output=["body"], name="constant")
    constant.attribute.append(value)
    nodes = [constant, *NODES[:2], node("MatMul", ["r", "kernel"], ["y"], "head")]
    onnx.save(proto(nodes, {"kernel": kernel}), folder / "net.onnx")
    return folder / "net.onnx"


def old(folder: Path) -> Path:
    """IR version 3, in which constants are inputs too."""
    onnx.save(proto(NODES, CONSTANTS, opset=8, ir=3), folder / "net.onnx")
    return folder / "net.onnx"


def pruned(path: Path, keep: Sequence[int]) -> OnnxModel:
    model = exporter.prune(path, keep=keep, verify=False).model
    assert isinstance(model, OnnxModel)
    return model


def answers(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("save", [inline, external, old, large])
def test_variants_share_one_file(save: Callable[[Path], Path], tmp_path: Path) -> None:
    path, out = save(tmp_path), tmp_path / "out"
    out.mkdir()
    original = answers(path)
    kept = {"a": [4, 2], "b": [7], "c": list(range(19))}
    for name, keep in kept.items():
        pruned(path, keep).write_sharing(out / f"{name}.onnx")
    (body,) = files(out) - {"a.onnx", "b.onnx", "c.onnx"}
    digest = hashlib.sha256((out / body).read_bytes()).hexdigest()
    assert body == f"body-{digest[:16]}.data"
    for name, keep in kept.items():
        np.testing.assert_allclose(answers(out / f"{name}.onnx"), original[:, sorted(keep)], 1e-5)
        onnx.checker.check_model(out / f"{name}.onnx")
        assert exporter.verify(path, out / f"{name}.onnx", samples=2).ok


def test_the_body_has_what_no_cut_changed(tmp_path: Path) -> None:
    pruned(inline(tmp_path), [1]).write_sharing(tmp_path / "a.onnx")
    (body,) = tmp_path.glob("body-*")
    assert body.read_bytes() == BODY.tobytes()
    model = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    inside = {t.name for t in model.graph.initializer if t.data_location != TensorProto.EXTERNAL}
    assert inside == {"kernel", "bias"}


@pytest.mark.parametrize("save", [inline, old, large])
def test_a_whole_file_has_the_bytes_of_one_that_shares_nothing(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = save(tmp_path)
    pruned(path, [3, 1]).write(tmp_path / "own.onnx")
    pruned(path, [3, 1]).write_sharing(tmp_path / "shared.onnx")
    opened = open_model(tmp_path / "shared.onnx")
    assert isinstance(opened, OnnxModel)
    opened.write_whole(tmp_path / "whole.onnx")
    assert (tmp_path / "whole.onnx").read_bytes() == (tmp_path / "own.onnx").read_bytes()


def test_constants_of_other_files_are_inside_afterwards(tmp_path: Path) -> None:
    path = external(tmp_path)
    expected = answers(path)[:, [3]]
    pruned(path, [3]).write_sharing(tmp_path / "shared.onnx")
    opened = open_model(tmp_path / "shared.onnx")
    assert isinstance(opened, OnnxModel)
    (tmp_path / "alone").mkdir()
    opened.write_whole(tmp_path / "alone" / "whole.onnx")
    np.testing.assert_allclose(answers(tmp_path / "alone" / "whole.onnx"), expected, 1e-5)


def test_another_mode_has_a_body_of_its_own(tmp_path: Path) -> None:
    """Absolute probabilities keep the kernel, so that it is in the body."""
    softmax = [*NODES[:2], node("Gemm", ["r", "kernel", "bias"], ["z"], "head")]
    softmax.append(node("Softmax", ["z"], ["y"], "softmax"))
    path = tmp_path / "net.onnx"
    onnx.save(proto(softmax, CONSTANTS), path)
    expected = answers(path)[:, [1, 2]]
    for name, probabilities in (("a", "renormalized"), ("b", "absolute")):
        made = exporter.prune(path, keep=[1, 2], verify=False, probabilities=probabilities).model
        assert isinstance(made, OnnxModel)
        made.write_sharing(tmp_path / f"{name}.onnx")
    assert len(list(tmp_path.glob("body-*"))) == 2
    np.testing.assert_allclose(answers(tmp_path / "b.onnx"), expected, 1e-5)
    np.testing.assert_allclose(
        answers(tmp_path / "a.onnx"), expected / expected.sum(1, keepdims=True), 1e-5, 1e-6
    )


def test_a_cut_of_a_variant(tmp_path: Path) -> None:
    path = inline(tmp_path)
    pruned(path, [5, 6, 7]).write_sharing(tmp_path / "a.onnx")
    pruned(tmp_path / "a.onnx", [2]).write_sharing(tmp_path / "b.onnx")
    pruned(tmp_path / "a.onnx", [2]).write(tmp_path / "c.onnx")
    assert len(list(tmp_path.glob("body-*"))) == 1
    for name in "bc":
        np.testing.assert_allclose(answers(tmp_path / f"{name}.onnx"), Z[:, [7]], 1e-4)
    next(iter(tmp_path.glob("body-*"))).unlink()
    np.testing.assert_allclose(answers(tmp_path / "c.onnx"), Z[:, [7]], 1e-4)
    open_model(tmp_path / "c.onnx")


# --- refused ------------------------------------------------------------------------------------


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    pruned(inline(tmp_path), [1]).write_sharing(tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


def body_of(path: Path) -> Path:
    (body,) = path.parent.glob("body-*")
    return body


def test_a_missing_body_is_named_with_its_hash(variant: Path) -> None:
    body = body_of(variant)
    digest = hashlib.sha256(body.read_bytes()).hexdigest()
    body.unlink()
    with pytest.raises(ModelError, match=f"needs {body.name} with the SHA-256 {digest}"):
        open_model(variant)


def test_a_pipe_is_no_body(variant: Path) -> None:
    body = body_of(variant)
    body.unlink()
    os.mkfifo(body)
    with pytest.raises(ModelError, match=f"needs {body.name}"):
        open_model(variant)


def test_a_changed_body_is_named_with_both_hashes(variant: Path) -> None:
    body = body_of(variant)
    before = hashlib.sha256(body.read_bytes()).hexdigest()
    body.write_bytes(bytes(body.stat().st_size))
    after = hashlib.sha256(body.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match=f"SHA-256 is {after}.*written with {before}"):
        open_model(variant)


def test_a_changed_body_is_not_used_by_a_new_variant(variant: Path) -> None:
    body_of(variant).write_bytes(bytes(body_of(variant).stat().st_size))
    pruned(variant.with_name("net.onnx"), [2]).write_sharing(variant.with_name("b.onnx"))
    np.testing.assert_allclose(answers(variant.with_name("b.onnx")), Z[:, [2]], 1e-4)
    open_model(variant)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "{}",
        '{"file": "../secret.data", "sha256": "' + "0" * 64 + '"}',
        '{"file": "body-0000000000000000.data", "sha256": "00"}',
        '{"file": 1, "sha256": 2}',
        "[" * 100_000,
    ],
)
def test_a_damaged_statement_is_refused(text: str, variant: Path) -> None:
    model = onnx.load(variant, load_external_data=False)
    (entry,) = (each for each in model.metadata_props if each.key == "exporter.body")
    assert set(json.loads(entry.value)) == {"file", "sha256"}
    entry.value = text
    variant.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="damaged"):
        open_model(variant)


def test_a_model_without_a_body_is_refused(tmp_path: Path) -> None:
    onnx.save(
        proto([node("MatMul", ["x", "kernel"], ["y"], "head")], {"kernel": numbers(6, 500)}),
        tmp_path / "net.onnx",
    )
    with pytest.raises(ModelError, match="no large constant"):
        pruned(tmp_path / "net.onnx", [1]).write_sharing(tmp_path / "a.onnx")


def with_branch(folder: Path) -> Path:
    """A model with a constant of a branch in another file."""

    def body(name: str) -> ModelProto:
        made = proto([node("Add", ["h", name], ["out"], name)], {name: numbers(300)})
        del made.graph.input[:]
        del made.graph.output[:]
        made.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, None))
        return made

    branch = node(
        "If",
        ["condition"],
        ["g"],
        "if",
        then_branch=body("one").graph,
        else_branch=body("two").graph,
    )
    first = node("MatMul", ["x", "body"], ["h"], "first")
    head = node("Gemm", ["g", "kernel", "bias"], ["y"], "head")
    constants = {**CONSTANTS, "condition": np.array(True)}
    model = proto([first, branch, head], constants, outputs={"y": ["batch", 500]})
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_a_constant_of_a_branch_in_another_file_is_refused(tmp_path: Path) -> None:
    path = with_branch(tmp_path)
    with pytest.raises(ModelError, match="inner graph"):
        pruned(path, [1]).write_sharing(tmp_path / "a.onnx")


def test_a_model_that_comes_from_no_file_is_refused(tmp_path: Path) -> None:
    made = exporter.prune(from_proto(proto(NODES, CONSTANTS), "net.onnx"), keep=[1], verify=False)
    assert isinstance(made.model, OnnxModel)
    with pytest.raises(ModelError, match="not the cut of a file"):
        made.model.write_sharing(tmp_path / "a.onnx")


def test_save_refuses_other_formats(shelf: Path, tmp_path: Path) -> None:
    made = exporter.prune(shelf / "net.tflite", keep=[1], verify=False)
    with pytest.raises(UsageError, match="TFLite files contain all their weights"):
        made.save(tmp_path / "a.tflite", share_body=True)


def test_save_shares(tmp_path: Path) -> None:
    path, out = inline(tmp_path), tmp_path / "out"
    out.mkdir()
    for number in (1, 2):
        made = exporter.prune(path, keep=[number], verify=False)
        made.save(out / f"{number}.onnx", share_body=True)
        np.testing.assert_allclose(answers(out / f"{number}.onnx"), Z[:, [number]], 1e-4)
    assert len(list(out.glob("body-*"))) == 1
    shutil.rmtree(out)
