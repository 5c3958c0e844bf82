"""Look up what a format can write in its table of operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from exporter.errors import ModelError
from exporter.graph.edits import ComputeStep, Insert


class WritableOperation(Protocol):
    """What every format's entry tells.

    Attributes:
        operands: how many the operation takes; None for any number.
        attributes: by name, the default; None where there is none and it must be given.
    """

    @property
    def operands(self) -> int | None: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...


_E = TypeVar("_E", bound=WritableOperation)


def find_operation(
    table: Mapping[str, _E], edit: Insert | ComputeStep, count: int, title: str
) -> _E:
    """The entry of an operation.

    Args:
        table: of the format.
        edit: names the operation and gives its attributes.
        count: of the operands that it is given.
        title: of the format.

    Raises:
        ModelError: the table has no such operation, or it takes other operands or attributes.
    """
    name = edit.operation
    entry = table.get(name)
    if entry is None:
        known = ", ".join(table)
        raise ModelError(f"{title} cannot write the operation {name!r}; it can: {known}")
    if count != entry.operands and entry.operands is not None:
        raise ModelError(f"the operation {name!r} does not take {count} operands")
    foreign = set(edit.attributes) - set(entry.attributes)
    needed = {each for each, default in entry.attributes.items() if default is None}
    for each in sorted(foreign | needed - set(edit.attributes)):
        verb = "has no" if each in foreign else "needs the"
        raise ModelError(f"the operation {name!r} {verb} attribute {each!r}")
    return entry
