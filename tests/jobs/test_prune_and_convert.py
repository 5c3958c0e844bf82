"""Prune then convert, and convert then prune: both answer as a narrower model built by hand.

The witness is a Keras model of the kept width (or, for zero, of the old one), whose weights are
taken from the original's with NumPy. Nothing of the code under test has a part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras import Input, layers

from exporter.conversion.process import Child
from exporter.conversion.remote import ConvertOptions, RemoteKerasModel, open_keras
from exporter.data.samples import synthetic_samples
from exporter.formats import KINDS, open_model
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.jobs.source import OpenedModel
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace_axis
from exporter.verification import Stage, VerifyOptions, verify_pair

EDGE = tuple(name for name, kind in KINDS.items() if kind.converter)
EXAMPLES = 25
SAMPLES = 6
CUT, EXPORT = 1e-6, 1e-4  # the limits of the design, times the largest value above 1


@dataclass(frozen=True)
class Net:
    """A small classifier.

    Attributes:
        inside: the activation is an argument of the Dense layer, not a layer behind it.
        dropout: before the head, and behind it where the activation stands behind too.
    """

    style: str
    body: str
    units: int
    activation: str
    bias: bool = True
    inside: bool = True
    dropout: bool = False
    seed: int = 0

    def built(self) -> Any:
        parts = [*self._body(), *self._head()]
        if self.style == "sequential":
            return keras.Sequential([Input(self.shape, name="x"), *parts], name="net")
        x = values = Input(self.shape, name="x")
        for layer in parts:
            values = layer(values)
        return keras.Model(x, values, name="net")

    @property
    def shape(self) -> tuple[int, ...]:
        return (6, 6, 2) if self.body == "convolution" else (5,)

    def _body(self) -> Iterator[Any]:
        match self.body:
            case "dense":
                yield layers.Dense(7, activation="relu", name="hidden")
            case "convolution":
                yield layers.Conv2D(4, 3, use_bias=False, name="conv")
                yield layers.BatchNormalization(name="norm")
                yield layers.ReLU(name="relu")
                yield layers.MaxPooling2D(2, name="pool")
                yield layers.Flatten(name="flat")
        if self.dropout:
            yield layers.Dropout(0.4, name="drop")

    def _head(self) -> Iterator[Any]:
        function = self.activation if self.inside else None
        yield layers.Dense(self.units, activation=function, use_bias=self.bias, name="head")
        if self.inside:
            return
        if self.dropout:
            yield layers.Dropout(0.4, name="drop_logits")
        softmax = self.activation == "softmax"
        yield (
            layers.Softmax(name="answer")
            if softmax
            else layers.Activation(self.activation, name="answer")
        )

    def weights(self) -> list[Array]:
        """Of every layer in turn, the head's at the end; variances are above 0."""
        random = np.random.default_rng(self.seed)
        values = [random.normal(0.0, 0.6, w.shape) for w in self.built().weights]
        return [np.abs(v) + 0.1 if v.ndim == 1 else v for v in values]

    def inputs(self) -> Array:
        random = np.random.default_rng(self.seed + 1)
        return random.normal(size=(SAMPLES, *self.shape)).astype(np.float32)


@dataclass(frozen=True)
class Cut:
    """A net, the units that stay, and how the others go."""

    net: Net
    kept: tuple[int, ...]
    mode: str = "slice"
    in_order: bool = False

    @property
    def choice(self) -> CutOptions:
        return CutOptions(keep=self.kept, mode=self.mode, keep_order=self.in_order)

    def witness(self) -> tuple[Array, Array]:
        """(samples, units) z and y of the model that was pruned by hand."""
        weights = self.net.weights()
        count = 2 if self.net.bias else 1
        body, head = weights[:-count], weights[-count:]
        places = self.kept if self.in_order else tuple(sorted(self.kept))
        if self.mode == "slice":
            net = replace(self.net, units=len(places))
            head = [values[..., list(places)] for values in head]
        else:
            net = self.net
            alive = np.isin(np.arange(net.units), places)
            head = [np.where(alive, values, 0.0) for values in head]
        logits = replace(net, activation="linear")
        return run_keras(logits, [*body, *head]), run_keras(net, [*body, *head])


def run_keras(net: Net, weights: Sequence[Array]) -> Array:
    model = net.built()
    model.set_weights(weights)
    return np.asarray(model(net.inputs(), training=False), np.float64)


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    net = Net(
        style=draw(st.sampled_from(["sequential", "functional"])),
        body=draw(st.sampled_from(["none", "dense", "convolution"])),
        units=draw(st.integers(2, 12)),
        activation=draw(st.sampled_from(["softmax", "sigmoid", "linear", "log_softmax"])),
        bias=draw(st.booleans()),
        inside=draw(st.booleans()),
        dropout=draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )
    units = st.integers(0, net.units - 1)
    kept = draw(st.lists(units, min_size=1, max_size=net.units, unique=True))
    mode = draw(st.sampled_from(["slice", "zero"]))
    return Cut(net, tuple(kept), mode, mode == "slice" and draw(st.booleans()))


