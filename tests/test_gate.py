"""Gates: units that are chosen while the model runs, by one more input or by their values.

Expected values are NumPy's, of the logits that a runtime gives for the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from exporter.cutting import Choice, Cut, plan_cut
from exporter.errors import ModelError, UsageError
from exporter.graph import Array, Use
from exporter.models import open_model
from exporter.models.model import RunOptions
from exporter.models.tflite import from_bytes
from exporter.models.tflite.schema import metadata, unpack
from exporter.modes import MODES, Meaning
from exporter.plan import AddOutput, Plan, Replace
from exporter.samples import synthetic
from exporter.trace import trace
from exporter.verification import VerifyOptions, verify_pair
from tests import onnx_models as onnx
from tests.commands import exporter
from tests.tflite_builder import Builder

UNITS, COUNT = 5, 8


def gated(model: Any, gate: str, **choice: Any) -> tuple[Any, Cut]:
    cut = plan_cut(model, Choice(gate=gate, **choice))
    return model.apply(cut.plan), cut


def checks(original: Any, pruned: Any, cut: Cut) -> list[Any]:
    job = synthetic(original.graph(), 16, 3), VerifyOptions()
    return list(verify_pair("cut", original, pruned, cut.remap.heads, job).checks)


def softmax_on(z: Array, on: Array) -> Array:
    """The softmax over the units that are on; all 0 where none is."""
    powers = np.where(on, np.exp(z.astype(np.float64)), 0.0)
    total = powers.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(powers, total, out=np.zeros_like(powers), where=total > 0))


def sigmoid_on(z: Array, on: Array) -> Array:
    return np.where(on, 1 / (1 + np.exp(-z.astype(np.float64))), 0.0)


def linear_on(z: Array, on: Array) -> Array:
    return np.where(on, z.astype(np.float64), -1e4)


def onnx_net(activation: str = "softmax") -> Any:
    tails = {
        "softmax": [onnx.node("Softmax", ["z"], ["y"], "a", axis=1)],
        "sigmoid": [onnx.node("Sigmoid", ["z"], ["y"], "a")],
        "linear": [onnx.node("Identity", ["z"], ["y"], "a")],
    }
    return onnx.classifier(*tails[activation])


def tflite_net(activation: str = "softmax") -> Any:
    builder = Builder()
    x = builder.feed("x", 1, 6)
    kernel = builder.constant("kernel", np.ascontiguousarray(onnx.numbers(6, 5).T))
    inputs = [x, kernel, builder.constant("bias", onnx.numbers(5))]
    name = "y" if activation == "linear" else "z"
    z = builder.op("FULLY_CONNECTED", inputs, (1, UNITS), name, "FullyConnectedOptions")
    if activation == "softmax":
        builder.softmax(z, "y")
    elif activation == "sigmoid":
        builder.op("LOGISTIC", [z], (1, UNITS), "y")
    return from_bytes(builder.content("y"), "network.tflite")


NETS: dict[str, Callable[[str], Any]] = {"onnx": onnx_net, "tflite": tflite_net}
SHOWN: dict[str, Callable[[Array, Array], Array]] = {
    "softmax": softmax_on,
    "sigmoid": sigmoid_on,
    "linear": linear_on,
}
each_kind = pytest.mark.parametrize("kind", NETS)
each_activation = pytest.mark.parametrize("activation", SHOWN)


def inputs() -> list[Array]:
    random = np.random.default_rng(4)
    return [random.normal(size=(1, 6)).astype(np.float32) * 2 for _ in range(COUNT)]


def content(model: Any, folder: Path) -> bytes:
    model.write(folder / "model")
    return (folder / "model").read_bytes()


def logits(given: Array) -> Array:
    return np.asarray(given @ onnx.numbers(6, 5) + onnx.numbers(5))


def answer(model: Any, **feeds: Array) -> Array:
    return np.asarray(model.runner(RunOptions())(feeds)["y"])


# --- one more input -----------------------------------------------------------------------------

MASKS: dict[str, list[int]] = {"all": [0, 1, 2, 3, 4], "some": [1, 3], "one": [4], "none": []}


@each_kind
@each_activation
@pytest.mark.parametrize("gate", ["input", "input:float"])
def test_an_input_switches_units(kind: str, activation: str, gate: str) -> None:
    original = NETS[kind](activation)
    pruned, cut = gated(original, gate, keep=[0, 1, 3, 4])
    dtype = "bool" if gate == "input" else "float32"
    tensor = pruned.graph().tensors["unit_mask"]
    assert tensor.dtype == dtype
    for mask in MASKS.values():
        flags = np.isin(np.arange(UNITS), mask)
        fed = flags.astype(dtype).reshape([1] * (len(tensor.shape or ()) - 1) + [UNITS])
        for x in inputs()[:3]:
            on = flags & np.isin(np.arange(UNITS), [0, 1, 3, 4])
            shown = answer(pruned, x=x, unit_mask=fed)
            assert np.allclose(shown, SHOWN[activation](logits(x), on), atol=2e-6)
            if activation != "linear":
                assert not shown[:, ~on].any()
    assert all(check.passed for check in checks(original, pruned, cut))


def test_the_onnx_input_has_a_default_with_which_all_are_on() -> None:
    original = onnx_net()
    pruned, _ = gated(original, "input")
    x = np.concatenate(inputs())
    shown = onnx.run(pruned, {"x": x})["y"]
    assert np.array_equal(shown, onnx.run(original, {"x": x})["y"])


def test_a_batch_may_have_a_mask_for_each_of_its_samples() -> None:
    pruned, _ = gated(onnx_net(), "input")
    dims = pruned.proto.graph.input[-1].type.tensor_type.shape.dim
    assert [dim.dim_value if dim.HasField("dim_value") else None for dim in dims] == [None, UNITS]
    x = np.concatenate(inputs())
    masks = np.random.default_rng(1).random((COUNT, UNITS)) < 0.5
    masks[0] = False
    shown = onnx.run(pruned, {"x": x, "unit_mask": masks})["y"]
    assert np.allclose(shown, softmax_on(logits(x), masks), atol=1e-6)
    for_all = onnx.run(pruned, {"x": x, "unit_mask": masks[1:2]})["y"]
    assert np.allclose(for_all, softmax_on(logits(x), masks[1]), atol=1e-6)


def test_the_tflite_input_is_required_and_in_every_signature(tmp_path: Path) -> None:
    pruned, _ = gated(tflite_net(), "input")
    interpreter = Interpreter(model_content=content(pruned, tmp_path))
    for ends in interpreter.get_signature_list().values():
        assert "unit_mask" in ends["inputs"]
    with pytest.raises(UsageError, match="needs values for its input 'unit_mask'"):
        answer(pruned, x=inputs()[0])


# --- conditions ---------------------------------------------------------------------------------


def first_largest(z: Array, count: int, kept: list[int]) -> Array:
    on = np.zeros(z.shape, bool)
    allowed = np.where(np.isin(np.arange(UNITS), kept), z, -np.inf)
    np.put_along_axis(
        on, np.argsort(-allowed, axis=-1, kind="stable")[..., :count], values=True, axis=-1
    )
    return on


CONDITIONS: dict[str, Callable[[Array], Array]] = {
    "logit > 0.5": lambda z: z > 0.5,
    "logit >= 0.5": lambda z: z >= 0.5,
    "logit < 0.5": lambda z: z < 0.5,
    "logit <= 0.5": lambda z: z <= 0.5,
    "abs > 1": lambda z: np.abs(z) > 1,
    "logit > 1e6": lambda z: np.zeros(z.shape, bool),
    "top:1": lambda z: first_largest(z, 1, [0, 1, 2, 4]),
    "top:3": lambda z: first_largest(z, 3, [0, 1, 2, 4]),
}


@each_kind
@each_activation
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_chooses_among_the_kept_units(
    kind: str, activation: str, condition: str
) -> None:
    original = NETS[kind](activation)
    pruned, cut = gated(original, condition, remove=[3])
    for x in inputs():
        z = logits(x)
        on = CONDITIONS[condition](z) & np.isin(np.arange(UNITS), [0, 1, 2, 4])
        assert np.allclose(answer(pruned, x=x), SHOWN[activation](z, on), atol=2e-6)
    assert all(check.passed for check in checks(original, pruned, cut))


@each_kind
@pytest.mark.parametrize("condition", ["probability > 0.2", "> 0.2"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_probability_is_that_of_the_original(kind: str, condition: str, activation: str) -> None:
    original = NETS[kind](activation)
    pruned, cut = gated(original, condition)
    for x in inputs():
        z = logits(x)
        before = SHOWN[activation](z, np.ones(z.shape, bool))
        shown = SHOWN[activation](z, before > 0.2)
        assert np.allclose(answer(pruned, x=x), shown, atol=2e-6)
    assert all(check.passed for check in checks(original, pruned, cut))


@each_kind
@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_equal_units_the_lowest_index_is_taken(kind: str, count: int) -> None:
    """Kernel and bias of units 1, 2 and 4 are the same, so that they always tie."""
    original = NETS[kind]("softmax")
    graph = original.graph()
    changed = []
    for name in ("kernel", "bias"):
        tensor = graph.tensors[name]
        assert tensor.read is not None
        values = np.array(tensor.read())
        units = np.moveaxis(values, values.shape.index(UNITS), 0)
        units[[1, 2, 4]] = units[1]
        uses = tuple(Use(node.name, slot) for node, slot in graph.consumers[name])
        changed.append(Replace(name, values, uses))
    tied = original.apply(Plan(tuple(changed)))
    pruned, _ = gated(tied, f"top:{count}")
    for x in inputs():
        z = answer(tied.apply(Plan((AddOutput("z", "z"),))), x=x)
        shown = answer(pruned, x=x)
        ranks = np.argsort(-np.log(z), axis=-1, kind="stable")[0, :count]
        assert set(np.flatnonzero(shown[0])) == set(ranks.tolist())


@each_kind
def test_units_that_lie_on_another_axis(kind: str) -> None:
    """A convolution whose pixels are flattened behind the softmax's input."""
    model: Any
    if kind == "onnx":
        model = onnx.model(
            [
                onnx.node("Conv", ["x", "kernel", "bias"], ["c"], "conv"),
                onnx.node("Softmax", ["c"], ["s"], "softmax", axis=1),
                onnx.node("Flatten", ["s"], ["y"], "flatten"),
            ],
            {"kernel": onnx.numbers(5, 6, 1, 1), "bias": onnx.numbers(5)},
            x=(1, 6, 1, 1),
        )
        x = inputs()[0].reshape(1, 6, 1, 1)
        z = np.einsum("nchw,uchw->nu", x, onnx.numbers(5, 6, 1, 1)) + onnx.numbers(5)
    else:
        builder = Builder()
        given = builder.feed("x", 1, 1, 1, 6)
        kernel = builder.constant("kernel", np.ascontiguousarray(onnx.numbers(5, 1, 1, 6)))
        c = builder.op(
            "CONV_2D",
            [given, kernel, builder.constant("bias", onnx.numbers(5))],
            (1, 1, 1, UNITS),
            "c",
            "Conv2DOptions",
            strideW=1,
            strideH=1,
            dilationWFactor=1,
            dilationHFactor=1,
        )
        s = builder.softmax(c, "s")
        builder.op("RESHAPE", [s, builder.constant("to", np.array([1, 5], np.int32))], (1, 5), "y")
        model = from_bytes(builder.content("y"), "conv.tflite")
        x = inputs()[0].reshape(1, 1, 1, 6)
        z = np.einsum("nhwc,uhwc->nu", x, onnx.numbers(5, 1, 1, 6)) + onnx.numbers(5)
    flags = np.array([True, False, True, True, False])
    switched, cut = gated(model, "input")
    assert np.allclose(answer(switched, x=x, unit_mask=flags), softmax_on(z, flags), atol=1e-6)
    assert all(check.passed for check in checks(model, switched, cut))
    chosen, cut = gated(model, "logit > 0")
    assert np.allclose(answer(chosen, x=x), softmax_on(z, z > 0), atol=1e-6)
    assert all(check.passed for check in checks(model, chosen, cut))


