"""The library versions of a job; see also `exporter.ondevice.machine`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from exporter.formats import KINDS
from exporter.quantization import PRECISIONS

DISTRIBUTIONS = tuple(
    dict.fromkeys(
        (
            *("unit-exporter", "numpy"),
            *(library for kind in KINDS.values() for library in kind.libraries),
            *(each.library for row in PRECISIONS.values() for each in row.quantizers.values()),
        )
    )
)


class OnDemand(Mapping[str, Any]):
    """Facts that are collected when one of them is read first: a terminal shows none of them."""

    def __init__(self, collect: Callable[[], Mapping[str, Any]]) -> None:
        self._collect = collect

    @cached_property
    def _facts(self) -> Mapping[str, Any]:
        return self._collect()

    def __getitem__(self, name: str) -> Any:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


def versions() -> dict[str, str]:
    """Distribution -> installed version, and "python"; imports none of these libraries."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
