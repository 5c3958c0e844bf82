"""Options by their names in a file, with values of TOML, of CSV, or of the command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from exporter.errors import UsageError, nearest
from exporter.planning import option_text
from exporter.planning.option import Option, options_of

_YES, _NO = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}
# Options that replace each other: a layer that sets one of them drops the others of layers below.
EXCLUSIVE = (
    frozenset({"keep", "remove", "cuts"}),
    frozenset({"calibration", "synthetic_calibration"}),
)


def options_by_key(command: str, *records: type) -> dict[str, Option]:
    """Name of an option without its dashes -> the option, of one command."""
    found = (each for record in records for each in options_of(record, command))
    return {str(each.flag)[2:]: each for each in found if each.flag}


def read_options(
    table: Mapping[str, Any], known: Mapping[str, Option], where: str
) -> dict[str, Any]:
    """Field of an options record -> its value.

    Args:
        table: key -> value; a key may have underscores in place of dashes.
        known: the options by key.
        where: names the table in errors, such as "[options]".

    Raises:
        UsageError: an unknown key, or a value that the option does not take.
    """
    values = {}
    for key, value in table.items():
        option = known.get(key.replace("_", "-"))
        if option is None:
            similar = nearest(key.replace("_", "-"), known)
            raise UsageError(
                f"{where} has the key {key!r}, which is no option",
                f"did you mean {similar!r}?" if similar else "`exporter run --help` shows them all",
            )
        try:
            values[option.name] = read_value(option, value)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{where}: {key} is {value!r}: {error}", f"give what {option.flag} takes"
            ) from error
    return values


def merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of all layers; a later layer wins."""
    values: dict[str, Any] = {}
    for layer in layers:
        for group in EXCLUSIVE:
            if group & layer.keys():
                values = {name: value for name, value in values.items() if name not in group}
        values |= layer
    return values


def read_value(option: Option, value: Any) -> Any:
    """The value of an option, as its record takes it (raises ValueError or TypeError)."""
    if option.parse in _READERS:
        return _READERS[option.parse](option, value)
    if option.parse == "path" or option.metavar == "SPEC":
        return _text_or_list(value)
    start = next((start for start in _BY_TYPE if option.type.startswith(start)), None)
    return _BY_TYPE[start](option, value) if start else _choice(option, value)


def _flag(_option: Option, value: Any) -> bool:
    text = str(value).strip().lower()
    if isinstance(value, bool) or text in _YES | _NO:
        return text in _YES
    raise ValueError("give true or false")


def _number(_option: Option, value: Any) -> float:
    number = float(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise TypeError("give a number")
    return number


def _whole(value: Any) -> int:
    number = int(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError("give a whole number")
    return number


def _size(_option: Option, value: Any) -> int:
    return option_text.parse_size(value) if isinstance(value, str) else _whole(value)


def _duration(option: Option, value: Any) -> float:
    return option_text.parse_duration(value) if isinstance(value, str) else _number(option, value)


def _ends(_option: Option, value: Any) -> Any:
    return value if isinstance(value, bool) else _names(value, option_text.parse_ends)


def _choice(option: Option, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("give a text")
    if option.choices and value not in option.choices:
        raise ValueError(f"choose one of {', '.join(option.choices)}")
    return value


def _text_or_list(value: Any) -> Any:
    """A SPEC or a path; numbers are units."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple) and all(type(each) in {str, int} for each in value):
        return tuple(value)
    raise TypeError("give a text or a list")


def _names(value: Any, read: Any) -> Any:
    if isinstance(value, str):
        return read(value)
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise TypeError("give a text, or a list of texts")


def _list(option: Option, value: Any) -> tuple[str, ...]:
    """Names in a list, or in a text with commas if the command line takes that too."""
    single = option.parse == "name"  # a name may contain a comma
    found: tuple[str, ...] = _names(value, lambda text: (text,) if single else _split(text))
    for each in found:
        if option.choices and each not in option.choices:
            raise ValueError(f"{each!r} is not one of {', '.join(option.choices)}")
    return found


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _mapping(option: Option, value: Any) -> dict[str, Any]:
    """A table, or texts NAME=VALUE as on the command line."""
    if not isinstance(value, Mapping):
        texts = value if isinstance(value, list | tuple) else [value]
        return dict(pair for text in texts for pair in _pairs(option, str(text)))
    if option.parse == "shape":
        shape = {name: _split(v) if isinstance(v, str) else v for name, v in value.items()}
        return {name: tuple(map(_whole, numbers)) for name, numbers in shape.items()}
    if option.parse == "dims":
        return {name: _whole(number) for name, number in value.items()}
    return {str(name): _text_or_list(each) for name, each in value.items()}


def _pairs(option: Option, text: str) -> Iterable[tuple[str, Any]]:
    if option.parse == "shape":
        return [option_text.parse_shape(text)]
    if option.parse == "dims":
        return option_text.parse_dims(text)
    return [option_text.parse_pair(text)]


_Reader = Callable[[Option, Any], Any]
# `Option.parse`, or how the type of the field starts -> reads the value
_READERS: Mapping[str, _Reader] = {"size": _size, "duration": _duration, "ends": _ends}
_BY_TYPE: Mapping[str, _Reader] = {
    "bool": _flag,
    "Mapping": _mapping,
    "tuple[str": _list,
    "int": lambda _option, value: _whole(value),
    "float": _number,
}
