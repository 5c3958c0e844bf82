"""Click types of the values that options take."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from exporter.errors import nearest
from exporter.output.files import refuse_url
from exporter.planning import option_text
from exporter.storage.urls import local_path, scheme_of


class FilePath(click.Path):
    """A path that a report can contain: not empty, and valid UTF-8."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)
        self.name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("the name is empty", param, ctx)
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{str(value)!a} is not valid UTF-8: rename it", param, ctx)
        if scheme_of(value):
            return self._of_url(value)
        refuse_url(value)
        return super().convert(value, param, ctx)

    def _of_url(self, url: str) -> Any:
        """A file that is read: its local copy."""
        return local_path(url)


class OutputPath(FilePath):
    """A path that is written, or the URL."""

    def _of_url(self, url: str) -> Any:
        return url


PATH = FilePath()


class Parsed(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A value that a function reads from its text; the function raises ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):  # the default
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _spec_of(form: str) -> Parsed:
    """A name and the units that belong to it."""

    def parse(text: str) -> tuple[str, str]:
        name, separator, spec = text.partition("=")
        if not separator:
            raise ValueError(f"{text!r} is not of the form {form}")
        return name.strip(), spec

    return Parsed(form, parse)


def percent(text: str) -> float:
    """A share: a number with %."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", text)
    if not match:
        raise ValueError(f"{text!r} is not a percentage such as 5%")
    return float(match[1]) / 100


def list_of(choices: Iterable[str]) -> Parsed:
    """A comma list of names."""

    def parse(text: str) -> tuple[str, ...]:
        names = [part.strip() for part in text.split(",")]
        for name in names:
            if name not in choices:
                raise ValueError(not_one_of(name, choices))
        return tuple(dict.fromkeys(names))

    return Parsed("LIST", parse)


def not_one_of(word: str, choices: Iterable[str]) -> str:
    similar = nearest(word, choices)
    hint = f"; did you mean {similar!r}?" if similar else ""
    return f"{word!r} is not one of {', '.join(choices)}{hint}"


def _range(allowed: click.IntRange | click.FloatRange) -> str:
    """A range in `--help`: "1 or more", "0 to 1"; "" without bounds."""
    low, high = allowed.min, allowed.max
    if low is None:
        return "" if high is None else f"at most {high}"
    if high is None:
        return f"{low} or more"
    return f"{'above ' if allowed.min_open else ''}{low} to {high}"


class OneOf(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2 only
    """One of a few words; an error names the one that is spelled most like the given word."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word, or a BadParameter."""
        if value not in self.choices:
            self.fail(not_one_of(str(value), self.choices), param, ctx)
        return value


class Whole(click.IntRange):
    """A whole number, perhaps in a range."""

    def _describe_range(self) -> str:
        return _range(self)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str) and not re.fullmatch(r"\s*[+-]?[0-9_]+\s*", value):
            self.fail(f"{value!r} is not a whole number", param, ctx)
        return int(super().convert(value, param, ctx))


class Number(click.FloatRange):
    """A finite number, perhaps in a range."""

    def _describe_range(self) -> str:
        return _range(self)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


# `Option.parse` -> the type of the value
PARSERS: Mapping[str, click.ParamType] = {  # type: ignore[type-arg]
    "path": PATH,
    "name": click.STRING,
    "dims": Parsed("NAME=1,NAME=8", option_text.parse_dims),
    "shape": Parsed("NAME=1,16", option_text.parse_shape),
    "pair": Parsed("A=B", option_text.parse_pair),
    "cut": _spec_of("HEAD=SPEC"),
    "group": _spec_of("NAME=SPEC"),
    "size": Parsed("SIZE", option_text.parse_size),
    "duration": Parsed("TIME", option_text.parse_duration),
    "percent": Parsed("PERCENT", percent),
    "ends": Parsed("NAME,...", option_text.parse_ends),
}
