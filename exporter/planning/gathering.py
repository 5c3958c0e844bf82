"""Heads whose units a Gather takes: the options that fit them, and the warning about them."""

from __future__ import annotations

from exporter.errors import UsageError
from exporter.planning.options import CutOptions
from exporter.trace.head import Head


def check_gathered(head: Head, options: CutOptions) -> None:
    """UsageError for options that change weights of the head, or the values of its units."""
    asked = {
        f"mode {options.mode}": options.mode != "slice",
        "--restore-width": options.restore_width,
        "--merge": bool(options.merge),
        "--probabilities absolute": options.semantics.absolute,
        "--vocabulary both": options.cuts_input,
    }
    if name := next((name for name, is_asked in asked.items() if head.gather and is_asked), None):
        raise UsageError(
            f"the units of head {head.name!r} are mixed before its output: a Gather can only take "
            f"them as they are, without {name}",
            "leave it out",
        )


def gather_note(head: Head) -> str:
    """What the Gather does, and which outputs still depend on all units."""
    where = f"axis {head.axis} of {head.output!r}"
    kept = "; what is computed from it still uses all units" if head.gather == "output" else ""
    return (
        f"a Gather takes the kept units from {where}, whose values do not change: its units are "
        f"mixed before, so that no weight is removed and the file does not get smaller{kept}"
    )
