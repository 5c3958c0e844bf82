"""`dataclass`, with its methods made when the class is first used.

The standard decorator compiles each method of each class while a module is imported. That takes
0.5 ms for a class, and a command uses few of the classes that it imports.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """As `dataclasses.dataclass`. A class is used when an instance is made, also by pickle, or
        when its fields are read.
        """
        if cls is None:
            return lambda given: dataclass(given, **options)

        def __init__(self: Any, *values: Any, **named: Any) -> None:  # noqa: N807 - of the class
            _complete(cls, options)
            self.__init__(*values, **named)

        def __setstate__(self: Any, state: dict[str, Any]) -> None:  # noqa: N807 - of the class
            _complete(cls, options)
            self.__dict__.update(state)

        cls.__init__, cls.__setstate__ = __init__, __setstate__
        cls.__dataclass_fields__ = _Fields(lambda: _complete(cls, options))
        return cls


# Threads that make the first instances of a class wait for each other. One that starts in the half
# millisecond in which the methods are made can still find the class without `__init__`.
_LOCK = RLock()


def _complete(cls: type, options: dict[str, Any]) -> None:
    with _LOCK:
        if isinstance(vars(cls)["__dataclass_fields__"], _Fields):
            for name in ("__init__", "__setstate__", "__dataclass_fields__"):
                delattr(cls, name)
            dataclasses.dataclass(**options)(cls)


class _Fields:
    """The fields of a class that is not complete yet."""

    def __init__(self, complete: Callable[[], None]) -> None:
        self._complete = complete

    def __get__(self, _instance: object, cls: Any) -> Any:
        self._complete()
        return cls.__dataclass_fields__
