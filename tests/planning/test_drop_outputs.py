"""Outputs that are removed, with everything that only they need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

import exporter
from exporter.cli.exit_codes import run_command
from exporter.cli.main import cli
from exporter.data.samples import synthetic_samples
from exporter.errors import ExporterError, UsageError
from exporter.formats.model import RunOptions
from exporter.formats.onnx import from_proto
from exporter.formats.tflite import from_bytes
from exporter.formats.tflite.metadata_tree import read_tree, write_tree
from exporter.graph import Array
from exporter.graph.edits import Plan, RemoveOutputs
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.probe import probe
from exporter.proof.prove import prove
from exporter.remap import Remap
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders.onnx_models import model, node, numbers, run
from tests.builders.onnx_suppression import ssd
from tests.builders.several_heads import FIVE, five_heads, softmax_of
from tests.builders.tflite_builder import Builder, read
from tests.builders.tflite_metadata import Associated, metadata, unzipped, zipped

X = np.random.default_rng(3).normal(size=(2, 6)).astype(np.float32)
GEMM = node("Gemm", ["x", "w", "b"], ["z"], "head")
SOFTMAX = node("Softmax", ["z"], ["p"], "last", axis=1)
FOLLOWERS: Mapping[str, tuple[list[onnx.NodeProto], dict[str, Array]]] = {
    "mean probability": (
        [node("ReduceMean", ["p"], ["extra"], "extra", axes=[1], keepdims=0)],
        {},
    ),
    "entropy": (
        [
            node("Log", ["p"], ["log"], "log"),
            node("Mul", ["p", "log"], ["terms"], "terms"),
            node("ReduceSum", ["terms", "axes"], ["extra"], "sum", keepdims=0),
        ],
        {"axes": np.array([1])},
    ),
    "coarse classes": (
        [node("Gemm", ["p", "coarse"], ["extra"], "coarse")],
        {"coarse": numbers(5, 3)},
    ),
}


def answers(opened: Any, x: Array = X) -> dict[str, Array]:
    return dict(opened.runner(RunOptions(batch=len(x)))({"x": x}))


def with_follower(name: str) -> Any:
    """Probabilities, and an output that depends on all of them."""
    nodes, constants = FOLLOWERS[name]
    constants = {"w": numbers(6, 5), "b": numbers(5), **constants}
    return model([GEMM, SOFTMAX, *nodes], constants, outputs={"p": None, "extra": None})


@pytest.mark.parametrize("name", FOLLOWERS)
def test_the_hint_names_what_cannot_follow(name: str) -> None:
    with pytest.raises(ExporterError) as caught:
        plan_cut(with_follower(name), CutOptions(keep=[1, 3], head="p"))
    assert caught.value.hint == "--drop-output extra removes what cannot follow the cut"


@pytest.mark.parametrize("name", FOLLOWERS)
def test_without_it_the_head_is_cut(name: str) -> None:
    original = with_follower(name)
    cut = plan_cut(original, CutOptions(keep=[1, 3], drop_outputs=("extra",)))
    pruned = original.apply(cut.plan)
    np.testing.assert_allclose(
        answers(pruned)["p"], softmax_of(answers(original)["p"], [1, 3]), atol=1e-6
    )
    assert [n.op_type for n in pruned.proto.graph.node] == ["Gemm", "Softmax"]
    assert {i.name for i in pruned.proto.graph.initializer} == {"w", "b"}
    assert prove(original, pruned, pruned.remap).result == "proved"
    assert not probe(original, pruned, cut.remap.heads).failures
    options = VerifyOptions(synthetic_samples(original.graph(), 3, 0))
    done = verify_pair("cut", original, pruned, cut.remap.heads, options)
    assert {check.output for check in done.checks} == {"p (z)", "p"}
    assert all(check.passed for check in done.checks)
    assert Remap.from_json(cut.remap.to_json()).heads[0].options["drop_outputs"] == ("extra",)


def test_only_an_output_is_removed() -> None:
    original = five_heads()
    cut = plan_cut(original, CutOptions(drop_outputs=("race", "mood")))
    pruned = original.apply(cut.plan)
    before = answers(original)
    assert {name: values.tolist() for name, values in answers(pruned).items()} == {
        name: before[name].tolist() for name in ("age", "gender", "pose")
    }
    assert not [i.name for i in pruned.proto.graph.initializer if "race" in i.name]
    assert prove(original, pruned, pruned.remap).result == "proved"


def test_a_cut_head_is_removed_later() -> None:
    original = five_heads()
    cuts = plan_cut(original, CutOptions(cuts={"age": [0, 1], "race": [2, 3]}))
    once = original.apply(cuts.plan)
    twice = once.apply(
        plan_cut(once, CutOptions(cuts={"pose": [1], "age": [1]}, drop_outputs=("race",))).plan
    )
    assert [table.name for table in twice.remap.heads] == ["age", "pose"]
    assert set(twice.graph().outputs) == set(FIVE) - {"race"}
    for before in (original, once):
        assert prove(before, twice, twice.remap).result == "proved"


def test_a_node_with_another_output_stays() -> None:
    nodes = [
        GEMM,
        node("Split", ["z", "sizes"], ["left", "right"], "split", axis=1),
        node("Gemm", ["right", "v"], ["y"], "after"),
        node("Identity", ["x"], ["unread"], "unread"),
    ]
    sizes = {"sizes": np.array([2, 2])}
    constants = {"w": numbers(6, 4), "b": numbers(4), "v": numbers(2, 3), **sizes}
    original = model(nodes, constants, outputs={"left": None, "y": None})
    pruned = original.apply(plan_cut(original, CutOptions(drop_outputs=("y",))).plan)
    np.testing.assert_array_equal(answers(pruned)["left"], answers(original)["left"])
    assert {n.name for n in pruned.proto.graph.node} == {"head", "split", "unread"}
    assert {i.name for i in pruned.proto.graph.initializer} == {"w", "b", "sizes"}


def test_old_files_list_constants_as_inputs() -> None:
    nodes = [GEMM, node("Gemm", ["x", "v", "u"], ["y"], "other")]
    constants = {"w": numbers(6, 4), "b": numbers(4), "v": numbers(6, 3), "u": numbers(3)}
    original = model(nodes, constants, outputs={"z": None, "y": None}, ir=3, opset=9)
    pruned = original.apply(plan_cut(original, CutOptions(keep=[0, 1], drop_outputs=("y",))).plan)
    assert [i.name for i in pruned.proto.graph.input] == ["x", "w", "b"]


# --- TensorFlow Lite and Keras -------------------------------------------------------------------


def tflite(tree: Mapping[str, Any] | None = None) -> Any:
    """Two heads with metadata; `age` is computed after common features."""
    builder = Builder()
    features = builder.dense(builder.feed("x", 2, 6), 8, "features")
    for name in ("gender", "age"):
        builder.dense(features, FIVE[name], f"z_{name}")
        builder.softmax(f"z_{name}", name)
    plain = metadata([Associated("g.txt")], [Associated("a.txt")])
    data = write_tree({**read_tree(plain), **(tree or {})})
    builder.model.buffers.append(schema.BufferT(data=np.frombuffer(data, np.uint8)))
    entry = schema.MetadataT(name="TFLITE_METADATA", buffer=len(builder.model.buffers) - 1)
    builder.model.metadata = [entry]
    return from_bytes(builder.content("gender", "age"), "two.tflite")


def test_a_signature_keeps_the_tensors_that_it_names() -> None:
    builder = Builder()
    features = builder.dense(builder.feed("x", 2, 6), 8, "features")
    for name in ("gender", "age"):
        builder.softmax(builder.dense(features, FIVE[name], f"z_{name}"), name)
    builder.signature({"x": "x"}, {"gender": "gender", "age": "age"})
    builder.signature({"x": "x"}, {"logits": "z_gender"}, "logits")
    original = from_bytes(builder.content("gender", "age"), "two.tflite")
    pruned = original.apply(plan_cut(original, CutOptions(drop_outputs=("gender",))).plan)
    np.testing.assert_array_equal(answers(pruned)["age"], answers(original)["age"])
    file = read(pruned.content)
    (end,) = file.signatureDefs[1].outputs
    assert file.subgraphs[0].tensors[end.tensorIndex].name == b"z_gender"
    made = [each for operator in file.subgraphs[0].operators for each in operator.outputs]
    assert end.tensorIndex in made


def test_tflite() -> None:
    original = tflite()
    cut = plan_cut(original, CutOptions(keep=[0, 3], drop_outputs=("gender",)))
    pruned = original.apply(cut.plan)
    expected = softmax_of(answers(original)["age"], [0, 3])
    found = answers(pruned)
    assert list(found) == ["age"]
    np.testing.assert_allclose(found["age"], expected, atol=1e-6)
    file = read(pruned.content)
    names = {tensor.name.decode() for tensor in file.subgraphs[0].tensors}
    assert not [name for name in names if "gender" in name]
    stored = sum(len(buffer.data) for buffer in file.buffers[:-2] if buffer.data is not None)
    before = read(original.content).buffers[:-1]
    gone = 4 * (8 * FIVE["gender"] + FIVE["gender"] + 9 * (FIVE["age"] - 2))  # float32
    assert stored == sum(len(each.data) for each in before if each.data is not None) - gone
    (entry,) = (m for m in file.metadata if m.name == b"TFLITE_METADATA")
    (subgraph,) = read_tree(bytes(file.buffers[entry.buffer].data))["subgraph_metadata"]
    assert [tensor["name"] for tensor in subgraph["output_tensor_metadata"]] == ["output 1"]
    assert prove(original, pruned, pruned.remap).result == "proved"


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        (("gender",), {"a.txt": b"a\nd\n", "notes": b"of the whole model"}),
        (("age",), {"g.txt": b"f\nm\n", "notes": b"of the whole model"}),
    ],
)
def test_label_files_of_a_removed_output_go_with_it(
    dropped: tuple[str, ...], left: dict[str, bytes]
) -> None:
    files = {"g.txt": b"f\nm\n", "a.txt": b"a\nb\nc\nd\ne\n", "notes": b"of the whole model"}
    original = from_bytes(zipped(tflite().content, files), "two.tflite")
    keep = [0, 3] if dropped == ("gender",) else [0, 1]
    cut = plan_cut(original, CutOptions(keep=keep, drop_outputs=dropped))
    pruned = original.apply(cut.plan)
    assert unzipped(pruned.content) == left
    assert prove(original, pruned, pruned.remap).result == "proved"


def test_a_label_file_of_two_outputs_stays() -> None:
    shared = read_tree(metadata([Associated("s.txt")], [Associated("s.txt")]))
    content = zipped(tflite(shared).content, {"s.txt": b"a\nb\n"})
    original = from_bytes(content, "two.tflite")
    pruned = original.apply(plan_cut(original, CutOptions(drop_outputs=("gender",))).plan)
    assert unzipped(pruned.content) == {"s.txt": b"a\nb\n"}


def test_an_archive_without_a_file_goes() -> None:
    original = from_bytes(zipped(tflite().content, {"g.txt": b"f\nm\n"}), "two.tflite")
    pruned = original.apply(plan_cut(original, CutOptions(drop_outputs=("gender",))).plan)
    assert b"PK\x05\x06" not in pruned.content
    assert from_bytes(pruned.content, "again.tflite").graph().outputs == ("age",)


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_keras(structure: str) -> None:
    x = keras.Input((6,), name="x")
    outputs = {name: keras.layers.Dense(n, name=name)(x) for name, n in FIVE.items()}
    net = keras.Model(x, outputs if structure == "dict" else list(outputs.values()))
    gone = ("race", "mood", "pose", "gender")[: 4 if structure == "list" else 2]
    pruned: Any = exporter.prune(net, cuts={"age": [0, 3]}, drop_outputs=gone, samples=2)
    assert pruned.ok
    assert not {layer.name for layer in pruned.layers} & set(gone)
    found = pruned(X)
    age = found["age"] if structure == "dict" else found
    weights = net.get_layer("age").get_weights()
    np.testing.assert_allclose(age, (X @ weights[0] + weights[1])[:, [0, 3]], atol=1e-6)
    assert structure == "list" or set(found) == {"age", "gender", "pose"}


# --- refused, and the command line ----------------------------------------------------------------


def test_refused() -> None:
    with pytest.raises(UsageError, match="no output 'size' to remove") as caught:
        plan_cut(five_heads(), CutOptions(drop_outputs=("size",)))
    assert caught.value.hint == "outputs: age, gender, race, mood, pose"
    with pytest.raises(UsageError, match="no output would be left"):
        plan_cut(five_heads(), CutOptions(drop_outputs=tuple(FIVE)))
    for given in ({"cuts": {"age": [0]}}, {"keep": [0], "head": "age"}):
        with pytest.raises(UsageError, match="output 'age' cannot be cut and removed"):
            plan_cut(five_heads(), CutOptions(**given, drop_outputs=("age",)))
    detector = exporter.formats.onnx.from_proto(ssd(), "ssd.onnx")
    with pytest.raises(UsageError, match="is a part of the rows that"):
        plan_cut(detector, CutOptions(keep=[0], drop_outputs=detector.graph().outputs[:1]))


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    five_heads().write(Path("five.onnx"))
    line = "prune five.onnx -o small.onnx --cut age=0-1 --drop-output race --drop-output mood"
    assert run_command(cli, line.split()) == 0
    assert "2 of 5 units kept, outputs race and mood removed: fp32 is" in capsys.readouterr().out
    assert exporter.open_model("small.onnx").graph().outputs == ("age", "gender", "pose")
    assert run_command(cli, ["verify", "five.onnx", "small.onnx"]) == 0
    capsys.readouterr()
    assert run_command(cli, [*line.split(), "--dry-run", "--force"]) == 0
    assert (
        "  remove the outputs 'race', 'mood', and what only they need\n" in capsys.readouterr().out
    )


def test_constants_that_are_listed_as_inputs_go_with_their_output() -> None:
    """Without its value, such an input would be one that each run must give."""
    nodes = [node("MatMul", ["x", "w"], ["y"], "first"), node("MatMul", ["x", "v"], ["z"], "other")]
    opened = model(nodes, {"w": numbers(6, 5), "v": numbers(6, 4)}, outputs={"y": None, "z": None})
    for name, width in (("w", 5), ("v", 4)):
        kind = onnx.TensorProto.FLOAT
        info = onnx.helper.make_tensor_value_info(name, kind, [6, width])
        opened.proto.graph.input.append(info)
    proto = onnx.ModelProto.FromString(opened.to_bytes())
    listed = from_proto(proto, "listed.onnx")
    left = listed.apply(Plan((RemoveOutputs(("z",)),)))
    assert [each.name for each in left.proto.graph.input] == ["x", "w"]
    assert run(left, {"x": X})["y"] == pytest.approx(X @ numbers(6, 5), abs=1e-5)
