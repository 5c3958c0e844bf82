"""Entries of a layer's configuration, named by paths: `units`, `layer.config.units`, `axes.1`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Config = dict[str, Any]


def has_entry(config: Config, path: str) -> bool:
    """Does the path lead to an entry?"""
    value: Any = config
    for step in path.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list | tuple) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return False
    return True


def entry_of(config: Config, path: str) -> Any:
    """What stands there; the path must lead to an entry."""
    value: Any = config
    for step in path.split("."):
        value = value[step] if isinstance(value, dict) else value[int(step)]
    return value


def with_entry(config: Config, path: str, value: Any) -> Config:
    """A copy with another value there; what the copy does not share stays as it was."""
    made: Config = _with(deepcopy(config), path.split("."), value)
    return made


def _with(inner: Any, steps: list[str], value: Any) -> Any:
    if not steps:
        return value
    step, *rest = steps
    if isinstance(inner, dict):
        return {**inner, step: _with(inner[step], rest, value)}
    index = int(step)
    return [*inner[:index], _with(inner[index], rest, value), *inner[index + 1 :]]
