"""The text of an edit is one line, as `--dry-run` prints it."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.graph import Use
from exporter.graph.edits import (
    AddInput,
    AddOutput,
    Compute,
    ComputeStep,
    Edit,
    Fill,
    Insert,
    Plan,
    RemoveOutputs,
    Replace,
    SetAttribute,
    SetShape,
    Take,
    with_free_names,
)

USES = (Use("fc", 1),)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (Take("w", 1, np.arange(3), USES), "take 3 positions of 'w' along axis 1"),
        (Fill("w", 0, np.arange(2), 0.0, USES), "fill 2 positions of 'w' along axis 0 with 0"),
        (Replace("shape", np.array([-1, 3]), USES), "replace 'shape' by [-1,  3]"),
        (SetShape("y", (None, 3)), "set the shape of 'y' to [?, 3]"),
        (SetAttribute("fc", "units", 3), "set units of 'fc' to 3"),
        (Insert("add", "z"), "insert add after 'z'"),
        (
            Compute("z", (ComputeStep("exp", (0,)), ComputeStep("add", (0, 1)))),
            "compute after 'z': exp, add",
        ),
        (AddInput("mask", (3,), "bool"), "add the input 'mask'"),
        (AddOutput("z", "logits"), "return 'z' as the output 'logits'"),
        (RemoveOutputs(("z",)), "remove the outputs 'z', and what only they need"),
    ],
)
def test_text_of_an_edit(edit: Edit, text: str) -> None:
    assert str(edit) == text
    assert str(Plan((edit, edit))) == f"{text}\n{text}"


def test_every_edit_has_a_text() -> None:
    assert len(Edit.__args__) == 10


def test_names_that_the_model_has_are_numbered() -> None:
    constant = np.ones(3)
    edits = (
        AddInput("mask", (3,), "bool"),
        Insert("sigmoid", "z", name="gate/value"),
        Insert("greater", "gate/value", ("mask", constant), name="gate/on"),
        Insert("where", "z", ("gate/on", constant)),
        Compute("y", (ComputeStep("where", (0,), ("gate/on", constant)),)),
        Compute("gate/on", (ComputeStep("not", (0,)),)),
    )
    assert with_free_names(edits, {"z", "y"}) == edits
    taken = {"gate/on", "gate_2/value"}
    mask, value, on, where, step, other = with_free_names(edits, taken)
    assert mask is edits[0]
    assert isinstance(value, Insert)
    assert (value.after, value.name) == ("z", "gate_3/value")
    assert isinstance(on, Insert)
    assert (on.after, on.operands, on.name) == ("gate_3/value", ("mask", constant), "gate_3/on")
    assert isinstance(where, Insert)
    assert (where.after, where.operands, where.name) == ("z", ("gate_3/on", constant), None)
    assert isinstance(step, Compute)
    assert (step.after, step.steps[0].operands) == ("y", ("gate_3/on", constant))
    assert isinstance(other, Compute)
    assert other.after == "gate_3/on"
