"""The square of pruning and converting over every kind of head that Keras layers make.

All heads are outputs of one model, so that four conversions serve them all: of the model, and of
the one in which every head was cut before, to each format. The witness is NumPy.
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
    """The same model on an input of its own, with names that no other has."""

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config({**config, "name": f"{prefix}_{layer.name}"})

    x = keras.Input(batch_shape=model.inputs[0].shape, name=f"{prefix}_x")
    view = keras.Model(model.inputs, model.outputs)
    made = keras.models.clone_model(view, input_tensors=[x], clone_function=clone)
    made.set_weights(model.get_weights())
    return made


@dataclass(frozen=True)
class Square:
    """Every head in one model, converted before and after every head was cut.

    Attributes:
        witness: case -> what the cut head must answer.
        outputs: case -> name of its output.
    """

    inputs: dict[str, Array]
    witness: dict[str, Array]
    outputs: dict[str, str]
    converted: dict[str, Model]
    pruned_first: dict[str, Model]


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Square:
    folder = tmp_path_factory.mktemp("square")
    inputs, witness, outputs, parts = {}, {}, {}, []
    for number, name in NAMES.items():
        case = HEADS[name]
        model = case.made()
        x = sample(model)
        z = case.values(weights_of(model), x.astype(np.float64))
        witness[name] = case.after(np.take(z, KEPT, axis=case.axis))
        parts.append(renamed(model, f"h{number}"))
        inputs[f"h{number}_x"] = x
    tensors = [part.inputs[0] for part in parts], [part.outputs[0] for part in parts]
    whole = KerasModel(keras.Model(*tensors, name="every_head"))
    outputs = dict(zip(HEADS, whole.outputs, strict=True))
    found = trace(whole.graph())
    edits = [MODES["slice"].edits(found.head(output), KEPT) for output in outputs.values()]
    cut = whole.apply(Plan(tuple(edit for each in edits for edit in each)))
    options: dict[str, Any] = {"opset": 17, "batch": 1, "input_shapes": {}}
    made: dict[str, Model] = {}
    for kind, convert in CONVERT.items():
        for stage, model in (("whole", whole), ("cut", cut)):
            path = folder / f"{stage}.{kind}"
            convert(model, path, **options)
            made[f"{stage}.{kind}"] = open_model(path)
    return Square(
        inputs,
        witness,
        outputs,
        {kind: made[f"whole.{kind}"] for kind in EDGE},
        {kind: made[f"cut.{kind}"] for kind in EDGE},
    )


@pytest.fixture(scope="module")
def answers(square: Square) -> dict[tuple[str, str], dict[str, Array]]:
    """(kind, which way round) -> every output."""
    results = {}
    for kind in EDGE:
        model = square.converted[kind]
        found = trace(model.graph())
        edits = [
            MODES["slice"].edits(head, KEPT)
            for head in found.heads
            if head.output in square.outputs.values()
        ]
        cut = model.apply(Plan(tuple(edit for each in edits for edit in each)))
        results[kind, "converted first"] = cut.runner(RunOptions())(square.inputs)
        pruned = square.pruned_first[kind]
        results[kind, "pruned first"] = pruned.runner(RunOptions())(square.inputs)
    return results


@pytest.mark.parametrize("kind", EDGE)
@pytest.mark.parametrize("name", HEADS)
def test_the_square_commutes(
    square: Square, answers: dict[tuple[str, str], dict[str, Array]], name: str, kind: str
) -> None:
    output, expected = square.outputs[name], square.witness[name]
    pruned_first = answers[kind, "pruned first"][output]
    agree(pruned_first, expected, EXPORT)
    if (name, kind) in BEFORE:
        refusals = trace(square.converted[kind].graph()).refusals
        (reason,) = [str(each) for each in refusals if each.output == output]
        assert BEFORE[name, kind] in reason
        return
    converted_first = answers[kind, "converted first"][output]
    agree(converted_first, expected, EXPORT)
    agree(converted_first, pruned_first, CUT)


def test_another_cut_is_noticed(square: Square) -> None:
    for expected in square.witness.values():
        with pytest.raises(AssertionError):
            agree(expected + 10 * EXPORT, expected, EXPORT)
