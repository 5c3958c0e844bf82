"""Files with a gate: signatures, batches, versions, repeated cuts, published files, commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import exporter as exporter_api
from exporter.errors import ExporterError, ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.formats.onnx import from_bytes as onnx_from_bytes
from exporter.formats.tflite import from_bytes
from exporter.formats.tflite.schema import metadata
from exporter.graph import Array
from exporter.modes import MODES
from exporter.planning.cut import plan_cut
from exporter.planning.options import CutOptions
from tests.builders import onnx_models as onnx
from tests.builders.commands import PROJECT, exporter
from tests.builders.gate_models import (
    NETS,
    SHOWN,
    UNITS,
    answer,
    checks,
    each_activation,
    each_kind,
    gated,
    inputs,
    logits,
    onnx_net,
    softmax_on,
    tflite_builder,
    tflite_net,
)
from tests.builders.tflite_builder import Builder, read

# --- TFLite: signatures, batches, versions --------------------------------------------------------


def two_subgraphs() -> Any:
    """Subgraph 0 with two signatures, and another subgraph with one."""
    builder = tflite_builder()
    builder.signature({"x": "x"}, {"y": "y"})
    builder.signature({"features": "x"}, {"scores": "y"}, "short")
    other = Builder()
    other.model = builder.model
    other.subgraph.name = "other"
    builder.model.subgraphs.append(other.subgraph)
    other.op("ABS", [other.feed("x", 1, 2)], (1, 2), "y", "AbsOptions")
    builder.signature({"values": "x"}, {"magnitudes": "y"}, "apart")
    builder.model.signatureDefs[-1].subgraphIndex = 1
    builder.model.signatureDefs[-1].outputs[0].tensorIndex = 1
    other.subgraph.inputs, other.subgraph.outputs = np.array([0], np.int32), np.array([1], np.int32)
    return from_bytes(builder.content("y"), "network.tflite")


def test_input_is_in_every_signature_of_the_subgraph() -> None:
    pruned, cut = gated(two_subgraphs(), "input")
    interpreter = Interpreter(model_content=pruned.content)
    ends = {key: sorted(e["inputs"]) for key, e in interpreter.get_signature_list().items()}
    assert ends == {
        "serving_default": ["unit_mask", "x"],
        "short": ["features", "unit_mask"],
        "apart": ["values"],
    }
    x, flags = inputs()[0], np.array([True, False, True, False, False])
    short = interpreter.get_signature_runner("short")(features=x, unit_mask=flags)
    assert np.allclose(short["scores"], softmax_on(logits(x), flags), atol=1e-6)
    apart = interpreter.get_signature_runner("apart")(values=np.array([[-1, 2]], np.float32))
    assert apart["magnitudes"].tolist() == [[1.0, 2.0]]
    assert all(check.passed for check in checks(two_subgraphs(), pruned, cut))


def test_tflite_input_is_required() -> None:
    pruned, _ = gated(tflite_net(), "input")
    with pytest.raises(UsageError, match="needs values for its input 'unit_mask'"):
        answer(pruned, x=inputs()[0])


@pytest.mark.parametrize("batch", [3, None])
@pytest.mark.parametrize("activation", SHOWN)
@pytest.mark.parametrize("gate", ["input", "input:float"])
def test_each_sample_of_a_tflite_batch_has_its_mask(
    gate: str, activation: str, batch: int | None
) -> None:
    original = tflite_net(activation, batch)
    pruned, cut = gated(original, gate, keep=[0, 1, 2, 4])
    assert pruned.graph().shape("unit_mask") == (batch, UNITS)
    x = np.concatenate(inputs()[:3])
    masks = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 1]], bool)
    dtype = pruned.graph().tensors["unit_mask"].dtype
    shown = answer(pruned, x=x, unit_mask=masks.astype(dtype))
    on = masks & np.isin(np.arange(UNITS), [0, 1, 2, 4])
    assert np.allclose(shown, SHOWN[activation](logits(x), on), atol=2e-6)
    assert all(check.passed for check in checks(original, pruned, cut))


def operators(content: bytes) -> tuple[dict[int, int], str]:
    """The version of each operator, and the minimum runtime version of the file."""
    file = read(content)
    found = {max(c.builtinCode, c.deprecatedBuiltinCode): c.version for c in file.operatorCodes}
    stated = metadata(file, "min_runtime_version")
    assert stated is not None
    return found, stated.tobytes().rstrip(b"\0").decode()


def converted(gate: str) -> bytes:
    """The same computation, written by TensorFlow's converter."""
    import tensorflow as tf  # noqa: PLC0415 - the reference of these tests alone

    def passed(z: Any, mask: Any) -> Any:
        if gate == "input":
            return mask & tf.constant([True, True, True, True, False])
        level = tf.gather(tf.math.top_k(z, 2).values, [1], axis=1)
        above, equal = z > level, tf.equal(z, level)
        ahead = tf.reduce_sum(tf.cast(above, tf.float32), 1, keepdims=True)
        return above | (equal & (tf.cumsum(tf.cast(equal, tf.float32), 1) + ahead <= 2.0))

    def network(x: Any, unit_mask: Any) -> Any:
        z = tf.matmul(x, tf.constant(onnx.numbers(6, 5))) + tf.constant(onnx.numbers(5))
        on = passed(z, unit_mask)
        return tf.where(on, tf.nn.softmax(tf.where(on, z, -1e4)), 0.0)

    ends = [tf.TensorSpec((1, 6), tf.float32), tf.TensorSpec((UNITS,), tf.bool)]
    traced = tf.function(network, input_signature=ends).get_concrete_function()
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert())