def test_a_batch_of_pictures_may_have_a_mask_for_each() -> None:
    soft = onnx.node("Softmax", ["c"], ["y"], "softmax", axis=1)
    conv = onnx.node("Conv", ["x", "kernel", "bias"], ["c"], "conv")
    constants = {"kernel": onnx.numbers(5, 6, 1, 1), "bias": onnx.numbers(5)}
    outputs = {"y": ("batch", 5, 2, 2)}
    original = onnx.model([conv, soft], constants, x=("batch", 6, 2, 2), outputs=outputs)
    pruned, cut = gated(original, "input")
    x = np.random.default_rng(3).normal(size=(4, 6, 2, 2)).astype(np.float32)
    masks = np.random.default_rng(4).random((4, UNITS)) < 0.6
    z = np.einsum("nchw,uchw->nuhw", x, onnx.numbers(5, 6, 1, 1)[..., :1, :1] * np.ones((2, 2)))
    z = np.moveaxis(z + onnx.numbers(5).reshape(5, 1, 1), 1, -1)
    shown = onnx.run(pruned, {"x": x, "unit_mask": masks})["y"]
    expected = softmax_on(z, np.broadcast_to(masks[:, None, None], z.shape))
    assert np.allclose(np.moveaxis(shown, 1, -1), expected, atol=1e-6)
    assert all(check.passed for check in checks(original, pruned, cut))


