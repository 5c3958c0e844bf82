"""Prune then convert, and convert then prune: both match a reference model.

The reference is a Keras model with the kept units (in mode zero: all units). NumPy copies its
weights from the original. It does not use the code under test.
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

from exporter.conversion.options import ConvertOptions
from exporter.conversion.process import Child
from exporter.conversion.remote import RemoteKerasModel, open_keras
from exporter.data.samples import synthetic_samples
from exporter.formats import KINDS, open_model
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.jobs.source import OpenedModel
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace_axis
from exporter.verification.roles import Stage
from exporter.verification.verify import VerifyOptions, verify_pair

EDGE = tuple(name for name, kind in KINDS.items() if kind.converter)
EXAMPLES = 8  # and those below; each converts four models
SAMPLES = 6
CUT, EXPORT = 1e-6, 1e-4  # limits relative to max(1, max |value|)


@dataclass(frozen=True)
class Net:
    """A small classifier.

    Attributes:
        inside: the activation is an argument of the Dense layer, not a layer after it.
        dropout: before the head, and also after it if the activation is a layer.
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
            layers.Softmax(name="output")
            if softmax
            else layers.Activation(self.activation, name="output")
        )

    def weights(self) -> list[Array]:
        """Random weights of all layers, the head last; variances are positive."""
        random = np.random.default_rng(self.seed)
        values = [random.normal(0.0, 0.6, w.shape) for w in self.built().weights]
        return [np.abs(v) + 0.1 if v.ndim == 1 else v for v in values]

    def inputs(self) -> Array:
        random = np.random.default_rng(self.seed + 1)
        return random.normal(size=(SAMPLES, *self.shape)).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A net, its kept units, and how it is cut."""

    net: Net
    kept: tuple[int, ...]
    mode: str = "slice"
    in_order: bool = False

    @property
    def options(self) -> CutOptions:
        return CutOptions(keep=self.kept, mode=self.mode, keep_order=self.in_order)

    def reference(self) -> tuple[Array, Array]:
        """(samples, units) z and y of the reference model."""
        weights = self.net.weights()
        count = 2 if self.net.bias else 1
        body, head = weights[:-count], weights[-count:]
        units = self.kept if self.in_order else tuple(sorted(self.kept))
        if self.mode == "slice":
            net = replace(self.net, units=len(units))
            head = [values[..., list(units)] for values in head]
        else:
            net = self.net
            is_kept = np.isin(np.arange(net.units), units)
            head = [np.where(is_kept, values, 0.0) for values in head]
        logits = replace(net, activation="linear")
        return run_keras(logits, [*body, *head]), run_keras(net, [*body, *head])


def run_keras(net: Net, weights: Sequence[Array]) -> Array:
    model = net.built()
    model.set_weights(weights)
    return np.asarray(model(net.inputs(), training=False), np.float64)


@st.composite
def cases(draw: st.DrawFn) -> Case:
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
    return Case(net, tuple(kept), mode, mode == "slice" and draw(st.booleans()))


# --- both orders --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workspace:
    """The child that converts everything, and a folder for files."""

    child: Child
    folder: Path

    def open(self, net: Net) -> RemoteKerasModel:
        model = net.built()
        model.set_weights(net.weights())
        model.save(self.folder / "net.keras")
        return open_keras(self.folder / "net.keras", self.child)

    def convert(self, model: RemoteKerasModel, kind: str) -> Model:
        path = self.folder / f"net{KINDS[kind].suffixes[0]}"
        model.convert(kind, path, ConvertOptions())
        return open_model(path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, child: Child) -> Workspace:
    return Workspace(child, tmp_path_factory.mktemp("both_orders"))


def outputs_of(model: Model, inputs: Array) -> tuple[Array, Array]:
    """(samples, units) z and y of a model with one head."""
    head = trace_axis(model.graph(), model.graph().outputs[0], 1)
    is_output = head.z == head.output
    with_z = model if is_output else model.apply(Plan((AddOutput(head.z, head.z),)))
    run = with_z.runner(RunOptions())
    (name,) = model.graph().inputs
    results = [run({name: sample[None]}) for sample in inputs]
    z, y = (np.concatenate([r[key] for r in results]) for key in (head.z, head.output))
    return z, y


def agree(actual: tuple[Array, Array], expected: tuple[Array, Array], limit: float) -> None:
    for found, wanted in zip(actual, expected, strict=True):
        assert found.shape == wanted.shape
        scale = max(1.0, float(np.abs(wanted).max()))
        assert np.abs(found.astype(np.float64) - wanted).max() <= limit * scale


NET = Net("functional", "dense", 6, "softmax")


@pytest.mark.filterwarnings(r"ignore:[\s\S]*You are using a softmax over axis:UserWarning")
@settings(max_examples=EXAMPLES)
@given(case=cases())
@example(case=Case(NET, (4,)))
@example(case=Case(NET, (4,), "zero"))
@example(case=Case(NET, (0, 1, 2, 3, 4, 5)))
@example(case=Case(NET, (0, 1, 2, 3, 4, 5), "zero"))
@example(case=Case(NET, (5, 2, 0, 1, 4, 3), in_order=True))
@example(case=Case(Net("sequential", "convolution", 12, "softmax", inside=False), (7, 2)))
@example(case=Case(Net("sequential", "none", 2, "sigmoid", bias=False), (1,)))
@example(case=Case(Net("sequential", "none", 3, "linear", bias=False), (2, 0), "zero"))
@example(
    case=Case(Net("functional", "dense", 5, "log_softmax", inside=False, dropout=True), (3, 1))
)
def test_both_orders_match_the_reference(workspace: Workspace, case: Case) -> None:
    inputs, reference = case.net.inputs(), case.reference()
    original = workspace.open(case.net)
    pruned = original.apply(plan_cut(original, case.options).plan)
    agree(outputs_of(pruned, inputs), reference, CUT)
    for kind in EDGE:
        pruned_first = outputs_of(workspace.convert(pruned, kind), inputs)
        converted = workspace.convert(original, kind)
        converted_first = converted.apply(plan_cut(converted, case.options).plan)
        results = outputs_of(converted_first, inputs)
        agree(results, pruned_first, CUT)
        agree(results, reference, EXPORT)
        agree(pruned_first, reference, EXPORT)
        if case.mode == "zero":
            again = converted_first.apply(plan_cut(converted_first, case.options).plan)
            agree(outputs_of(again, inputs), results, 0.0)


@pytest.mark.parametrize("kind", EDGE)
def test_pruned_model_is_converted_and_cut_again(workspace: Workspace, kind: str) -> None:
    """The remap contains indices of the first model, and both earlier models can be compared."""
    first = workspace.open(NET)
    cut = first.apply(plan_cut(first, CutOptions(keep=(5, 3, 1, 0), keep_order=True)).plan)
    source = OpenedModel(cut, None, workspace.child)
    uncut = source.as_kind(kind, workspace.folder)
    again = plan_cut(uncut.model, CutOptions(keep=(2, 0)), uncut.original)
    (table,) = again.remap.heads
    assert table.new_to_old == (5, 1)
    assert (again.remap.original.name, again.remap.parent) == ("net.keras", source.origin)
    pruned = uncut.model.apply(again.plan)
    inputs = VerifyOptions(synthetic_samples(first.graph()))
    for stage, before in (("export", first), ("export", cut), ("cut", uncut.model)):
        checks = verify_pair(cast("Stage", stage), before, pruned, [table], inputs).checks
        assert all(check.passed for check in checks)
    agree(outputs_of(pruned, NET.inputs()), Case(NET, (5, 1), in_order=True).reference(), EXPORT)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Case(NET, (1, 4)), id="swapped units"),
        pytest.param(Case(NET, (4, 0)), id="another unit"),
        pytest.param(Case(NET, (1, 4), "zero"), id="another mode"),
        pytest.param(Case(replace(NET, seed=1), (4, 1), in_order=True), id="other weights"),
    ],
)
def test_comparison_finds_a_wrong_reference(other: Case) -> None:
    reference = Case(NET, (4, 1), in_order=True).reference()
    agree(reference, reference, 0.0)
    with pytest.raises(AssertionError):
        agree(other.reference(), reference, EXPORT)