@pytest.mark.parametrize("gate", ["input", "top:2"])
def test_operator_versions_match_the_converter(gate: str) -> None:
    builder = tflite_builder()
    builder.metadata("min_runtime_version", b"1.14.0".ljust(16, b"\0"))
    pruned, _ = gated(from_bytes(builder.content("y"), "network.tflite"), gate, remove=[4])
    ours, needed = operators(pruned.content)
    theirs, least = operators(converted(gate))
    assert theirs.keys() <= ours.keys()
    assert {number: ours[number] for number in theirs} == theirs
    assert needed == least


@pytest.mark.parametrize(
    ("stated", "gate", "expected"),
    [
        (b"1.14.0", "input", b"2.2.0"),
        (b"1.14.0", "top:2", b"2.4.0"),
        (b"2.10.0", "top:2", b"2.10.0"),
    ],
)
def test_minimum_runtime_version_is_raised(stated: bytes, gate: str, expected: bytes) -> None:
    builder = tflite_builder()
    builder.metadata("min_runtime_version", stated.ljust(16, b"\0"))
    pruned, _ = gated(from_bytes(builder.content("y"), "network.tflite"), gate)
    found = metadata(read(pruned.content), "min_runtime_version")
    assert found is not None
    assert found.tobytes() == expected.ljust(16, b"\0")


# --- repeated cuts --------------------------------------------------------------------------------

GATES: dict[str, Callable[[Array], Array]] = {
    "logit > 0.5": lambda z: z > 0.5,
    "top:2": lambda z: np.argsort(np.argsort(-z, axis=-1, kind="stable"), axis=-1) < 2,
}


@each_kind
@each_activation
@pytest.mark.parametrize("order", [[0, 2, 3, 4], [4, 0, 3, 2]], ids=str)
def test_sliced_file_can_get_a_gate(kind: str, activation: str, order: list[int]) -> None:
    """The remap uses the indices of the first original, the mask those of the file."""
    original = NETS[kind](activation)
    narrow = original.apply(plan_cut(original, CutOptions(keep=order, keep_order=True)).plan)
    x = inputs()[0]
    z = logits(x)[:, order]
    for gate, passed in GATES.items():
        pruned, cut = gated(narrow, gate)
        assert np.allclose(answer(pruned, x=x), SHOWN[activation](z, passed(z)), atol=2e-6)
        table = cut.remap.heads[0]
        assert (table.mode, table.kept, table.new_to_old) == ("gate", (*order,), (*order,))
        for before in (original, narrow):
            assert all(check.passed for check in checks(before, pruned, cut))
    pruned, cut = gated(narrow, "input", keep=[0, 1, 3])
    flags = np.array([True, False, True, True])
    fed = flags.reshape([1] * (len(pruned.graph().shape("unit_mask")) - 1) + [4])
    expected = SHOWN[activation](z, flags & [True, True, False, True])
    assert np.allclose(answer(pruned, x=x, unit_mask=fed), expected, atol=2e-6)
    assert cut.remap.heads[0].kept == (order[0], order[1], order[3])
    for before in (original, narrow):
        assert all(check.passed for check in checks(before, pruned, cut))


@each_kind
def test_condition_on_a_sliced_file_compares_its_own_probability(kind: str) -> None:
    original = NETS[kind]("softmax")
    narrow = original.apply(plan_cut(original, CutOptions(keep=[1, 2, 4])).plan)
    pruned, cut = gated(narrow, "probability > 0.3")
    for x in inputs():
        z = logits(x)[:, [1, 2, 4]]
        passed = softmax_on(z, np.ones(z.shape, bool)) > 0.3
        assert np.allclose(answer(pruned, x=x), softmax_on(z, passed), atol=2e-6)
    for before in (original, narrow):
        assert all(check.passed for check in checks(before, pruned, cut))


