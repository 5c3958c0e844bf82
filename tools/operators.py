"""Write `docs/operators.md`: every operator that the tables translate, and where it is tested.

The neutral operations of a row are found in the code of its function.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import documents

from exporter.formats import KINDS
from exporter.graph import operations

PROJECT = documents.PROJECT
DOCUMENT = PROJECT / "docs" / "operators.md"

NEUTRAL = [kind for kind in operations.Operation.__args__ if kind is not operations.Opaque]

HEAD = """\
# Operators

The operators of each format that `exporter` can trace. `tools/operators.py` writes this page from
the translation tables (`make operators`). An operator becomes a neutral operation, for which the
trace has a rule; see [how it works](how-it-works.md). An operator without a row is refused
by name if a unit axis reaches it, and kept unchanged everywhere else.

"Tested by" names the modules in `tests/` that contain the operator.
"""


def tables() -> dict[str, types.ModuleType]:
    """Title of a format -> its translation table, for the formats that files are cut in."""
    return {
        kind.title: import_module(f"{kind.package}.table")
        for kind in KINDS.values()
        if kind.opened_here
    }


def domains(module: types.ModuleType) -> Mapping[str, Mapping[str, Any]]:
    """Domain -> table, for the operators of a format that are not standard ones."""
    found: Mapping[str, Mapping[str, Any]] = getattr(module, "DOMAINS", {})
    return found


def neutral(row: Callable[..., Any]) -> list[str]:
    """The neutral operations that a row can give, in the order of their module."""
    found = {thing for thing in _reached(row, set()) if isinstance(thing, type)}
    return [kind.__name__ for kind in NEUTRAL if kind in found]


def tested_by(kind: str, operator: str) -> list[str]:
    """The modules in `tests/` that name an operator: tests of a kind of model, and its builders."""
    named = re.compile(rf"[\"']{re.escape(operator)}[\"']")
    tests = PROJECT / "tests"
    patterns = (f"formats/{kind}/test_*.py", f"builders/{kind}_*.py")
    return [
        path.relative_to(tests).with_suffix("").as_posix()
        for pattern in patterns
        for path in sorted(tests.glob(pattern))
        if named.search(path.read_text("utf-8"))
    ]


def document() -> str:
    """The document's text."""
    kinds = {kind.title: name for name, kind in KINDS.items()}
    parts = [HEAD]
    for title, module in tables().items():
        parts.append(f"## {title}\n\n" + _translated(kinds[title], module.TABLE))
        for domain, table in domains(module).items():
            parts.append(
                f"### {title}, of the domain `{domain}`\n\n" + _translated(kinds[title], table)
            )
        refused = [(f"`{operator}`", reason) for operator, reason in sorted(module.REASONS.items())]
        parts.append(
            f"### Refused in {title}, with a reason\n\n"
            + documents.table(("Operator", "Reason"), refused)
        )
    return "\n".join(parts)


def _translated(kind: str, table: Mapping[str, Callable[..., Any]]) -> str:
    rows = [
        (f"`{operator}`", ", ".join(neutral(row)), ", ".join(tested_by(kind, operator)))
        for operator, row in sorted(table.items())
    ]
    return documents.table(("Operator", "Neutral operation", "Tested by"), rows)


def _reached(thing: Any, seen: set[int]) -> Iterator[Any]:
    """All objects that a function's code can reach: by name, in its closure, and so on."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    yield thing
    for child in _children(thing):
        yield from _reached(child, seen)


def _children(thing: Any) -> Iterator[Any]:
    if isinstance(thing, types.FunctionType):
        names = _names(thing.__code__)
        yield from (thing.__globals__[name] for name in names if _is_own(thing.__globals__, name))
        yield from (cell.cell_contents for cell in thing.__closure__ or ())
    elif isinstance(thing, Mapping):
        yield from thing.values()
    elif hasattr(thing, "func"):  # a partial function
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif type(thing) in NEUTRAL:
        yield type(thing)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_own(names: Mapping[str, Any], name: str) -> bool:
    """Is it a function, a table or an operation? Modules and other classes are not followed."""
    thing = names.get(name)
    return thing in NEUTRAL if isinstance(thing, type) else thing is not None


def main() -> None:
    """Write the document."""
    documents.write(DOCUMENT, document())


if __name__ == "__main__":
    main()
