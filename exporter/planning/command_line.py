"""The command line that is equal to a call of a Python function, and its options as data.

run("net.onnx", "out", keep=[1, 4])   is   exporter run net.onnx -o out --keep 1,4
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.planning.option import Option, options_of
from exporter.selection import Selection


def option_values(name: str, *records: object) -> dict[str, Any]:
    """Option -> its value, given or default, of a command: strings, numbers, lists and objects.

    Args:
        name: of the command.
        records: the options records, such as `Job`.
    """
    return {
        option.name: _plain(getattr(record, option.name))
        for record in records
        for option in options_of(type(record), name)
        if option.flag
    }


def command_line(name: str, arguments: Sequence[object], *records: object, **changed: Any) -> str:
    """The command with all options that are not the default; "" if no command can be written.

    Args:
        name: of the command.
        arguments: paths, and options that are not in a record, such as ("net.onnx", "-o", "out").
        records: the options records.
        changed: option -> another value than in its record.
    """
    words = ["exporter", name, *(getattr(each, "url", "") or str(each) for each in arguments)]
    for record in records:
        for option in options_of(type(record), name):
            value = changed.get(option.name, getattr(record, option.name))
            if option.flag and value != option.default:
                found = _words(option, value)
                if found is None:
                    return ""
                words += found
    return shlex.join(words)


def _words(option: Option, value: Any) -> list[str] | None:
    """The words of one option; None if a value has no spelling, such as labels in a list."""
    flag = str(option.flag)
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, Mapping):
        return [word for key, each in value.items() for word in (flag, f"{key}={spec_text(each)}")]
    if option.parse == "name":
        return [word for each in value for word in (flag, each)]
    if option.parse == "path" and not isinstance(value, str | Path):
        return None
    if isinstance(value, Selection):
        return [flag, spec_text(value.kept)]
    return [flag, getattr(value, "url", "") or spec_text(value)]


def spec_text(value: Any) -> str:
    """A comma list as the command line reads it."""
    if isinstance(value, tuple | list):
        return ",".join(_entry(each) if isinstance(each, str) else str(each) for each in value)
    return str(value)


def _entry(text: str) -> str:
    """An entry of a list of units; quotes protect its commas and white space."""
    start = text[:1] if text[:1] in {"=", "@"} else ""
    rest = text[len(start) :]
    if "," not in rest and rest == rest.strip():
        return text
    quote = "'" if '"' in rest else '"'
    return f"{start}{quote}{rest}{quote}"


def _plain(value: Any) -> Any:
    """A value that JSON can contain."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Selection):
        return list(value.kept)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "url", "") or str(value)
