"""Python keywords from the fields of option records: names, types, defaults and help."""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from exporter.errors import nearest
from exporter.planning.option import Option, options_of

Function = TypeVar("Function", bound=Callable[..., Any])


def with_keywords(
    *records: type, types: Mapping[str, Any], without: tuple[str, ...] = ()
) -> Callable[[Function], Function]:
    """Give the `**options` of a function the options that the records declare for its name.

    `inspect.signature` and `help` show them. A name that is not among them raises TypeError, with
    the nearest name.

    Args:
        types: name of an option -> type of the keyword.
        without: names of options that the command of this name has and the function has not.
    """

    def decorate(function: Function) -> Function:
        name = function.__name__
        found = (option for record in records for option in options_of(record, name))
        options = [option for option in found if option.name not in without]
        signature = _signature(function, options, types)

        @functools.wraps(function)
        def checked(*arguments: Any, **keywords: Any) -> Any:
            for keyword in keywords:
                if keyword not in signature.parameters:
                    raise TypeError(unknown_keyword(name, keyword, signature.parameters))
            return function(*arguments, **keywords)

        checked.__signature__ = signature  # type: ignore[attr-defined]
        checked.__doc__ = f"{inspect.getdoc(function)}\n\nOptions:\n{_describe(options)}"
        return checked  # type: ignore[return-value]

    return decorate


def _signature(
    function: Callable[..., Any], options: Iterable[Option], types: Mapping[str, Any]
) -> inspect.Signature:
    own = inspect.signature(function, eval_str=True)
    named = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
    added = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=types.get(option.name, Any),  # a test holds the types current
        )
        for option in options
    ]
    return own.replace(parameters=[*named, *added])


def _describe(options: Iterable[Option]) -> str:
    """A paragraph for each option; flags in the help become keywords."""
    paragraphs = [
        textwrap.fill(
            f"{option.name}: {option.text}",
            width=96,
            initial_indent="    ",
            subsequent_indent="        ",
            break_on_hyphens=False,
        )
        for option in options
    ]
    text = "\n".join(paragraphs)
    return re.sub(r"--([a-z-]+)", lambda flag: f"`{flag[1].replace('-', '_')}`", text)


def unknown_keyword(function: str, keyword: str, known: Iterable[str]) -> str:
    """The message for a keyword that a function does not have."""
    message = f"{function}() got an unexpected keyword argument {keyword!r}"
    similar = nearest(keyword, known)
    return f"{message}; did you mean `{similar}`?" if similar else message
