"""Verification of files that are cut twice, are quantized, or rank their units.

Most models here are neutral graphs, which the tests' own interpreter runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pytest

from exporter.data.samples import Samples
from exporter.errors import UsageError
from exporter.formats.model import RunOptions
from exporter.graph import Array, Graph, Quantization, Tensor
from exporter.graph.edits import AddOutput, Plan
from exporter.graph.operations import Activation, Elementwise, Linear, Reshape, TopK, Transpose
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.remap import HeadRemap, Remap
from exporter.trace import trace
from exporter.verification.limits import UserLimits
from exporter.verification.quantized_values import quantization_of
from exporter.verification.verify import Verification, VerifyOptions, verify_pair
from tests.builders import graphs
from tests.builders import onnx_models as onnx

UNITS = 6
KERNEL = np.random.default_rng(2).normal(size=(4, UNITS))
BIAS = np.random.default_rng(3).normal(size=UNITS)
INPUTS = Samples({"x": np.random.default_rng(4).normal(size=(20, 1, 4))}, "made here")

Values = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A model that is a neutral graph; quantized outputs are quantized when they are returned.

    Attributes:
        spoil: changes the returned values.
    """

    drawing: Graph
    spoil: Callable[[Values], None] = lambda _: None
    name: str = "drawn"
    kind: str = "drawn"
    precision: str = "fp32"
    sha256: str | None = None
    remap: Remap | None = None
    engine: str = "the interpreter"

    def graph(self) -> Graph:
        return self.drawing

    def apply(self, plan: Plan) -> Self:
        names = [edit.tensor for edit in plan.edits if isinstance(edit, AddOutput)]
        return replace(self, drawing=replace(self.drawing, outputs=(*self.drawing.outputs, *names)))

    def runner(self, _: RunOptions) -> Callable[[Mapping[str, Array]], Values]:
        return self._run

    def write(self, path: object) -> None:
        raise AssertionError(path)

    def _run(self, feeds: Mapping[str, Array]) -> Values:
        computed = graphs.run(self.drawing, feeds)
        values = {n: encoded(self.drawing.tensors[n], computed[n]) for n in self.drawing.outputs}
        self.spoil(values)
        return values


def encoded(tensor: Tensor, values: Array) -> Array:
    known = tensor.quantization
    if known is None:
        return values
    codes = np.rint(values / known.scale + known.zero_point).clip(known.low, known.high)
    return codes.astype(tensor.dtype)


def failed(done: Verification) -> set[str]:
    assert done.checks
    return {check.output for check in done.checks if not check.passed}


def verify(
    original: Any, pruned: Any, tables: Sequence[HeadRemap], tolerance: float | None = None
) -> Verification:
    options = VerifyOptions(INPUTS, limits=UserLimits(tolerance))
    return verify_pair("cut", original, pruned, tables, options)


# --- cut twice ----------------------------------------------------------------------------------

CUTS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "slice, slice": ({"keep": (5, 3, 1, 0), "keep_order": True}, {"keep": (2, 0)}),
    "zero, zero": ({"keep": "0-3", "mode": "zero"}, {"keep": "1-4", "mode": "zero"}),
    "slice, zero": ({"keep": "1-4"}, {"keep": (0, 3), "mode": "zero"}),
    "zero, slice with a removed unit": ({"keep": "0-3", "mode": "zero"}, {"keep": "2-5"}),
    "zero, slice of kept units": ({"keep": "0-3", "mode": "zero"}, {"keep": "1-3"}),
}


def feeds() -> Samples:
    return Samples({"x": onnx.numbers(9, 2, 4, seed=5)}, "made here")


def network() -> Any:
    nodes = [
        onnx.node("Gemm", ["x", "kernel", "bias"], ["z"], "head"),
        onnx.node("Softmax", ["z"], ["y"], "last"),
    ]
    constants = {"kernel": KERNEL.astype(np.float32), "bias": BIAS.astype(np.float32)}
    return onnx.model(nodes, constants, x=("batch", 4))


def cut_twice(first: dict[str, Any], second: dict[str, Any]) -> tuple[Any, Any, Any]:
    original = network()
    once = original.apply(plan_cut(original, CutOptions(**first)).plan)
    return original, once, once.apply(plan_cut(once, CutOptions(**second)).plan)


@pytest.mark.parametrize("cuts", CUTS)
def test_a_file_cut_twice_matches_both_earlier_files(cuts: str) -> None:
    original, once, twice = cut_twice(*CUTS[cuts])
    for before in (original, once):
        job = VerifyOptions(feeds())
        done = verify_pair("cut", before, twice, twice.remap.heads, job)
        assert failed(done) == set()
        assert {check.output for check in done.checks} == {"y (z)", "y"}


