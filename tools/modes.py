"""Write `docs/modes.md`: what each mode comes to on each kind of head, format and precision.

The cells are planned anew, on the models that the tests build. `tests/modes/test_mode_matrix.py`
proves each of them with its oracle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import documents

from exporter.errors import ExporterError
from exporter.formats.model import Model
from exporter.graph.edits import AddInput, Compute, Edit, Fill, Insert, Take
from exporter.modes import MODES
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders import mode_cells
from tests.builders.mode_cells import Cell

DOCUMENT = documents.PROJECT / "docs" / "modes.md"

HEAD = """\
# Modes, cell by cell

What becomes of a head, by mode, kind of probabilities, activation, format and precision. Written by
`tools/modes.py` (`make modes`) from plans for small models; a test proves every cell by its oracle,
in the runtime of its format, or that it is refused. For the words see
[how it works](how-it-works.md).

| a cell says | how |
|---|---|
| cut | positions are taken out of the head's constants |
| filled | entries of the head's constants are set: rows of zeros, in mask a floor as bias |
| + where | an operation behind a tensor puts the floor there |
| + pad, gather | the head's output gets one more position, which all removed units read |
| + gather | the whole head stays for its sum, and its output is cut |
| + reduce_sum | a group's members are gathered and summed, real values for codes |
| + exp, reduce_sum, log | the logarithm of the sum of their exponentials, likewise |
| + top_ids, look_up | ids behind the output, looked up as the original's |
| + branch | operations that find out which units are on |
| + input | those that one more input has on |
| refused *n* | see the reasons below the tables |

Every activation is an operation of its own. Integer ONNX models are in QDQ form. Where the floor
would be among codes, it is the lowest one: no unit can be lower, and one that stays can be as low.
"""


BEHIND = """
Absolute probabilities are those of a common denominator. A sigmoid, logits and a Relu have none:
what they answer is absolute already. Zeroed units have a share in the denominator, which is what
the mode means; `mask` with `--probabilities absolute` leaves the kept ones as they were. No cell is
refused because a runtime lacks a kernel.

An integer head without a bias - converters drop one that is all zeros - is masked as a slice whose
width is restored, like a softmax: kept codes are equal to the bit, removed ones the lowest code.
Moving codes is exact in every kernel, and the head has fewer rows than with a bias for the floor.

Gates, and which heads have a place for one: [gates](gates.md).

A factor of each unit behind a softmax or a sigmoid, such as a calibration, is cut with its unit;
what is renormalized is the softmax in front of it.
"""


def document() -> str:
    """The whole document."""
    reasons: dict[str, int] = {}
    parts = [HEAD]
    for mode in mode_cells.MODES:
        for probabilities in mode_cells.PROBABILITIES:
            rows = list(_rows(mode, probabilities, reasons))
            title = f"## {mode}, {probabilities}\n\n"
            parts.append(title + documents.table(("activation", *_columns()), rows))
    for title, choice in mode_cells.FURTHER.items():
        rows = list(_further(choice, reasons))
        parts.append(f"## {title}\n\n" + documents.table(("activation", *_columns()), rows))
    listed = "".join(f"{number}. {reason}\n" for reason, number in reasons.items())
    return "\n".join([*parts, "## Refused\n\n" + listed + BEHIND])


def _further(choice: Mapping[str, Any], reasons: dict[str, int]) -> Iterator[tuple[str, ...]]:
    for head in mode_cells.HEADS:
        row = [
            _planned(mode_cells.built(head, kind, precision), choice, reasons)
            for kind in mode_cells.KINDS
            for precision in mode_cells.PRECISIONS
        ]
        yield (head, *row)


def _columns() -> Iterator[str]:
    for kind in mode_cells.KINDS:
        yield from (f"{kind} {precision}" for precision in mode_cells.PRECISIONS)


def _rows(mode: str, probabilities: str, reasons: dict[str, int]) -> Iterator[tuple[str, ...]]:
    for head in mode_cells.HEADS:
        row = [
            _told(Cell(mode, probabilities, head, kind, precision), reasons)
            for kind in mode_cells.KINDS
            for precision in mode_cells.PRECISIONS
        ]
        yield (head, *row)


def _told(cell: Cell, reasons: dict[str, int]) -> str:
    model = mode_cells.built(cell.head, cell.kind, cell.precision)
    return _planned(model, mode_cells.choice_of(cell), reasons)


def _planned(model: Model, choice: Mapping[str, Any], reasons: dict[str, int]) -> str:
    try:
        cut = plan_cut(model, CutOptions(**choice))
    except ExporterError as error:
        number = reasons.setdefault(f"{error.message}; {error.hint}", len(reasons) + 1)
        return f"refused {number}"
    return how(cut.plan.edits)


def how(edits: tuple[Edit, ...]) -> str:
    """In the words of the document."""
    kinds = {type(edit) for edit in edits}
    parts = [word for kind, word in ((Take, "cut"), (Fill, "filled")) if kind in kinds]
    given = ["input"] if AddInput in kinds else []
    branches = any(isinstance(edit, Insert) and _in_branch(edit) for edit in edits)
    inserted = [e.operation for e in edits if isinstance(e, Insert) and not _in_branch(e)]
    steps = [step.operation for edit in edits if isinstance(edit, Compute) for step in edit.steps]
    combined = dict.fromkeys(name for name in steps if name in _COMBINED)
    behind = ", ".join([*given, *(["branch"] if branches else []), *inserted, *combined])
    return " ".join([*parts, f"+ {behind}"] if behind else parts)


def _in_branch(edit: Insert) -> bool:
    return (edit.name or "").startswith("gate/")


_COMBINED = {"dequantize", "where", "reduce_sum", "exp", "log", "quantize"}  # what joins values


def main() -> None:
    """Write the document."""
    assert set(mode_cells.MODES) <= set(MODES)  # noqa: S101 - a script
    documents.write(DOCUMENT, document())


if __name__ == "__main__":
    main()
