"""Settings in a layer's configuration, named by paths: `units`, `layer.config.units`, `axes.1`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Config = dict[str, Any]


def setting(config: Config, path: str) -> Any:
    """The value at a path (LookupError, TypeError or ValueError if there is none)."""
    value: Any = config
    for key in path.split("."):
        value = value[key] if isinstance(value, dict) else value[int(key)]
    return value


def has_setting(config: Config, path: str) -> bool:
    try:
        setting(config, path)
    except (LookupError, TypeError, ValueError):
        return False
    return True


def with_setting(config: Config, path: str, value: Any) -> Config:
    """A copy with another value at a path that exists."""
    copy = deepcopy(config)
    parent, _, last = path.rpartition(".")
    inner: Any = setting(copy, parent) if parent else copy
    if isinstance(inner, tuple):
        return with_setting(copy, parent, [*inner[: int(last)], value, *inner[int(last) + 1 :]])
    inner[last if isinstance(inner, dict) else int(last)] = value
    return copy
