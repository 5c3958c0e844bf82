"""Prune then convert, and convert then prune, for every kind of head that Keras layers make.

All heads are outputs of one model, so that four conversions are enough: of the uncut model and of
the pruned model, each to two formats. The expected outputs are computed in NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

from exporter.conversion import to_onnx, to_tflite
from exporter.formats import KINDS, open_model
from exporter.formats.keras.model import KerasModel
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.graph.edits import Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders.keras_heads import HEADS, weights_of
from tests.builders.square import BEFORE, EXPORT, KEPT, agree, sample

EDGE = tuple(name for name, kind in KINDS.items() if kind.converter)
CONVERT = {"onnx": to_onnx.convert, "tflite": to_tflite.convert}
CUT = 2e-6
NAMES = dict(enumerate(HEADS))


def renamed(model: Any, prefix: str) -> Any:
    """The same model with its own input, and with unique names."""

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config({**config, "name": f"{prefix}_{layer.name}"})

    x = keras.Input(batch_shape=model.inputs[0].shape, name=f"{prefix}_x")
    view = keras.Model(model.inputs, model.outputs)
    made = keras.models.clone_model(view, input_tensors=[x], clone_function=clone)
    made.set_weights(model.get_weights())
    return made


@dataclass(frozen=True)
class Conversions:
    """One model with all heads, converted before and after all heads were cut.

    Attributes:
        expected: case -> output of the cut head.
        outputs: case -> name of its output.
    """

    inputs: dict[str, Array]
    expected: dict[str, Array]
    outputs: dict[str, str]
    converted: dict[str, Model]
    pruned_first: dict[str, Model]


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> Conversions:
    folder = tmp_path_factory.mktemp("conversions")
    inputs, expected, outputs, parts = {}, {}, {}, []
    for number, name in NAMES.items():
        case = HEADS[name]
        model = case.made()
        x = sample(model)
        z = case.values(weights_of(model), x.astype(np.float64))
        expected[name] = case.after(np.take(z, KEPT, axis=case.axis))
        parts.append(renamed(model, f"h{number}"))
        inputs[f"h{number}_x"] = x
    tensors = [part.inputs[0] for part in parts], [part.outputs[0] for part in parts]
    uncut = KerasModel(keras.Model(*tensors, name="every_head"))
    outputs = dict(zip(HEADS, uncut.outputs, strict=True))
    found = trace(uncut.graph())
    edits = [MODES["slice"].edits(found.head(output), KEPT) for output in outputs.values()]
    cut = uncut.apply(Plan(tuple(edit for each in edits for edit in each)))
    made: dict[str, Model] = {}
    for kind, convert in CONVERT.items():
        for stage, model in (("uncut", uncut), ("cut", cut)):
            path = folder / f"{stage}.{kind}"
            convert(model, path)
            made[f"{stage}.{kind}"] = open_model(path)
    return Conversions(
        inputs,
        expected,
        outputs,
        {kind: made[f"uncut.{kind}"] for kind in EDGE},
        {kind: made[f"cut.{kind}"] for kind in EDGE},
    )


@pytest.fixture(scope="module")
def results(conversions: Conversions) -> dict[tuple[str, str], dict[str, Array]]:
    """(kind, order) -> all outputs."""
    found = {}
    for kind in EDGE:
        model = conversions.converted[kind]
        heads = trace(model.graph()).heads
        edits = [
            MODES["slice"].edits(head, KEPT)
            for head in heads
            if head.output in conversions.outputs.values()
        ]
        cut = model.apply(Plan(tuple(edit for each in edits for edit in each)))
        found[kind, "converted first"] = cut.runner(RunOptions())(conversions.inputs)
        pruned = conversions.pruned_first[kind]
        found[kind, "pruned first"] = pruned.runner(RunOptions())(conversions.inputs)
    return found


@pytest.mark.parametrize("kind", EDGE)
@pytest.mark.parametrize("name", HEADS)
def test_both_orders_match_numpy(
    conversions: Conversions, results: dict[tuple[str, str], dict[str, Array]], name: str, kind: str
) -> None:
    output, expected = conversions.outputs[name], conversions.expected[name]
    pruned_first = results[kind, "pruned first"][output]
    agree(pruned_first, expected, EXPORT)
    if (name, kind) in BEFORE:
        refusals = trace(conversions.converted[kind].graph()).refusals
        (reason,) = [str(each) for each in refusals if each.output == output]
        assert BEFORE[name, kind] in reason
        return
    converted_first = results[kind, "converted first"][output]
    agree(converted_first, expected, EXPORT)
    agree(converted_first, pruned_first, CUT)


def test_comparison_finds_a_difference(conversions: Conversions) -> None:
    for expected in conversions.expected.values():
        with pytest.raises(AssertionError):
            agree(expected + 10 * EXPORT, expected, EXPORT)
