"""Every kind of head, live and as a file, against NumPy."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import ModelError
from exporter.formats import open_model
from exporter.formats.keras.model import KerasModel
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders.keras_heads import HEADS, HeadCase, weights_of

KEPT = [4, 0, 5]  # not ascending: kept units may change their order
ASCENDING = [0, 4, 5]
UNITS = 7
TWO_PARTS = "two parts of one axis"  # only an ascending order can be kept here


@cache
def opened(name: str) -> KerasModel:
    return KerasModel(HEADS[name].made())


def sample(model: Any) -> Array:
    shape = [n or 3 for n in model.inputs[0].shape]
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def kept_of(name: str) -> list[int]:
    return ASCENDING if name == TWO_PARTS else KEPT


def run(model: Model, x: Array) -> dict[str, Array]:
    return model.runner(RunOptions())({"x": x})


def by_hand(case: HeadCase, model: Any) -> tuple[Array, Array]:
    """The input and z, in float64."""
    x = sample(model)
    return x, case.values(weights_of(model), x.astype(np.float64))


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_found_and_its_z_is_returned(name: str) -> None:
    case, model = HEADS[name], opened(name)
    head = trace(model.graph()).head()
    x, z = by_hand(case, model.model)
    assert (head.units, head.tensor(head.z).unit_axis.axis) == (UNITS, case.axis)
    shown = run(model.apply(Plan((AddOutput(head.z, "z"),))), x)
    np.testing.assert_allclose(shown["z"], z, rtol=0, atol=5e-6)
    np.testing.assert_array_equal(shown[head.output], run(model, x)[head.output])
    np.testing.assert_allclose(shown[head.output], case.after(z), rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", HEADS)
def test_sliced_live_and_from_a_file(name: str, tmp_path: Path) -> None:
    case, model = HEADS[name], opened(name)
    head = trace(model.graph()).head()
    x, z = by_hand(case, model.model)
    expected = case.after(np.take(z, kept_of(name), axis=case.axis))
    pruned = model.apply(Plan(MODES["slice"].edits(head, kept_of(name))))
    output = run(pruned, x)[head.output]
    np.testing.assert_allclose(output, expected, rtol=0, atol=5e-6)
    pruned.write(tmp_path / "small.keras")
    again = open_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(run(again, x)[head.output], output)
    assert trace(again.graph()).head().units == len(KEPT)
    assert type(pruned.model) is type(model.model)


@pytest.mark.parametrize("name", [name for name, case in HEADS.items() if case.zero])
def test_zeroed(name: str) -> None:
    case, model = HEADS[name], opened(name)
    head = trace(model.graph()).head()
    x, z = by_hand(case, model.model)
    index: list[Any] = [slice(None)] * z.ndim
    index[case.axis] = [unit for unit in range(UNITS) if unit not in KEPT]
    z[tuple(index)] = 0.0
    plan = Plan((*MODES["zero"].edits(head, KEPT), AddOutput(head.z, "z")))
    output = run(model.apply(plan), x)
    np.testing.assert_allclose(output[head.output], case.after(z), rtol=0, atol=5e-6)
    assert not output["z"][tuple(index)].any()


@pytest.mark.parametrize("name", [name for name, case in HEADS.items() if not case.zero])
def test_zero_is_refused_after_a_function_that_does_not_map_0_to_0(name: str) -> None:
    head = trace(opened(name).graph()).head()
    with pytest.raises(ModelError, match="does not map 0 to 0"):
        MODES["zero"].edits(head, KEPT)
