"""`dataclass`, with its methods made when the class is first used.

The standard decorator compiles each method of each class while a module is imported. That takes
0.5 ms for a class, and a command uses few of the classes that it imports.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """As `dataclasses.dataclass`; the first instance, or the first look at the fields, counts
        as use.
        """
        if cls is None:
            return lambda given: dataclass(given, **options)
        cls.__dataclass_fields__ = _Fields(lambda: _complete(cls, options))

        def __init__(self: Any, *values: Any, **named: Any) -> None:  # noqa: N807 - of the class
            _complete(cls, options)
            self.__init__(*values, **named)

        cls.__init__ = __init__
        return cls


def _complete(cls: type, options: dict[str, Any]) -> None:
    del cls.__init__, cls.__dataclass_fields__  # type: ignore[misc,attr-defined]
    dataclasses.dataclass(**options)(cls)


class _Fields:
    """The fields of a class that is not complete yet."""

    def __init__(self, complete: Callable[[], None]) -> None:
        self._complete = complete

    def __get__(self, _instance: object, cls: Any) -> Any:
        self._complete()
        return cls.__dataclass_fields__