@pytest.mark.parametrize("cuts", CUTS)
def test_another_second_cut_fails(cuts: str) -> None:
    first, second = CUTS[cuts]
    original, once, twice = cut_twice(first, second)
    (table,) = twice.remap.heads
    _, _, other = cut_twice(first, {**second, "keep": (0, 1)})
    for before in (original, once):
        done = verify_pair("cut", before, other, [table], VerifyOptions(feeds()))
        assert failed(done) == {"y (z)", "y"}


def test_the_share_of_removed_units_of_the_first_cut() -> None:
    original, _, twice = cut_twice(*CUTS["zero, slice with a removed unit"])
    done = verify_pair("cut", original, twice, twice.remap.heads, VerifyOptions(feeds()))
    z = feeds().values["x"] @ KERNEL + BIAS
    kept = np.exp(z[..., [2, 3]]).sum(axis=-1)
    assert done.zeroed_share == pytest.approx((2 / (kept + 2)).mean(), abs=1e-6)


def test_two_heads_cut_one_after_the_other() -> None:
    constants = {"k": onnx.numbers(4, 5), "l": onnx.numbers(4, 3)}
    nodes = [onnx.node("MatMul", ["x", "k"], ["a"]), onnx.node("MatMul", ["x", "l"], ["b"])]
    original = onnx.model(nodes, constants, x=("n", 4), outputs={"a": None, "b": None})
    once = original.apply(plan_cut(original, CutOptions(keep=(1, 3), head="a")).plan)
    twice = once.apply(plan_cut(once, CutOptions(keep=(2, 0), keep_order=True, head="b")).plan)
    assert twice.remap is not None
    for before in (original, once):
        job = VerifyOptions(feeds())
        done = verify_pair("cut", before, twice, twice.remap.heads, job)
        assert failed(done) == set()
        assert {check.output for check in done.checks} == {"a", "b"}


@pytest.mark.parametrize(
    ("original", "message"),
    [
        pytest.param(
            onnx.classifier(),
            "head 'y' of network.onnx comes from a head with 5 units, but the remap is for 6",
            id="another width",
        ),
        pytest.param(
            cut_twice({"keep": "0,1"}, {"keep": "0"})[1],
            "head 'y' of network.onnx lacks units that were kept",
            id="another cut",
        ),
    ],
)
def test_a_model_that_is_not_the_original_is_refused(original: Any, message: str) -> None:
    _, _, pruned = cut_twice({"keep": "2-5"}, {"keep": "0,1"})
    with pytest.raises(UsageError) as caught:
        verify(original, pruned, pruned.remap.heads)
    assert caught.value.message == message
    assert caught.value.hint == "compare with the model that was cut"


# --- quantized values ---------------------------------------------------------------------------

KEPT = (1, 2, 4)
Z = Quantization(np.array([2.0**-11]), np.array([10]), -32768, 32767)
Y = Quantization(np.array([1 / 256]), np.array([-128]), -128, 127)


def builder(kernel: Array, bias: Array) -> graphs.Builder:
    """x -> Linear "acc" with these weights."""
    made = graphs.Builder()
    made.feed("x", None, 4)
    for name, values in (("kernel", kernel), ("bias", bias)):
        made.tensors[name] = Tensor(name, values.shape, "float64", read=values.copy)
    operation = Linear(1, kernel_axis=1, output_axis=1, bias=2)
    made.node(operation, ["x", "kernel", "bias"], (None, kernel.shape[1]), "acc")
    return made


def coded(mode: str = "", *, real: bool = False) -> Graph:
    """A softmax of quantized values; with `real`, z and y are dequantized."""
    kernel, bias, width = weights(mode)
    made = builder(kernel, bias)
    shape = (None, width)
    quantize = Elementwise(function="quantize")
    back = Elementwise(function="dequantize")
    z = made.node(quantize, ["acc"], shape, "z")
    z = made.node(back, [z], shape, "z_real") if real else z
    y = made.node(Activation("softmax", 1), [z], shape, "y")
    if real:
        y = made.node(quantize, [y], shape, "codes")
        y = made.node(back, [y], shape, "y_real")
    encode(made, "z", "int16", Z)
    encode(made, "codes" if real else "y", "int8", Y)
    return made.graph(y)


def encode(made: graphs.Builder, name: str, dtype: str, known: Quantization) -> None:
    made.tensors[name] = replace(made.tensors[name], dtype=dtype, quantization=known)


