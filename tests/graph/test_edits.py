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
    Replace,
    SetAttribute,
    SetShape,
    Take,
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
    ],
)
def test_text_of_an_edit(edit: Edit, text: str) -> None:
    assert str(edit) == text
    assert str(Plan((edit, edit))) == f"{text}\n{text}"


def test_every_edit_has_a_text() -> None:
    assert len(Edit.__args__) == 9