@each_kind
@pytest.mark.parametrize("mode", ["zero", "mask"])
def test_gate_on_a_masked_file_is_refused(kind: str, mode: str) -> None:
    original = NETS[kind]("softmax")
    dead = original.apply(plan_cut(original, CutOptions(keep=[0, 1, 2], mode=mode)).plan)
    with pytest.raises(UsageError, match=f"was cut with mode {mode}: its removed units still have"):
        gated(dead, "input")


@each_kind
@each_activation
@pytest.mark.parametrize("gate", ["input", "logit > 0.5", "top:2"])
def test_file_with_a_gate_cannot_be_cut_again(kind: str, activation: str, gate: str) -> None:
    pruned, _ = gated(NETS[kind](activation), gate)
    again: list[dict[str, Any]] = [{"keep": [0, 2], "mode": m} for m in MODES if m != "gate"]
    for choice in (*again, {"gate": "input"}):
        with pytest.raises(ModelError, match=f"was cut before with gate = {gate}") as caught:
            plan_cut(pruned, CutOptions(**choice))
        assert caught.value.hint == f"cut {pruned.remap.original.name} instead"


def _two_heads(kind: str) -> Any:
    """A head "a" with 5 units, and a head "b" with 4."""
    if kind == "tflite":
        builder = Builder()
        x = builder.feed("x", 1, 6)
        for name, units in (("a", 5), ("b", 4)):
            builder.dense(x, units, f"z{name}")
            builder.softmax(f"z{name}", name)
        return from_bytes(builder.content("a", "b"), "two.tflite")
    nodes: list[Any] = []
    constants: dict[str, Array] = {}
    for name, units in (("a", 5), ("b", 4)):
        constants |= {f"k{name}": onnx.numbers(6, units), f"b{name}": onnx.numbers(units)}
        nodes.append(onnx.node("Gemm", ["x", f"k{name}", f"b{name}"], [f"z{name}"], f"g{name}"))
        nodes.append(onnx.node("Softmax", [f"z{name}"], [name], name, axis=1))
    return onnx.model(nodes, constants, x=(1, 6), outputs={"a": None, "b": None})


@each_kind
@pytest.mark.parametrize("mode", ["slice", "zero", "mask"])
@pytest.mark.parametrize("gate", ["input", "top:2"])
def test_head_with_a_gate_is_cut_last(kind: str, mode: str, gate: str) -> None:
    original = _two_heads(kind)
    before = original.apply(plan_cut(original, CutOptions(keep=[0, 2], head="b", mode=mode)).plan)
    pruned, cut = gated(before, gate, keep=[0, 2, 3], head="a")
    for source in (original, before):
        found = checks(source, pruned, cut)
        assert {check.output.split(" ")[0] for check in found} == {"a", "b"}
        assert all(check.passed for check in found)
    with pytest.raises(ModelError, match=f"head 'a' was cut before with gate = {gate}") as caught:
        plan_cut(gated(original, gate, head="a")[0], CutOptions(keep=[0, 2], head="b", mode=mode))
    assert caught.value.hint.endswith(" instead; of several heads cut this one last")


@pytest.mark.parametrize("gate", ["input", "probability > 0.1", "top:2"])
def test_damaged_files_are_refused_in_one_line(gate: str) -> None:
    """Also damaged files with a gate. Any other exception fails the test."""
    whole = onnx_net()
    files = whole.to_bytes(), gated(whole, gate)[0].to_bytes()
    random, done, refused = np.random.default_rng(6), 0, []
    for turn in range(300):
        content = bytearray(files[turn % 2])
        for place in random.integers(len(content), size=random.integers(1, 4)):
            content[place] = random.integers(256)
        try:
            gated(onnx_from_bytes(bytes(content), "damaged.onnx"), gate)
            done += 1
        except ExporterError as error:
            refused.append(error.message)
    assert min(done, len(refused)) > 30
    assert not any("\n" in message for message in refused)