@each_kind
def test_a_gate_that_lets_all_pass_answers_as_the_original(kind: str) -> None:
    original = NETS[kind]("softmax")
    pruned, cut = gated(original, "abs >= 0")
    for x in inputs():
        assert np.allclose(answer(pruned, x=x), answer(original, x=x), atol=1e-7)
    found = checks(original, pruned, cut)
    assert all(check.passed for check in found)
    assert not any("(off)" in check.output for check in found)


# --- the proof ----------------------------------------------------------------------------------


@each_kind
def test_a_gate_that_does_something_else_is_found_out(kind: str) -> None:
    original = NETS[kind]("softmax")
    _, right = gated(original, "logit > 0.5", keep=[0, 1, 2])
    for gate, keep in (("logit > 0.6", [0, 1, 2]), ("logit > 0.5", [0, 1, 3])):
        wrong, _ = gated(original, gate, keep=keep)
        assert not all(check.passed for check in checks(original, wrong, right))
    _, right = gated(original, "input", keep=[0, 1, 2])
    for wrong in (gated(original, "input")[0], gated(original, "input:float", keep=[0, 1])[0]):
        assert not all(check.passed for check in checks(original, wrong, right))


def test_masks_of_a_proof_hold_the_extremes() -> None:
    from exporter.verification.masks import masks_of  # noqa: PLC0415 - of this test alone

    masks = masks_of(6, 16)
    sums = masks.sum(axis=1)
    assert (sums[0], sums[1], sums[2], sums[3]) == (6, 0, 1, 5)
    assert np.array_equal(masks, masks_of(6, 16))
    assert masks_of(6, 2).shape == (2, 6)
    assert len(np.unique(masks, axis=0)) > 8