# --- both ways round ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """The one child that converts everything, and a folder for files."""

    child: Child
    folder: Path

    def opened(self, net: Net) -> RemoteKerasModel:
        model = net.built()
        model.set_weights(net.weights())
        model.save(self.folder / "net.keras")
        return open_keras(self.folder / "net.keras", self.child)

    def converted(self, model: RemoteKerasModel, kind: str) -> Model:
        path = self.folder / f"net{KINDS[kind].suffixes[0]}"
        model.convert(kind, path, ConvertOptions())
        return open_model(path)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Child() as child:
        yield Bench(child, tmp_path_factory.mktemp("square"))


def answers(model: Model, inputs: Array) -> tuple[Array, Array]:
    """(samples, units) z and y of a model with one head."""
    head = trace_axis(model.graph(), model.graph().outputs[0], 1)
    shown = head.z == head.output
    seen = model if shown else model.apply(Plan((AddOutput(head.z, head.z),)))
    run = seen.runner(RunOptions())
    (name,) = model.graph().inputs
    results = [run({name: sample[None]}) for sample in inputs]
    z, y = (np.concatenate([r[key] for r in results]) for key in (head.z, head.output))
    return z, y


def agree(actual: tuple[Array, Array], expected: tuple[Array, Array], limit: float) -> None:
    for got, wanted in zip(actual, expected, strict=True):
        assert got.shape == wanted.shape
        scale = max(1.0, float(np.abs(wanted).max()))
        assert np.abs(got.astype(np.float64) - wanted).max() <= limit * scale


NET = Net("functional", "dense", 6, "softmax")


@pytest.mark.filterwarnings(r"ignore:[\s\S]*You are using a softmax over axis:UserWarning")
@settings(max_examples=EXAMPLES)
@given(cut=cuts())
@example(cut=Cut(NET, (4,)))
@example(cut=Cut(NET, (4,), "zero"))
@example(cut=Cut(NET, (0, 1, 2, 3, 4, 5)))
@example(cut=Cut(NET, (0, 1, 2, 3, 4, 5), "zero"))
@example(cut=Cut(NET, (5, 2, 0, 1, 4, 3), in_order=True))
@example(cut=Cut(Net("sequential", "convolution", 12, "softmax", inside=False), (7, 2)))
@example(cut=Cut(Net("sequential", "none", 2, "sigmoid", bias=False), (1,)))
@example(cut=Cut(Net("sequential", "none", 3, "linear", bias=False), (2, 0), "zero"))
@example(cut=Cut(Net("functional", "dense", 5, "log_softmax", inside=False, dropout=True), (3, 1)))
def test_the_square_commutes(bench: Bench, cut: Cut) -> None:
    inputs, witness = cut.net.inputs(), cut.witness()
    original = bench.opened(cut.net)
    pruned = original.apply(plan_cut(original, cut.choice).plan)
    agree(answers(pruned, inputs), witness, CUT)
    for kind in EDGE:
        pruned_first = answers(bench.converted(pruned, kind), inputs)
        converted = bench.converted(original, kind)
        converted_first = converted.apply(plan_cut(converted, cut.choice).plan)
        results = answers(converted_first, inputs)
        agree(results, pruned_first, CUT)
        agree(results, witness, EXPORT)
        agree(pruned_first, witness, EXPORT)
        if cut.mode == "zero":
            again = converted_first.apply(plan_cut(converted_first, cut.choice).plan)
            agree(answers(again, inputs), results, 0.0)


@pytest.mark.parametrize("kind", EDGE)
def test_a_cut_model_is_converted_and_cut_again(bench: Bench, kind: str) -> None:
    """The table speaks the first model's indices, and both models before are compared with it."""
    first = bench.opened(NET)
    cut = first.apply(plan_cut(first, CutOptions(keep=(5, 3, 1, 0), keep_order=True)).plan)
    source = OpenedModel(cut, None, bench.child)
    uncut = source.as_kind(kind, bench.folder)
    again = plan_cut(uncut.model, CutOptions(keep=(2, 0)), uncut.original)
    (table,) = again.remap.heads
    assert table.new_to_old == (5, 1)
    assert (again.remap.original.name, again.remap.parent) == ("net.keras", source.origin)
    pruned = uncut.model.apply(again.plan)
    inputs = VerifyOptions(synthetic_samples(first.graph()))
    for stage, before in (("export", first), ("export", cut), ("cut", uncut.model)):
        checks = verify_pair(cast("Stage", stage), before, pruned, [table], inputs).checks
        assert all(check.passed for check in checks)
    agree(answers(pruned, NET.inputs()), Cut(NET, (5, 1), in_order=True).witness(), EXPORT)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Cut(NET, (1, 4)), id="a swapped pair"),
        pytest.param(Cut(NET, (4, 0)), id="another unit"),
        pytest.param(Cut(NET, (1, 4), "zero"), id="another mode"),
        pytest.param(Cut(replace(NET, seed=1), (4, 1), in_order=True), id="other weights"),
    ],
)
def test_a_wrong_witness_is_noticed(other: Cut) -> None:
    witness = Cut(NET, (4, 1), in_order=True).witness()
    agree(witness, witness, 0.0)
    with pytest.raises(AssertionError):
        agree(other.witness(), witness, EXPORT)