# --- published files ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parrot(zoo: Path) -> Array:
    """The image of the macaw as an input of the network: (1, 224, 224, 3)."""
    import tensorflow as tf  # noqa: PLC0415 - reads a photograph, for these tests alone

    picture = tf.io.decode_jpeg((zoo / "images" / "parrot.jpg").read_bytes(), channels=3)
    small = tf.image.resize(picture, (224, 224), antialias=True)
    return np.asarray(small, np.float32)[None] / 127.5 - 1


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_macaw_is_switched_off_and_on(kind: str, zoo: Path, parrot: Array) -> None:
    """At each step the output matches the mode mask with the same units."""
    original = open_model(zoo / f"mobilenet_v1_025_224_float.{kind}")
    macaw = (zoo / "labels" / "imagenet_1001.txt").read_text("utf-8").splitlines().index("macaw")
    pruned, cut = gated(original, "input")
    assert all(check.passed for check in checks(original, pruned, cut))
    output, given = original.graph().outputs[0], original.graph().inputs[0]
    shape = pruned.graph().shape("unit_mask")
    running, before = pruned.runner(RunOptions()), original.runner(RunOptions())
    whole = before({given: parrot})[output]
    assert int(whole.argmax()) == macaw
    for off in ((macaw,), (), (macaw,), (macaw, 0, 500)):
        flags = np.ones(1001, bool)
        flags[list(off)] = False
        shown = running({given: parrot, "unit_mask": flags.reshape([n or 1 for n in shape])})
        if not off:
            assert np.allclose(shown[output], whole, atol=1e-7)
            if kind == "onnx":  # the default of its input
                assert np.array_equal(running({given: parrot})[output], shown[output])
            continue
        masked = original.apply(plan_cut(original, CutOptions(remove=off, mode="mask")).plan)
        expected = masked.runner(RunOptions())({given: parrot})[output]
        assert np.allclose(shown[output], expected, atol=1e-6)
        assert not shown[output][..., list(off)].any()
        assert int(shown[output].argmax()) == int(expected.argmax()) != macaw


# --- the commands ---------------------------------------------------------------------------------


@each_kind
def test_commands_prune_and_verify(kind: str, shelf: Path, tmp_path: Path) -> None:
    net = shelf / f"net.{kind}"
    done = exporter(f"prune {net} -o small.{kind} --gate input --keep 1-4 --json", tmp_path)
    assert done.code == 0, done.err
    table = done.record["remap"]["heads"][0]
    assert (table["mode"], table["options"]["gate"]) == ("gate", "input")
    assert (table["kept"], table["new_units"]) == ([1, 2, 3, 4], 7)
    assert exporter(f"verify {net} small.{kind}", tmp_path).code == 0


def test_commands_bench_run_and_plan(shelf: Path, tmp_path: Path) -> None:
    """The pruned file needs a mask in every run; the original has no such input."""
    net = shelf / "net.tflite"
    exporter_api.prune(net, gate="input").save(tmp_path / "small.tflite")
    done = exporter(f"bench {net} small.tflite --bench-seconds 0", tmp_path)
    assert done.code == 0, done.err
    done = exporter(f"run {shelf / 'net.onnx'} -o all --gate top:2 --no-bench", tmp_path)
    assert done.code == 0, done.err
    done = exporter(f"prune {net} -o dry.tflite --gate input --dry-run", tmp_path)
    assert (done.code, "unit_mask" in done.out) == (0, True)


def documented() -> list[str]:
    """The error of each runtime as `docs/gates.md` quotes it."""
    lines = (PROJECT / "docs" / "gates.md").read_text("utf-8").splitlines()
    rows = [line.split("|") for line in lines if line.startswith(("| onnxruntime", "| LiteRT"))]
    return [row[2].strip().strip("`") for row in rows]


def test_runtime_errors_for_wrong_masks_are_documented() -> None:
    x, wide = inputs()[0], np.ones(UNITS + 1, bool)
    said = []
    batched, _ = gated(onnx_net(), "input")
    for mask in (wide[None], wide):
        with pytest.raises(Exception, match="unit_mask") as refused:
            onnx.run(batched, {"x": x, "unit_mask": mask})
        said.append(str(refused.value))
    interpreter = Interpreter(model_content=gated(tflite_net(), "input")[0].content)
    interpreter.allocate_tensors()
    place = {each["name"]: each["index"] for each in interpreter.get_input_details()}["unit_mask"]
    with pytest.raises(ValueError, match="Cannot set tensor") as mismatch:
        interpreter.set_tensor(place, wide)
    interpreter.resize_tensor_input(place, wide.shape)
    with pytest.raises(RuntimeError, match="failed to prepare") as resized:
        interpreter.allocate_tensors()
    said += [str(mismatch.value), str(resized.value)]
    quoted = documented()
    assert len(quoted) == len(said)
    for quote, message in zip(quoted, said, strict=True):
        assert quote in message
