"""Settings in a layer's configuration, found by paths: `units`, `layer.config.units`, `axes.1`.

Each part of a path is the key of a dict, or the position in a list or tuple.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Config = dict[str, Any]


def setting(config: Config, path: str) -> Any:
    """The value at a path (raises LookupError, TypeError or ValueError if it does not exist)."""
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
    """A copy with a new value at a path that exists."""
    copy = deepcopy(config)
    parent_path, _, key = path.rpartition(".")
    parent: Any = setting(copy, parent_path) if parent_path else copy
    if isinstance(parent, tuple):  # which cannot be changed: a list replaces it
        changed = [*parent[: int(key)], value, *parent[int(key) + 1 :]]
        return with_setting(copy, parent_path, changed)
    parent[key if isinstance(parent, dict) else int(key)] = value
    return copy