# --- TFLite's versions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "gate", "expected"),
    [
        (b"1.14.0", "input", b"2.2.0"),
        (b"1.14.0", "top:2", b"2.4.0"),
        (b"2.10.0", "top:2", b"2.10.0"),
    ],
)
def test_the_runtime_that_is_needed_is_raised(
    stated: bytes, gate: str, expected: bytes, tmp_path: Path
) -> None:
    builder = Builder()
    builder.metadata("min_runtime_version", stated.ljust(16, b"\0"))
    x = builder.feed("x", 1, 6)
    kernel = builder.constant("kernel", np.ascontiguousarray(onnx.numbers(6, 5).T))
    inputs = [x, kernel, builder.constant("bias", onnx.numbers(5))]
    z = builder.op("FULLY_CONNECTED", inputs, (1, UNITS), "z", "FullyConnectedOptions")
    builder.softmax(z, "y")
    pruned, _ = gated(from_bytes(builder.content("y"), "network.tflite"), gate)
    found = metadata(unpack(content(pruned, tmp_path)).model, "min_runtime_version")
    assert found is not None
    assert found.tobytes() == expected.ljust(16, b"\0")


# --- what is refused ----------------------------------------------------------------------------


def ranked() -> Any:
    top = onnx.node("ArgMax", ["y"], ["id"], "best", axis=1, keepdims=0)
    soft = onnx.node("Softmax", ["z"], ["y"], "softmax", axis=1)
    return onnx.classifier(soft, top, outputs={"y": ("batch", 5)})


