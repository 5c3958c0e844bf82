"""An option, declared once, as a field of an options record:

    keep_order: bool = option(False, "Keep the given order instead of ascending order.")

The command line (`--keep-order`), the keyword of the Python functions (`keep_order`), and the help
of both are made from the field. This module and the records import no NumPy, so that `--help` is
fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

_METADATA = "option"
ADVANCED = "Advanced"  # the section of options that are rarely needed


@dataclass(frozen=True)
class Option:
    """The declaration of an option.

    Attributes:
        help: one or two sentences, for `--help` and `help()`. Other options are written as flags.
        section: heading in `--help`; ADVANCED for what is rarely needed.
        flag: spelling on the command line, where it is not the field's name; None for an option of
            Python only.
        parse: how the command line reads a value, a key of `cli.values.PARSERS`; "" for the
            parser of the field's type. A field with a path has "path".
        metavar: the value in `--help`.
        choices: the values allowed -> their help; a field with a tuple takes a comma list of them.
        minimum, maximum: bounds of a number; `is_open` excludes the minimum itself.
        commands: names of the commands and functions that have the option.
        name, type, default: of the field.
    """

    help: str
    section: str
    flag: str | None = ""
    parse: str = ""
    metavar: str | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    minimum: int | None = None
    maximum: int | None = None
    is_open: bool = False
    commands: tuple[str, ...] = ()
    name: str = ""
    type: str = ""
    default: Any = None

    @property
    def value(self) -> str | None:
        """The metavar: what to give, from the type and the name unless it is declared."""
        is_number = self.type.startswith(("int", "float"))
        if self.metavar or self.parse or self.choices or not is_number:
            return self.metavar
        if self.name.endswith(("_s", "_seconds")):
            return "SECONDS"
        if (self.minimum, self.maximum) == (0, 1):
            return "SHARE"
        return "COUNT" if self.type.startswith("int") else "NUMBER"

    @property
    def text(self) -> str:
        """The help, with the choices."""
        separator = ". " if any(self.choices.values()) else ", "
        texts = (f"{name}: {text}" if text else name for name, text in self.choices.items())
        listed = separator.join(texts)
        return f"{self.help} {listed}." if listed else self.help


def option(
    default: Any, text: str, section: str, commands: tuple[str, ...] = (), **details: Any
) -> Any:
    """A dataclass field with an `Option`; `details` are further attributes of the `Option`."""
    metadata = {_METADATA: Option(text, section, commands=commands, **details)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def options_of(record: type, command: str | None = None) -> tuple[Option, ...]:
    """The options of a record, in the order of its fields; all, or only of one command."""
    return _options_of(record, command)


@cache
def _options_of(record: type, command: str | None) -> tuple[Option, ...]:
    found = []
    for each in fields(record):
        declared: Option | None = each.metadata.get(_METADATA)
        if declared is None or (command is not None and command not in declared.commands):
            continue
        default = each.default if each.default_factory is not dict else {}
        flag = declared.flag
        if flag == "":
            flag = f"--{each.name.replace('_', '-')}"
        kind = str(each.type)
        parse = "path" if kind.startswith("Path") else declared.parse
        values: dict[str, Any] = {"name": each.name, "type": kind, "default": default, "flag": flag}
        found.append(replace(declared, parse=parse, **values))
    return tuple(found)


@cache
def names_of_type(record: type, *types: str) -> tuple[str, ...]:
    """The options of a record with one of these types, as they are written; None is another."""
    given = ((each.name, each.type.removesuffix(" | None")) for each in options_of(record))
    return tuple(name for name, kind in given if kind in types)


@cache
def limited(record: type) -> tuple[Option, ...]:
    """The options of a record with a smallest or a largest value."""
    return tuple(o for o in options_of(record) if (o.minimum, o.maximum) != (None, None))