def weights(mode: str) -> tuple[Array, Array, int]:
    if mode == "slice":
        return KERNEL[:, KEPT], BIAS[list(KEPT)], len(KEPT)
    alive = np.isin(np.arange(UNITS), KEPT) if mode == "zero" else True
    return np.where(alive, KERNEL, 0.0), np.where(alive, BIAS, 0.0), UNITS


def table_of(model: Any, mode: str) -> HeadRemap:
    """The table of a cut with new ids, as the graphs here return them."""
    head = trace(model.graph()).head()
    new_ids = mode == "slice" and bool(head.readers.rankings)
    return plan_cut(model, CutOptions(keep=KEPT, mode=mode, new_ids=new_ids)).remap.heads[0]


def add(name: str, amount: float) -> Callable[[Values], None]:
    def spoil(values: Values) -> None:
        values[name] = values[name].copy()
        values[name].flat[0] += np.asarray(amount, values[name].dtype)

    return spoil


def exact(values: Values) -> None:
    """Round as a runtime does: the interpreter does not round to quantized values."""
    for name, known in (("z_real", Z), ("y_real", Y)):
        if name in values:
            values[name] = known.nearest(values[name])


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize(
    ("spoil", "red"),
    [
        pytest.param(add("y", 0), set(), id="unchanged"),
        pytest.param(add("y", 1), set(), id="y, one step"),
        pytest.param(add("y", 3), {"y"}, id="y, three steps"),
        pytest.param(add("z", 1), {"y (z)"}, id="z, one step"),
    ],
)
def test_quantized_values_are_compared_in_steps(
    mode: str, spoil: Callable[[Values], None], red: set[str]
) -> None:
    original = Drawn(coded(), precision="int8")
    pruned = Drawn(coded(mode), spoil, precision="int8")
    done = verify(original, pruned, [table_of(original, mode)])
    assert failed(done) == red
    limits = {c.output: c.limit for c in done.checks if c.metric == "max_abs"}
    assert limits == {"y (z)": 0.0, "y": 1.0}


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize(
    ("spoil", "red"),
    [
        pytest.param(add("y_real", 0), set(), id="unchanged"),
        pytest.param(add("y_real", 1 / 256), set(), id="y, one step"),
        pytest.param(add("y_real", 3 / 256), {"y_real"}, id="y, three steps"),
        pytest.param(add("z_real", 1e-9), {"y_real (z)"}, id="z, less than a step"),
    ],
)
def test_dequantized_values_are_compared_in_steps(
    mode: str, spoil: Callable[[Values], None], red: set[str]
) -> None:
    def both(values: Values) -> None:
        exact(values)
        spoil(values)

    original = Drawn(coded(real=True), exact, precision="int8")
    pruned = Drawn(coded(mode, real=True), both, precision="int8")
    done = verify(original, pruned, [table_of(original, mode)])
    assert failed(done) == red


def test_a_tolerance_is_in_real_values() -> None:
    original = Drawn(coded(), precision="int8")
    pruned = Drawn(coded("slice"), add("y", 3), precision="int8")
    table = table_of(original, "slice")
    assert failed(verify(original, pruned, [table], tolerance=4 / 256)) == set()
    assert failed(verify(original, pruned, [table], tolerance=1.5 / 256)) == {"y"}


def test_quantized_logits_must_be_equal() -> None:
    def logits(mode: str = "") -> Graph:
        kernel, bias, width = weights(mode)
        made = builder(kernel, bias)
        made.node(Elementwise(function="quantize"), ["acc"], (None, width), "z")
        encode(made, "z", "int16", Z)
        return made.graph("z")

    original = Drawn(logits(), precision="int8")
    table = table_of(original, "slice")
    for amount, red in ((0, set[str]()), (1, {"z"})):
        pruned = Drawn(logits("slice"), add("z", amount), precision="int8")
        assert failed(verify(original, pruned, [table])) == red


def test_the_share_of_zeroed_units_is_in_real_values() -> None:
    original = Drawn(coded(), precision="int8")
    done = verify(original, Drawn(coded("zero"), precision="int8"), [table_of(original, "zero")])
    z = INPUTS.values["x"][:, 0] @ KERNEL + BIAS
    kept = np.exp(z[:, KEPT]).sum(axis=-1)
    removed = UNITS - len(KEPT)
    assert done.zeroed_share == pytest.approx((removed / (kept + removed)).mean(), abs=1 / 256)