def turned() -> Any:
    conv = onnx.node("Conv", ["x", "kernel", "bias"], ["c"], "conv")
    soft = onnx.node("Softmax", ["c"], ["s"], "softmax", axis=1)
    turn = onnx.node("Transpose", ["s"], ["y"], "turn", perm=[0, 2, 1])
    constants = {"kernel": onnx.numbers(5, 6, 1), "bias": onnx.numbers(5)}
    return onnx.model([conv, soft, turn], constants, x=(1, 6, 2))


def both_shown() -> Any:
    soft = onnx.node("Softmax", ["z"], ["y"], "softmax", axis=1)
    return onnx.classifier(soft, outputs={"y": ("batch", 5), "z": ("batch", 5)})


REFUSED: dict[str, tuple[Callable[[], Any], Mapping[str, Any], type[Exception], str]] = {
    "no parse": (onnx_net, {"gate": "logit >> 1"}, UsageError, "at character 8: expected a number"),
    "top:0": (onnx_net, {"gate": "top:0"}, UsageError, "at character 5: at least one unit"),
    "too many": (
        onnx_net,
        {"gate": "top:4", "keep": [0, 1]},
        UsageError,
        "'top:4' chooses 4 of 2 units",
    ),
    "no probability": (
        lambda: onnx_net("linear"),
        {"gate": "probability > 0.5"},
        UsageError,
        "asks for a probability, which linear does not make",
    ),
    "a restored width": (
        onnx_net,
        {"gate": "input", "restore_width": True},
        UsageError,
        "a gate takes no absolute probabilities, restored width",
    ),
    "no gate": (onnx_net, {"mode": "gate", "keep": [0]}, UsageError, "needs to know how units"),
    "another mode": (
        onnx_net,
        {"mode": "zero", "gate": "input", "keep": [0]},
        UsageError,
        "the mode zero takes no gate",
    ),
    "an order": (
        onnx_net,
        {"gate": "input", "keep": [1, 0], "keep_order": True},
        UsageError,
        "keep_order has no meaning with mode gate",
    ),
    "ranked units": (ranked, {"gate": "input", "head": "y"}, ModelError, "'best' ranks its units"),
    "a transpose behind the softmax": (
        turned,
        {"gate": "input"},
        ModelError,
        "'turn' stands behind its activation",
    ),
    "boxes on the axis": (
        lambda: onnx_net("linear"),
        {"gate": "input", "units": "1:4"},
        ModelError,
        "other things than units stand on the axis of 'y'",
    ),
    "several outputs": (both_shown, {"gate": "input", "head": "y"}, ModelError, "shows its units"),
    "log softmax": (
        lambda: onnx.classifier(onnx.node("LogSoftmax", ["z"], ["y"], "a", axis=1)),
        {"gate": "input"},
        ModelError,
        "log_softmax gives units that are off no lowest value",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_place_for_a_gate_is_refused_by_name(case: str) -> None:
    make, choice, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        plan_cut(make(), Choice(**choice))


def test_a_head_of_another_kind_of_values_or_with_a_post_process_is_refused() -> None:
    head = trace(onnx_net().graph()).head()
    half = tuple(replace(tensor, dtype="bfloat16") for tensor in head.tensors)
    with pytest.raises(ModelError, match="'z' is bfloat16"):
        MODES["gate"].settle(replace(head, tensors=half), Meaning(gate="input"))
    detected = replace(head, detections=(object(),))  # type: ignore[arg-type]  # any will do
    with pytest.raises(ModelError, match="a post-process reads its units"):
        MODES["gate"].settle(detected, Meaning(gate="input"))


def test_integer_heads_are_refused_by_name(zoo: Path) -> None:
    for name in (
        "mobilenet_v1_025_224_uint8_metadata.tflite",
        "mobilenet_v2_100_224_qdq_logits.onnx",
    ):
        with pytest.raises(ModelError, match=r"has no place for a gate: it computes with integers"):
            plan_cut(open_model(zoo / name), Choice(gate="input"))


# --- real files ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parrot(zoo: Path) -> Array:
    """The picture of the macaw as the network takes it: (1, 224, 224, 3)."""
    import tensorflow as tf  # noqa: PLC0415 - reads a photograph, for these tests alone

    picture = tf.io.decode_jpeg((zoo / "images" / "parrot.jpg").read_bytes(), channels=3)
    small = tf.image.resize(picture, (224, 224), antialias=True)
    return np.asarray(small, np.float32)[None] / 127.5 - 1


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_macaw_is_switched_off_and_on_again(kind: str, zoo: Path, parrot: Array) -> None:
    """At each step the file answers as the mode mask, of the same units, does."""
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
            continue
        masked = original.apply(plan_cut(original, Choice(remove=off, mode="mask")).plan)
        expected = masked.runner(RunOptions())({given: parrot})[output]
        assert np.allclose(shown[output], expected, atol=1e-6)
        assert not shown[output][..., list(off)].any()
        assert int(shown[output].argmax()) == int(expected.argmax()) != macaw


# --- the commands -------------------------------------------------------------------------------


def test_commands_prune_verify_bench_and_run(shelf: Path, tmp_path: Path) -> None:
    for kind in ("onnx", "tflite"):
        net, small = shelf / f"net.{kind}", f"small.{kind}"
        done = exporter(f"prune {net} -o {small} --gate input --keep 1-4 --json", tmp_path)
        assert done.code == 0, done.err
        table = done.record["remap"]["heads"][0]
        assert (table["mode"], table["options"]["gate"]) == ("gate", "input")
        assert (table["kept"], table["new_units"]) == ([1, 2, 3, 4], 7)
        for line in (f"verify {net} {small}", f"bench {net} {small}"):
            assert exporter(line, tmp_path).code == 0
        done = exporter(f"run {net} -o all-{kind} --gate top:2 --no-bench", tmp_path)
        assert done.code == 0, done.err
        done = exporter(f"prune {net} -o bad.{kind} --gate top:0", tmp_path)
        assert done.code == 2
        assert "the condition 'top:0', at character 5: at least one unit must be chosen" in done.err
        done = exporter(f"prune {net} -o bad.{kind} --gate input --dry-run", tmp_path)
        assert (done.code, "unit_mask" in done.out) == (0, True)


def test_a_mask_of_another_width_is_named_by_each_runtime(tmp_path: Path) -> None:
    """What the documents quote."""
    x, wide = inputs()[0], np.ones(UNITS + 1, bool)
    pruned, _ = gated(tflite_net(), "input")
    interpreter = Interpreter(model_content=content(pruned, tmp_path))
    interpreter.allocate_tensors()
    place = {each["name"]: each["index"] for each in interpreter.get_input_details()}["unit_mask"]
    with pytest.raises(ValueError, match=r"Dimension mismatch\. Got 6 but expected 5"):
        interpreter.set_tensor(place, wide)
    pruned, _ = gated(onnx_net(), "input")
    with pytest.raises(Exception, match=r"Got: 6 Expected: 5"):
        onnx.run(pruned, {"x": x, "unit_mask": wide[None]})
