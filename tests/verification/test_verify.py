"""Correct cuts pass verification, and each way to damage one fails where it must.

The models are real files, built without the code under test, and run in their own runtimes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from exporter.data.samples import Samples, synthetic_samples
from exporter.errors import ModelError
from exporter.formats import open_model
from exporter.formats.onnx import from_proto
from exporter.formats.tflite import from_bytes
from exporter.graph import Array, Use
from exporter.graph.edits import Plan, Replace
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.remap import HeadRemap, Remap
from exporter.verification import match
from exporter.verification.limits import UserLimits
from exporter.verification.roles import Stage
from exporter.verification.verify import Verification, VerifyOptions, verify_pair
from tests.builders import onnx_models as onnx
from tests.builders.tflite_builder import Builder

UNITS, KEPT = 5, (0, 1, 3)
WIDTHS = {"slice": 3, "zero": 5, "mask": 5}  # of the input, so that the cut kernel is square
COUNT = 12

# --- the models ---------------------------------------------------------------------------------


def onnx_net(tail: str, width: int) -> Any:
    """x -> "z" -> softmax or another "y"; and, of the same x, the other output "other"."""
    constants = {
        "kernel": onnx.numbers(width, UNITS, seed=1),
        "bias": onnx.numbers(UNITS, seed=1),
        "other_kernel": onnx.numbers(width, 4, seed=2),
        "offset": onnx.numbers(4, seed=2),
    }
    nodes = [
        onnx.node("Gemm", ["x", "kernel", "bias"], ["z"], "head"),
        onnx.node("Gemm", ["x", "other_kernel", "offset"], ["other"], "other"),
    ]
    if tail != "linear":
        nodes.append(onnx.node(ONNX[tail], ["z"], ["y"], "last"))
    outputs = {output_of(tail): None, "other": None}
    return onnx.model(nodes, constants, x=(1, width), outputs=outputs)


def tflite_net(tail: str, width: int) -> Any:
    builder = Builder(seed=4)
    x = builder.feed("x", 1, width)
    z = builder.dense(x, UNITS, "z")
    builder.dense(x, 4, "other")
    options: dict[str, Any] = {}
    if tail == "softmax":
        options = {"options": "SoftmaxOptions", "beta": 1.0}
    if tail != "linear":
        builder.op(TFLITE[tail], [z], (1, UNITS), "y", **options)
    return from_bytes(builder.content(output_of(tail), "other"), "net.tflite")


def output_of(tail: str) -> str:
    return "z" if tail == "linear" else "y"


ONNX = {"softmax": "Softmax", "sigmoid": "Sigmoid", "log_softmax": "LogSoftmax", "relu": "Relu"}
TFLITE = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC", "log_softmax": "LOG_SOFTMAX", "relu": "RELU"}
NETS: Mapping[str, Callable[[str, int], Any]] = {"onnx": onnx_net, "tflite": tflite_net}
HEAD = {"onnx": ("kernel", "bias"), "tflite": ("z/kernel", "z/bias")}
OTHER = {"onnx": "offset", "tflite": "other/bias"}


def samples(model: Any) -> Samples:
    (name,) = model.graph().inputs
    shape = [n or 1 for n in model.graph().shape(name)]
    random = np.random.default_rng(8)
    return Samples({name: random.normal(size=(COUNT, *shape)).astype(np.float32)}, "made here")


def verify(original: Any, pruned: Any, tables: Sequence[HeadRemap], **options: Any) -> Verification:
    stage = options.pop("stage", "cut")
    limits = UserLimits(options.pop("tolerance", None))
    job = VerifyOptions(samples(original), limits=limits, **options)
    return verify_pair(stage, original, pruned, tables, job)


def failed(done: Verification) -> set[str]:
    assert done.checks
    return {check.output for check in done.checks if not check.passed}


def head_and_other(tail: str, mode: str, kind: str) -> tuple[Any, Any, HeadRemap]:
    """The net, the correctly cut net, and the table."""
    net = NETS[kind](tail, WIDTHS[mode])
    choice = CutOptions(keep=KEPT, mode=mode, head=output_of(tail))
    cut = plan_cut(net, choice)
    return net, net.apply(cut.plan), cut.remap.heads[0]


def spoiled(model: Any, constant: str, change: Callable[[Array], Array]) -> Any:
    """The model with one changed constant."""
    graph = model.graph()
    before = graph.tensors[constant].read()
    uses = tuple(Use(node.name, slot) for node, slot in graph.consumers[constant])
    after = np.ascontiguousarray(change(before.copy()), before.dtype)
    return model.apply(Plan((Replace(constant, after, uses),), model.remap))


# --- damaged cuts fail --------------------------------------------------------------------------

Spoil = Callable[[Any, HeadRemap, str], tuple[Any, HeadRemap]]


def in_kernel(change: Callable[[Array], Array]) -> Spoil:
    return lambda pruned, table, kind: (spoiled(pruned, HEAD[kind][0], change), table)


def in_bias(change: Callable[[Array], Array]) -> Spoil:
    return lambda pruned, table, kind: (spoiled(pruned, HEAD[kind][1], change), table)


def at_first(amount: float) -> Callable[[Array], Array]:
    def change(values: Array) -> Array:
        values.flat[0] += amount
        return values

    return change


def swapped_table(pruned: Any, table: HeadRemap, _: str) -> tuple[Any, HeadRemap]:
    """Two units change positions; in a mode that keeps positions, another unit counts as kept."""
    if table.mode == "slice":
        return pruned, replace(table, kept=(1, 0, 3), new_to_old=(1, 0, 3))
    return pruned, replace(table, kept=(0, 2, 3))


def another_unit(_: Any, table: HeadRemap, kind: str) -> tuple[Any, HeadRemap]:
    """Unit 4 is kept instead of unit 3."""
    net = NETS[kind](TAIL_OF[table.activation], WIDTHS[table.mode])
    choice = CutOptions(keep=(0, 1, 4), mode=table.mode, head=table.output)
    return net.apply(plan_cut(net, choice).plan), table


def another_width(_: Any, table: HeadRemap, kind: str) -> tuple[Any, HeadRemap]:
    net = NETS[kind](TAIL_OF[table.activation], WIDTHS[table.mode])
    return net.apply(plan_cut(net, CutOptions(keep=(0, 1), head=table.output)).plan), table


TAIL_OF = {"softmax": "softmax", "sigmoid": "sigmoid", "linear": "linear"}
SPOILS: Mapping[str, Spoil] = {
    "one changed weight": in_kernel(at_first(1e-3)),
    "a transposed kernel": in_kernel(np.transpose),
    "two units swapped in the kernel": in_kernel(lambda k: k[::-1] if k.shape[0] < 4 else -k),
    "a NaN": in_kernel(at_first(np.nan)),
    "an infinity": in_bias(at_first(np.inf)),
    "one bias off by 1e-4": in_bias(at_first(1e-4)),
    "no bias": in_bias(np.zeros_like),
    "a swapped pair in the remap": swapped_table,
    "a removed unit kept instead of another": another_unit,
    "a wrong shape": another_width,
}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("tail", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("mode", WIDTHS)
@pytest.mark.parametrize("kind", NETS)
def test_a_damaged_cut_fails(kind: str, mode: str, tail: str, spoil: str) -> None:
    original, pruned, table = head_and_other(tail, mode, kind)
    pruned, table = SPOILS[spoil](pruned, table, kind)
    found = {name.removesuffix(" (removed)") for name in failed(verify(original, pruned, [table]))}
    assert found == ({"z"} if tail == "linear" else {"y (z)", "y"})


@pytest.mark.parametrize(
    ("spoil", "metric"),
    [("a NaN", "finite"), ("an infinity", "finite"), ("a wrong shape", "shape")],
)
@pytest.mark.parametrize("kind", NETS)
def test_shape_and_finiteness_come_first(kind: str, spoil: str, metric: str) -> None:
    original, pruned, table = head_and_other("softmax", "slice", kind)
    done = verify(original, *SPOILS[spoil](pruned, table, kind)[:1], [table])
    checks = [check for check in done.checks if check.output != "other"]
    assert [(c.output, c.metric, c.value, c.passed) for c in checks] == [
        ("y (z)", metric, None, False),
        ("y", metric, None, False),
    ]


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("kind", NETS)
def test_logits_are_compared_if_the_output_hides_a_difference(kind: str, mode: str) -> None:
    """A softmax does not change if the same amount is added to all logits."""
    original, pruned, table = head_and_other("softmax", mode, kind)
    shifted = spoiled(pruned, HEAD[kind][1], lambda bias: bias + np.float32(0.5))
    assert failed(verify(original, shifted, [table])) == {"y (z)"}


@pytest.mark.parametrize("mode", WIDTHS)
@pytest.mark.parametrize("kind", NETS)
def test_other_outputs_must_be_bit_identical(kind: str, mode: str) -> None:
    original, pruned, table = head_and_other("softmax", mode, kind)
    assert failed(verify(original, pruned, [table])) == set()
    nearly = spoiled(pruned, OTHER[kind], lambda bias: bias + np.float32(1e-6))
    assert failed(verify(original, nearly, [table])) == {"other"}
    assert failed(verify(original, nearly, [table], stage="export")) == set()
    wrong = spoiled(pruned, OTHER[kind], lambda v: v + np.float32(1e-2))
    assert failed(verify(original, wrong, [table], stage="export")) == {"other"}


@pytest.mark.parametrize("missing", ["y", "other"])
def test_a_missing_output_fails(missing: str) -> None:
    original, pruned, table = head_and_other("softmax", "slice", "onnx")
    rest = [output for output in pruned.proto.graph.output if output.name != missing]
    proto = type(pruned.proto)()
    proto.CopyFrom(pruned.proto)
    del proto.graph.output[:]
    proto.graph.output.extend(rest)
    less = from_proto(proto, "less.onnx")
    checks = {c.output: c.metric for c in verify(original, less, [table]).checks if not c.passed}
    assert checks[missing] == "shape"


def test_without_a_table_all_outputs_must_be_unchanged() -> None:
    net = onnx_net("softmax", 3)
    assert failed(verify(net, net, [])) == set()
    assert {check.output for check in verify(net, net, []).checks} == {"y", "other"}
    cut = net.apply(plan_cut(net, CutOptions(keep=KEPT, head="y")).plan)
    assert failed(verify(net, cut, [])) == {"y"}


# --- correct cuts pass --------------------------------------------------------------------------


def any_can_lose(table: HeadRemap) -> bool:
    """Several units rank; of one unit the first is always the same."""
    return (table.new_units if table.mode == "zero" else len(table.kept)) > 1


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param({"keep": KEPT}, id="three of five"),
        pytest.param({"keep": (3, 0, 1), "keep_order": True}, id="in another order"),
        pytest.param({"keep": (4, 3, 2, 1, 0), "keep_order": True}, id="all, reversed"),
        pytest.param({"keep": (2,)}, id="one"),
        pytest.param({"keep": "0-4"}, id="all"),
        pytest.param({"keep": KEPT, "mode": "zero"}, id="zero three of five"),
        pytest.param({"keep": (2,), "mode": "zero"}, id="zero all but one"),
        pytest.param({"keep": "0-4", "mode": "zero"}, id="zero none"),
        pytest.param({"keep": KEPT, "mode": "mask"}, id="mask three of five"),
        pytest.param({"keep": (2,), "mode": "mask"}, id="mask all but one"),
        pytest.param({"keep": "0-4", "mode": "mask"}, id="mask none"),
    ],
)
@pytest.mark.parametrize("tail", ["softmax", "sigmoid", "linear", "log_softmax", "relu"])
@pytest.mark.parametrize("kind", NETS)
def test_a_correct_cut_passes(kind: str, tail: str, choice: dict[str, Any]) -> None:
    net = NETS[kind](tail, 3)
    cut = plan_cut(net, CutOptions(head=output_of(tail), **choice))
    done = verify(net, net.apply(cut.plan), cut.remap.heads)
    assert failed(done) == set()
    seen = {"z"} if tail == "linear" else {"y (z)", "y"}
    if choice.get("mode") == "mask" and choice["keep"] != "0-4":
        seen |= {f"{name} (removed)" for name in seen}
    assert {check.output for check in done.checks} == {*seen, "other"}
    assert {(c.stage, c.samples) for c in done.checks} == {("cut", COUNT)}
    assert {c.artifact for c in done.checks} == {net.name}
    gated = {c.metric for c in done.checks if c.output in seen and c.limit is not None}
    assert gated == {"max_abs", *(["top1"] if any_can_lose(cut.remap.heads[0]) else [])}


# --- the limits ---------------------------------------------------------------------------------


def allowed(done: Verification, output: str) -> float | None:
    (limit,) = {c.limit for c in done.checks if (c.output, c.metric) == (output, "max_abs")}
    return limit


def scales(net: Any) -> list[float]:
    """max(1, largest |z| of the kept units) of each sample, in NumPy."""
    kernel, bias = (net.graph().tensors[name].read() for name in HEAD["onnx"])
    z = samples(net).values["x"][:, 0] @ kernel + bias
    return [max(1.0, float(np.abs(row).max())) for row in z[:, KEPT]]


@pytest.mark.parametrize(
    ("stage", "precision", "z", "y"),
    [
        pytest.param("cut", "fp32", 1e-6, 1e-6, id="cut, float32"),
        pytest.param("cut", "fp64", 1e-6, 1e-6, id="cut, float64"),
        pytest.param("cut", "fp8", 1e-6, 1e-6, id="cut, float32 products of 8-bit floats"),
        pytest.param("cut", "dynamic", 1e-6, 1e-6, id="cut, a float accumulator, integer weights"),
        pytest.param("cut", "bf16", 8e-3, 8e-3, id="cut, bfloat16"),
        pytest.param("cut", "fp16", 2e-3, 2e-3, id="cut, float16"),
        pytest.param("export", "fp32", 1e-4, 1e-4, id="export, float32"),
    ],
)
def test_limits_depend_on_stage_and_precision(
    stage: str, precision: str, z: float, y: float
) -> None:
    net, pruned, table = head_and_other("softmax", "slice", "onnx")
    net.precision = precision
    done = verify(net, pruned, [table], stage=stage)
    rounding = (
        3 / 2**27 if precision in {"fp32", "fp64", "fp8", "dynamic"} else 0.0
    )  # of three exponentials' sum
    assert allowed(done, "y") == pytest.approx(y + rounding, rel=1e-9)
    limit = allowed(done, "y (z)")
    assert any(limit == pytest.approx(z * scale, rel=1e-5) for scale in scales(net))
    assert {check.stage for check in done.checks} == {stage}


def test_an_output_with_a_shape_that_depends_on_values_is_refused() -> None:
    """The output has one column for each positive logit."""
    head = onnx.node("Gemm", ["x", "kernel", "bias"], ["y"], "gemm")
    counted = [
        onnx.node("Relu", ["y"], ["r"], "r"),
        onnx.node("NonZero", ["r"], ["large"], "large"),
    ]
    constants = {"kernel": onnx.numbers(6, 5), "bias": onnx.numbers(5)}
    net = onnx.model([head, *counted], constants, outputs={"y": None, "large": None})
    constants["bias"] = constants["bias"] + 5
    other = onnx.model([head, *counted], constants, outputs={"y": None, "large": None})
    with pytest.raises(
        ModelError, match=r"the shape of output 'large' of .* changes from sample"
    ) as e:
        verify(net, other, [])
    assert "static shapes" in e.value.hint


def test_an_output_of_varying_shapes_is_compared_value_by_value() -> None:
    """The output has one column for each positive logit of a part that is not cut."""
    head = onnx.node("Gemm", ["x", "kernel", "bias"], ["y"], "gemm")
    counted = [
        onnx.node("NonZero", ["x"], ["at"], "at"),
        onnx.node("Relu", ["x"], ["r"], "r"),
        onnx.node("NonZero", ["r"], ["large"], "large"),
        onnx.node("Transpose", ["large"], ["turned"], "turned"),
        onnx.node("GatherND", ["x", "turned"], ["values"], "values"),
        onnx.node("Mul", ["values", "factor"], ["found"], "found"),
    ]
    constants = {"kernel": onnx.numbers(6, 5), "bias": onnx.numbers(5)}
    outputs: dict[str, Any] = {"y": None, "found": ["n"]}
    nets = [
        onnx.model(
            [head, *counted], {**constants, "factor": np.array(factor, np.float32)}, outputs=outputs
        )
        for factor in (1, 1.5)
    ]
    assert all(check.passed for check in verify(nets[0], nets[0], []).checks)
    checks = verify(nets[0], nets[1], []).checks
    assert {check.output for check in checks if not check.passed} == {"found"}


NAMES = ("ant", "bee", "cat", "dog", "emu")


def net_with_names(names: Sequence[str]) -> Any:
    """x -> a product "y"; and the name of the largest value of x."""
    table: dict[str, Any] = {"keys_int64s": range(UNITS), "values_strings": names}
    nodes = [
        onnx.node("ArgMax", ["x"], ["best"], "best", axis=1, keepdims=0),
        onnx.node("LabelEncoder", ["best"], ["name"], "table", domain="ai.onnx.ml", **table),
        onnx.node("Gemm", ["x", "kernel"], ["y"], "gemm"),
    ]
    made = onnx.proto(
        nodes,
        {"kernel": onnx.numbers(UNITS, 3)},
        x=(1, UNITS),
        outputs={"y": (1, 3), "name": (1,)},
        domains={"ai.onnx.ml": 2},
    )
    made.graph.output[1].type.tensor_type.elem_type = TensorProto.STRING
    return from_proto(made, "names.onnx")


@pytest.mark.parametrize(("stage", "precision"), [("cut", ""), ("quantize", "int8")])
def test_an_output_of_texts_is_compared(stage: Stage, precision: str) -> None:
    """A text that another one replaces is a difference if the samples reach it."""
    original = net_with_names(NAMES)
    best = set(samples(original).values["x"].argmax(axis=-1).ravel().tolist())
    options = {"stage": stage, "precision": precision}
    checks = verify(original, original, [], **options).checks
    assert {check.output for check in checks} == {"y", "name"}
    assert all(check.passed for check in checks)
    for unit in range(UNITS):
        names = [f"{name}s" if i == unit else name for i, name in enumerate(NAMES)]
        checks = verify(original, net_with_names(names), [], **options).checks
        (largest,) = [c.value for c in checks if (c.output, c.metric) == ("name", "max_abs")]
        assert (largest != 0) == (unit in best)


@pytest.mark.parametrize(
    ("original", "stage", "z"),
    [
        pytest.param("fp16", "export", 4e-3, id="Keras in float16, its file in float32"),
        pytest.param("bf16", "export", 4e-2, id="Keras in bfloat16, its file in float32"),
        pytest.param("fp64", "export", 1e-4, id="Keras in float64"),
        pytest.param("fp16", "cut", 2e-3, id="a cut has the precision of its original"),
    ],
)
def test_limits_depend_on_the_precision_of_the_original(
    original: str, stage: str, z: float
) -> None:
    net, pruned, table = head_and_other("softmax", "slice", "onnx")
    net.precision, pruned.precision = original, "fp32"
    done = verify(net, pruned, [table], stage=stage)
    limit = allowed(done, "y (z)")
    assert any(limit == pytest.approx(z * scale, rel=1e-5) for scale in scales(net))


@pytest.mark.parametrize(
    ("stage", "precision"), [("cut", "complex64"), ("export", "fp8"), ("export", "int8")]
)
def test_a_precision_without_limits_needs_a_tolerance(stage: str, precision: str) -> None:
    net, pruned, table = head_and_other("softmax", "slice", "onnx")
    net.precision = precision
    with pytest.raises(ModelError, match=f"no limit is set for the {stage} check at precision"):
        verify(net, pruned, [table], stage=stage)
    assert failed(verify(net, pruned, [table], stage=stage, tolerance=1e-3)) == set()


@pytest.mark.parametrize("looks", ["fp16", "bf16", "int8", "fp8"])
def test_the_looks_of_the_tested_file_change_no_limit(looks: str) -> None:
    net, pruned, table = head_and_other("softmax", "slice", "onnx")
    nearly = spoiled(pruned, "bias", at_first(1e-4))
    nearly.precision = looks
    assert failed(verify(net, nearly, [table])) == {"y (z)", "y"}


def test_a_tolerance_replaces_the_limits() -> None:
    net, pruned, table = head_and_other("softmax", "slice", "onnx")
    nearly = spoiled(pruned, "bias", at_first(1e-4))
    assert failed(verify(net, nearly, [table])) == {"y (z)", "y"}
    assert failed(verify(net, nearly, [table], tolerance=1e-3)) == set()
    assert failed(verify(net, nearly, [table], tolerance=1e-5)) == {"y (z)", "y"}


# --- the probability of zeroed units ------------------------------------------------------------


def zeroed_net(tail: str = "softmax", *, logits: bool = False) -> Any:
    nodes = [onnx.node("Gemm", ["x", "kernel", "bias"], ["z"], "head")]
    nodes += [onnx.node(ONNX[tail], ["z"], ["y"], "last")]
    constants = {"kernel": onnx.numbers(4, UNITS), "bias": onnx.numbers(UNITS)}
    outputs = {"z": None, "y": None} if logits else {"y": None}
    return onnx.model(nodes, constants, x=(1, 4), outputs=outputs)


@pytest.mark.parametrize("kept", [(0,), (1, 3), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits too"])
def test_the_share_of_zeroed_units_matches_numpy(logits: bool, kept: tuple[int, ...]) -> None:
    net = zeroed_net(logits=logits)
    cut = plan_cut(net, CutOptions(keep=kept, mode="zero"))
    done = verify(net, net.apply(cut.plan), cut.remap.heads)

    x = samples(net).values["x"][:, 0].astype(np.float64)
    z = x @ onnx.numbers(4, UNITS) + onnx.numbers(UNITS)
    kept_sum = np.exp(z[:, kept]).sum(axis=-1)
    removed = UNITS - len(kept)  # exp(0) each
    assert failed(done) == set()
    assert done.zeroed_share == pytest.approx((removed / (kept_sum + removed)).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("tail", "choice"),
    [
        pytest.param("softmax", {"keep": KEPT}, id="slice leaves none"),
        pytest.param("softmax", {"keep": "0-4", "mode": "zero"}, id="none is zeroed"),
        pytest.param("sigmoid", {"keep": KEPT, "mode": "zero"}, id="sigmoid has no shares"),
        pytest.param("log_softmax", {"keep": KEPT, "mode": "zero"}, id="logarithms are not shares"),
    ],
)
def test_no_share_of_zeroed_units(tail: str, choice: dict[str, Any]) -> None:
    net = zeroed_net(tail)
    cut = plan_cut(net, CutOptions(**choice))
    assert verify(net, net.apply(cut.plan), cut.remap.heads).zeroed_share is None


# --- a converted model --------------------------------------------------------------------------


def converted(z: str = "logits", last: str = "Softmax", **constants: Array) -> Any:
    """The net with other names of inner tensors, as a converter writes it."""
    nodes = [onnx.node("Gemm", ["x", "k", "b"], [z], "dense"), onnx.node(last, [z], ["y"], "tail")]
    head = {"k": onnx.numbers(4, UNITS), "b": onnx.numbers(UNITS)}
    return onnx.model(nodes, {**head, **constants}, x=(1, 4))


def cut_export(model: Any) -> tuple[Any, tuple[HeadRemap, ...]]:
    cut = plan_cut(model, CutOptions(keep=KEPT))
    return model.apply(cut.plan), cut.remap.heads


def test_logits_are_found_in_a_converted_model() -> None:
    pruned, tables = cut_export(converted())
    done = verify(zeroed_net(), pruned, tables, stage="export")
    assert failed(done) == set()
    assert {check.output for check in done.checks} == {"y (z)", "y"}


def test_logits_of_a_converted_model_are_compared() -> None:
    pruned, tables = cut_export(converted(b=onnx.numbers(UNITS) + np.float32(0.5)))
    assert failed(verify(zeroed_net(), pruned, tables, stage="export")) == {"y (z)"}


def test_logits_are_found_by_their_recorded_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pruned, tables = cut_export(converted())
    monkeypatch.setattr(match, "trace_axis", None)  # must not be called
    assert tables[0].logits == "logits"
    done = verify(zeroed_net(), pruned, tables, stage="export")
    assert {check.output for check in done.checks} == {"y (z)", "y"}


@pytest.mark.parametrize("stage", ["cut", "export"])
@pytest.mark.parametrize("logits", [None, "not in this file"])
def test_old_remaps_and_lost_names_are_verified_by_tracing(logits: str | None, stage: str) -> None:
    pruned, tables = cut_export(converted())
    old = replace(tables[0], logits=logits)
    done = verify(zeroed_net(), pruned, [old], stage=stage)
    assert failed(done) == set()
    assert {check.output for check in done.checks} == {"y (z)", "y"}


def test_a_remap_of_an_earlier_version_is_verified() -> None:
    original = zeroed_net()
    pruned = original.apply(plan_cut(original, CutOptions(keep=KEPT)).plan)
    (table,) = Remap.from_json(OLD_REMAP).heads
    done = verify(original, pruned, [table])
    assert failed(done) == set()
    assert {check.output for check in done.checks} == {"y (z)", "y"}


OLD_REMAP = """
{
  "schema": "exporter/remap/1",
  "original": {"name": "network.onnx", "sha256": null},
  "parent": null,
  "heads": [
    {
      "name": "y",
      "output": "y",
      "axis": 1,
      "part": null,
      "mode": "slice",
      "activation": "softmax",
      "old_units": 5,
      "new_units": 3,
      "kept": [0, 1, 3],
      "new_to_old": [0, 1, 3],
      "labels": null,
      "options": {"probabilities": null, "floor": null, "merge": null, "restore_width": null,
        "gate": null, "ids": null, "restore_ids": null, "emit": null}
    }
  ]
}
"""


def test_another_tensor_under_the_recorded_name_turns_red() -> None:
    pruned, tables = cut_export(converted())
    wrong = replace(tables[0], logits="y")
    assert failed(verify(zeroed_net(), pruned, [wrong], stage="export")) == {"y (z)"}


def merged_relu(kernel: Array, bias: Array) -> Any:
    """One FULLY_CONNECTED with a fused RELU: no tensor contains the logits."""
    builder = Builder()
    x = builder.feed("x", 1, 4)
    inputs = [x, builder.constant("k", kernel.T), builder.constant("b", bias)]
    relu: dict[str, Any] = {"fusedActivationFunction": 1}
    builder.op("FULLY_CONNECTED", inputs, (1, UNITS), "y", "FullyConnectedOptions", **relu)
    return from_bytes(builder.content("y"), "merged.tflite")


@pytest.mark.parametrize("amount", [0.0, 1e-2])
def test_a_converter_may_fuse_an_activation_without_competing_units(amount: float) -> None:
    bias = onnx.numbers(UNITS) + np.float32(amount)
    pruned, tables = cut_export(merged_relu(onnx.numbers(4, UNITS), bias))
    done = verify(zeroed_net("relu"), pruned, tables, stage="export")
    assert {check.output for check in done.checks} == {"y"}
    assert failed(done) == ({"y"} if amount else set())


@pytest.mark.parametrize(
    ("pruned", "reason"),
    [
        pytest.param(
            converted(last="Sigmoid"), "sigmoid is its last activation, not softmax", id="another"
        ),
        pytest.param(
            onnx.model([onnx.node("Softmax", ["x"], ["y"], "s")], {}, x=(1, 4)),
            "the axis leads to the model's input 'x'",
            id="no head",
        ),
    ],
)
def test_a_softmax_without_readable_logits_is_refused(pruned: Any, reason: str) -> None:
    table = plan_cut(zeroed_net(), CutOptions(keep="0-3")).remap.heads[0]
    with pytest.raises(ModelError) as caught:
        verify(zeroed_net(), pruned, [table], stage="export")
    assert caught.value.message == (
        f"output 'y' of {pruned.name} cannot be compared before softmax: {reason}"
    )
    assert caught.value.hint.startswith("use `exporter run`: it cuts")


# --- integer files of the zoo -------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize(
    ("file", "outputs"),
    [
        ("mobilenet_v2_100_224_uint8_logits.tflite", {"output"}),
        ("mobilenet_v2_100_224_qdq_logits.onnx", {"output"}),
        (
            "mobilenet_v1_025_224_uint8_metadata.tflite",
            {"MobilenetV1/Predictions/Reshape_1 (z)", "MobilenetV1/Predictions/Reshape_1"},
        ),
    ],
)
def test_integer_logits_are_bit_identical(
    zoo: Path, file: str, outputs: set[str], mode: str
) -> None:
    original = open_model(zoo / file)
    cut = plan_cut(original, CutOptions(keep=(9, 700, 3), keep_order=mode == "slice", mode=mode))
    pruned, tables = original.apply(cut.plan), cut.remap.heads
    job = VerifyOptions(synthetic_samples(original.graph(), 3))
    done = verify_pair("cut", original, pruned, tables, job)
    assert failed(done) == set()
    assert {check.output for check in done.checks} == outputs
    logits = min(outputs, key=lambda name: "(z)" not in name)
    assert allowed(done, logits) == 0.0
    assert done.worst_sample is not None
    assert done.worst_sample.quantized
    (bias,) = {c.name for c in cut.heads[0].constants if c.dtype == "int32" and len(c.shape) == 1}
    wrong = spoiled(pruned, bias, lambda values: values + np.int32(2000))
    assert logits in failed(verify_pair("cut", original, wrong, tables, job))


# --- quantized models ---------------------------------------------------------------------------


def test_a_quantized_model_is_compared_in_y_by_its_quality() -> None:
    net, pruned, table = head_and_other("softmax", "slice", "onnx")
    quantized = {"stage": "quantize", "precision": "int8"}
    done = verify(net, pruned, [table], **quantized)
    assert {check.output for check in done.checks} == {"y", "other"}, "no z"
    assert {check.metric for check in done.checks} == {"sqnr_db", "top1", "max_abs", "cosine"}
    assert {check.metric for check in done.checks if check.limit is None} == {"max_abs"}
    assert {check.limit_from for check in done.checks} == {"", "built-in"}
    assert failed(done) == set()
    gated = verify(net, pruned, [table], tolerance=1e-3, **quantized)
    limits = {
        (check.limit, check.limit_from) for check in gated.checks if check.metric == "max_abs"
    }
    assert limits == {(1e-3, "user")}
    mixed_up = spoiled(pruned, "kernel", lambda kernel: np.roll(kernel, 1, axis=1))
    assert failed(verify(net, mixed_up, [table], **quantized)) == {"y"}


def test_inner_tensors_of_a_quantized_model_are_not_compared() -> None:
    """A quantizer may rename or split them; only outputs keep their names."""
    net, pruned, table = head_and_other("softmax", "slice", "onnx")
    inside = replace(table, output="z", activation="identity")
    graph = pruned.graph()
    assert "z" not in graph.outputs
    done = verify(net, pruned, [inside], stage="quantize", precision="int8")
    assert not [check for check in done.checks if check.output.startswith("z")]


# --- files written before the remap recorded the compared tensor ---------------------------------

OLDER: Mapping[str, CutOptions] = {
    "slice": CutOptions(keep=[0, 2, 3]),
    "merge": CutOptions(merge={"pair": [1, 3]}),
    "restored width": CutOptions(keep=[0, 2], restore_width=True),
    "absolute": CutOptions(keep=[0, 2], probabilities="absolute"),
    "absolute, restored width": CutOptions(
        keep=[0, 2], probabilities="absolute", restore_width=True
    ),
    "mask": CutOptions(keep=[0, 2], mode="mask"),
}


@pytest.mark.parametrize("stage", ["cut", "export"])
@pytest.mark.parametrize("name", OLDER)
def test_an_older_file_is_compared_in_the_same_tensors(name: str, stage: Stage) -> None:
    """The cut keeps the name of the logits; after a conversion they are traced in the file."""
    original = onnx.classifier()
    pruned = prune_model(original, OLDER[name], Job(samples=4))
    options = VerifyOptions(synthetic_samples(original.graph(), 4))
    found, older = (
        verify_pair(stage, original, pruned.model, tables, options)
        for tables in (pruned.remap.heads, pruned.remap.without_logits().heads)
    )
    assert older.checks == found.checks
    assert {check.output for check in found.checks} >= {"y", "y (z)"}
    assert all(check.passed for check in found.checks)
