"""Write `docs/modes.md`: the edits of each mode for each activation, format and precision.

The tool plans every cell on the models that the tests build. `tests/modes/test_mode_matrix.py`
checks each of them with its oracle.
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
# Edits of each mode

For example, `--mode mask` on a float softmax fills constants of the head (*filled*); on an int8
softmax it cuts the head and pads the output to its original width (*cut + pad, gather*).

The tables have one cell for each mode, kind of probabilities, activation, format and precision.
`make modes` writes them from the plans for small models. A test runs every cell in the runtime of
its format and compares it with the oracle, or checks that it is refused. The terms are explained in
[how it works](how-it-works.md).

| cell | edits |
|---|---|
| cut | positions are removed from the constants of the head |
| filled | entries of the constants are set: kernel rows to 0, for mask also the bias to a floor |
| + where | an operation after a tensor inserts the floor |
| + pad, gather | the output gets one more position, which all removed units read |
| + gather | the head still computes all units for their sum, and its output is cut |
| + reduce_sum | the members of a group are gathered and summed, dequantized if necessary |
| + exp, reduce_sum, log | the logarithm of the sum of their exponentials, in the same way |
| + top_ids, look_up | ArgMax or TopK after the output, and a lookup of the original indices |
| + branch | operations that compute which units are on |
| + input | a new input that says which units are on |
| refused *n* | see the reasons after the tables |

Each activation is an operation of its own. Integer ONNX models are in QDQ form. If the floor is a
quantized value, it is the lowest one: no unit can be lower, but a kept unit can be equally low.
"""


NOTES = """
Absolute probabilities need a normalization over the units. A sigmoid, logits and a Relu have none:
their outputs are absolute already. In mode zero, zeroed units keep a share of the softmax by
definition; `mask` with `--probabilities absolute` leaves the kept units as they were. No cell is
refused because a runtime lacks a kernel.

Converters drop a bias that is all zeros. An integer head without a bias is masked like a softmax,
as a slice with its width restored: kept quantized values are bit-identical, removed units get the
lowest one. Moving quantized values is exact in every kernel, and the head has fewer rows than with
a bias.

Which heads can have a gate: [gates](gates.md).

A factor for each unit after a softmax or a sigmoid, such as a calibration, is cut with its unit;
only the softmax before it is renormalized.
"""


def document() -> str:
    """The text of the document."""
    reasons: dict[str, int] = {}
    parts = [HEAD]
    for mode in mode_cells.MODES:
        for probabilities in mode_cells.PROBABILITIES:
            rows = list(_rows(mode, probabilities, reasons))
            title = f"## {mode}, {probabilities}\n\n"
            parts.append(title + documents.table(("activation", *_columns()), rows))
    for title, options in mode_cells.MORE_OPTIONS.items():
        rows = list(_more_rows(options, reasons))
        parts.append(f"## {title}\n\n" + documents.table(("activation", *_columns()), rows))
    listed = "".join(f"{number}. {reason}\n" for reason, number in reasons.items())
    return "\n".join([*parts, "## Refused\n\n" + listed + NOTES])


def _more_rows(options: Mapping[str, Any], reasons: dict[str, int]) -> Iterator[tuple[str, ...]]:
    for head in mode_cells.HEADS:
        row = [
            _planned(mode_cells.built(head, kind, precision), options, reasons)
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
            _describe_cell(Cell(mode, probabilities, head, kind, precision), reasons)
            for kind in mode_cells.KINDS
            for precision in mode_cells.PRECISIONS
        ]
        yield (head, *row)


def _describe_cell(cell: Cell, reasons: dict[str, int]) -> str:
    model = mode_cells.built(cell.head, cell.kind, cell.precision)
    return _planned(model, mode_cells.options_of(cell), reasons)


def _planned(model: Model, options: Mapping[str, Any], reasons: dict[str, int]) -> str:
    try:
        cut = plan_cut(model, CutOptions(**options))
    except ExporterError as error:
        number = reasons.setdefault(f"{error.message}; {error.hint}", len(reasons) + 1)
        return f"refused {number}"
    return describe_edits(cut.plan.edits)


def describe_edits(edits: tuple[Edit, ...]) -> str:
    """A cell of the table, for example "cut + pad, gather"."""
    kinds = {type(edit) for edit in edits}
    parts = [word for kind, word in ((Take, "cut"), (Fill, "filled")) if kind in kinds]
    given = ["input"] if AddInput in kinds else []
    branches = any(isinstance(edit, Insert) and _in_branch(edit) for edit in edits)
    inserted = [e.operation for e in edits if isinstance(e, Insert) and not _in_branch(e)]
    steps = [step.operation for edit in edits if isinstance(edit, Compute) for step in edit.steps]
    computed = dict.fromkeys(name for name in steps if name in _COMPUTED)
    operations = ", ".join([*given, *(["branch"] if branches else []), *inserted, *computed])
    return " ".join([*parts, f"+ {operations}"] if operations else parts)


def _in_branch(edit: Insert) -> bool:
    return (edit.name or "").startswith("gate/")


_COMPUTED = {"dequantize", "where", "reduce_sum", "exp", "log", "quantize"}


def main() -> None:
    """Write the document."""
    assert set(mode_cells.MODES) <= set(MODES)  # noqa: S101 - a script
    documents.write(DOCUMENT, document())


if __name__ == "__main__":
    main()