@pytest.mark.parametrize(
    ("operation", "known", "found"),
    [
        pytest.param(Elementwise(function="dequantize"), Y, True, id="dequantized"),
        pytest.param(Elementwise(), Y, True, id="copied"),
        pytest.param(Reshape(), Y, True, id="reshaped"),
        pytest.param(Transpose((1, 0)), Y, True, id="transposed"),
        pytest.param(Elementwise(function="add"), Y, False, id="added to"),
        pytest.param(Activation("relu"), Y, False, id="computed with"),
        pytest.param(Elementwise(), None, False, id="never quantized"),
        pytest.param(Elementwise(), replace(Y, scale=np.ones(4), axis=1), False, id="per-channel"),
    ],
)
def test_quantization_is_found_through_moves(
    operation: Any, known: Quantization | None, found: bool
) -> None:
    made = graphs.Builder()
    x = made.feed("x", None, 4)
    made.tensors[x] = replace(made.tensors[x], quantization=known)
    graph = made.graph(made.node(operation, [x], (None, 4), "y"))
    assert quantization_of(graph, "y") is (known if found else None)


# --- rankings -----------------------------------------------------------------------------------


def ranked(mode: str = "", *, after: str = "", logits: bool = True, k: int = 2) -> Graph:
    """Logits, the first k of them in order, and their ids; `after` moves or changes the results."""
    kernel, bias, width = weights(mode)
    made = builder(kernel, bias)
    z = made.node(Elementwise(), ["acc"], (None, width), "z")
    top = TopK(1, k=k, attribute="k", ids=1)
    shape = (None, min(k, width))
    values, ids = made.nodes_of(top, [z], {"values": shape, "ids": shape})
    if after == "moved":
        values = made.node(Transpose((1, 0)), [values], (k, None), "values_t")
        values = made.node(Reshape(), [values], (1, k), "values_r")
        values = made.node(Elementwise(), [values], (1, k), "values_c")
        ids = made.node(Transpose((1, 0)), [ids], (k, None), "ids_t")
    return made.graph(*([z] if logits else []), values, ids)


def best(mode: str = "", *, largest: bool = True) -> Graph:
    """Only the id of the first unit."""
    kernel, bias, width = weights(mode)
    made = builder(kernel, bias)
    z = made.node(Elementwise(), ["acc"], (None, width), "z")
    top = TopK(1, keepdims=False, largest=largest)
    return made.graph(*made.nodes_of(top, [z], {"best": (None,)}))


RANKED: Mapping[str, Callable[..., Graph]] = {
    "two of them": ranked,
    "moved": lambda mode="": ranked(mode, after="moved"),
    "no logits": lambda mode="": ranked(mode, logits=False),
    "more than are kept": lambda mode="": ranked(mode, k=5),
    "the best alone": best,
    "the last alone": lambda mode="": best(mode, largest=False),
}


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("name", RANKED)
def test_ids_and_values_of_the_kept_units(name: str, mode: str) -> None:
    original, pruned = Drawn(RANKED[name]()), Drawn(RANKED[name](mode))
    table = table_of(original, mode)
    assert table.output == "z"
    done = verify(original, pruned, [table])
    assert failed(done) == set()
    assert {c.output for c in done.checks} == {"z", *original.graph().outputs}
    for output in original.graph().outputs:
        spoiled = replace(pruned, spoil=add(output, 1))
        assert failed(verify(original, spoiled, [table])) >= {output}


def test_an_output_without_its_ranking_fails() -> None:
    original = Drawn(ranked())
    kernel, bias, width = weights("slice")
    made = builder(kernel, bias)
    made.node(Elementwise(), ["acc"], (None, width), "z")
    made.node(Elementwise(), ["z"], (None, width), "values")
    pruned = Drawn(made.graph("z", "values"))
    done = verify(original, pruned, [table_of(original, "slice")])
    assert failed(done) == {"values", "ids"}
    assert {c.metric for c in done.checks if not c.passed} == {"shape"}


def test_the_limit_grows_with_the_units_that_the_softmax_adds_up() -> None:
    """Units that are left out of the sum do not count."""
    rows: list[tuple[dict[str, Any], int]] = [
        ({"keep": "0-2"}, 3),
        ({"keep": "0-2", "mode": "mask"}, 3),
        ({"keep": "0-2", "gate": "top:2"}, 3),
        ({"keep": "0-2", "mode": "zero"}, 40),
        ({"keep": "0-2", "probabilities": "absolute"}, 40),
        ({"keep": "0-2", "merge": {"many": range(3, 20)}}, 20),
    ]
    kernel, bias = onnx.numbers(6, 40), onnx.numbers(40)
    wide = onnx.classifier(constants={"kernel": kernel, "bias": bias})
    for how, added_up in rows:
        found = prune_model(wide, CutOptions(**how), Job()).results.checks
        (limit,) = [c.limit for c in found if c.output == "y" and c.metric == "max_abs"]
        assert limit == pytest.approx(1e-6 + added_up * 2.0**-27, rel=1e-12), how
