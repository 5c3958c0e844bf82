"""Options from a file: `exporter.toml`, or the table `[tool.exporter]` of `pyproject.toml`.

A key is the name of an option without its dashes, or of an argument. What it may be follows from
the parameters of the commands. A value becomes the text that the command line would take, so that
both are checked alike. The command line wins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from exporter.errors import UsageError, nearest
from exporter.planning.command_line import spec_text
from exporter.planning.options import OF_ONE_HEAD
from exporter.selection.text_file import read_text

FILE, PROJECT = "exporter.toml", "pyproject.toml"
NOT_IN_FILE = frozenset({"config", "print_config", "help"})
# They show exporter, or a folder, not a model; a plan has options of its own.
_OWN_TABLE_ONLY = frozenset({"batch", "demo", "report"})
_DEFAULT_COMMAND = "run"  # whose output a key outside of tables names
_SELECTIONS = frozenset({"keep", "remove", "variants", "cuts"})
_CALIBRATIONS = frozenset({"calibration", "synthetic_calibration"})
_EXCLUDED = (  # options of the command line -> options of the file that do not count with them
    (_SELECTIONS, _SELECTIONS),
    (frozenset({"cuts"}), frozenset(OF_ONE_HEAD)),
    (_CALIBRATIONS, _CALIBRATIONS),
)
_CONFIG = "exporter.config"  # key of Context.meta


@dataclass(frozen=True)
class Config:
    """The options of a file.

    Attributes:
        path: of the file; relative paths in it are relative to its folder.
        table: keys outside of tables count for every command that has the option, those of a
            table with the name of a command for that command.
    """

    path: Path
    table: Mapping[str, Any]


def find_config(given: Path | None) -> Config | None:
    """The file that `--config` names, or the one in the current folder; None if there is none.

    Raises:
        UsageError: the file cannot be read, or is not TOML.
    """
    if given is not None:
        table = _read(given)
        is_project = given.name == PROJECT
        return Config(given, _of_project(table) or {} if is_project else table)
    if Path(FILE).is_file():
        return Config(Path(FILE), _read(Path(FILE)))
    if Path(PROJECT).is_file() and "[tool.exporter" in (text := read_text(PROJECT)):
        found = _of_project(_parsed(Path(PROJECT), text))
        return None if found is None else Config(Path(PROJECT), found)
    return None


def _read(path: Path) -> dict[str, Any]:
    return _parsed(path, read_text(path))


def _parsed(path: Path, text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}", "see docs/configuration.md") from error


def _of_project(table: Mapping[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = table.get("tool", {}).get("exporter")
    return found


def use_config(context: click.Context, _parameter: click.Parameter, given: Path | None) -> None:
    """Make the values of the file the defaults of a command: the callback of `--config`."""
    config = find_config(given)
    if config is None:
        return
    root, name = context.find_root().command, str(context.info_name)
    group = root if isinstance(root, click.Group) else None
    names = group.list_commands(context) if group else [name]
    commands = {n: group.get_command(context, n) for n in names} if group else {}
    _refuse_unknown(config, {n: keys_of(c) for n, c in commands.items() if c} or {name: {}})
    context.meta[_CONFIG] = config.path
    context.default_map = _values(config, name, keys_of(context.command), set(names))


def keys_of(command: click.Command) -> dict[str, click.Parameter]:
    """Key of the file -> the option or argument of a command."""
    return {
        max(each.opts, key=len).lstrip("-"): each
        for each in command.params
        if each.name not in NOT_IN_FILE
    }


def _refuse_unknown(config: Config, commands: Mapping[str, Mapping[str, Any]]) -> None:
    every = {key for keys in commands.values() for key in keys}
    for key, value in config.table.items():
        if key in commands and isinstance(value, Mapping):
            for inner in value:
                _refuse(config, f"[{key}] has the key", inner, commands[key])
        else:
            _refuse(config, "has the key", key, every | set(commands))


def _refuse(config: Config, where: str, key: str, known: Any) -> None:
    if _key(key) in known:
        return
    similar = nearest(_key(key), known)
    raise UsageError(
        f"{config.path} {where} {key!r}, which is no option",
        f"did you mean {similar!r}?" if similar else "`exporter run --print-config` shows all keys",
    )


def _key(key: str) -> str:
    return key.replace("_", "-")


def _values(
    config: Config, name: str, keys: Mapping[str, click.Parameter], commands: set[str]
) -> dict[str, Any]:
    """Name of a parameter -> its value for one command."""
    found: dict[str, Any] = {}
    if name not in _OWN_TABLE_ONLY:
        found |= {
            _key(key): value
            for key, value in config.table.items()
            if not (key in commands and isinstance(value, Mapping))
            and (_key(key) != "output" or name == _DEFAULT_COMMAND)
        }
    own = config.table.get(name, {})
    if isinstance(own, Mapping):
        found |= {_key(key): value for key, value in own.items()}
    return {
        str(keys[key].name): _value(config, key, keys[key], value)
        for key, value in found.items()
        if key in keys
    }


def _value(config: Config, key: str, parameter: click.Parameter, value: Any) -> Any:
    """What the command line would take: a text, a flag, or a list of texts."""
    is_flag = isinstance(parameter, click.Option) and parameter.is_flag
    may_be_bare = isinstance(parameter, click.Option) and parameter.flag_value == ""
    if isinstance(value, bool) and (is_flag or may_be_bare):
        return value
    wrong = UsageError(
        f"{key} in {config.path} is {value!r}",
        "give true or false" if is_flag else f"give what --{key} takes on the command line",
    )
    if is_flag or isinstance(value, bool):
        raise wrong
    if parameter.multiple if isinstance(parameter, click.Option) else False:
        if isinstance(value, Mapping):
            return [f"{n}={_text(config, parameter, each, wrong)}" for n, each in value.items()]
        many = value if isinstance(value, list) else [value]
        return [_text(config, parameter, each, wrong) for each in many]
    return _text(config, parameter, value, wrong)


def _text(config: Config, parameter: click.Parameter, value: Any, wrong: UsageError) -> str:
    is_path = isinstance(parameter.type, click.Path)
    if is_path and not isinstance(value, str):
        raise UsageError(wrong.message, "give one path, in quotes")
    parts = value if isinstance(value, list) else [value]
    if not all(type(each) in {str, int, float} for each in parts):
        raise wrong
    text = spec_text(value)
    folder = config.path.parent
    if is_path:
        return str(folder / text) if text else text
    if "SPEC" in str(parameter.metavar) and folder != Path():
        return re.sub(r"(^|[,=])(\s*)@(['\"]?)(?!/)", rf"\1\2@\3{folder.as_posix()}/", text)
    return text


def let_command_line_win(context: click.Context) -> None:
    """Drop values of the file that an option of the command line excludes."""
    for given, excluded in _EXCLUDED:
        sources = {name: context.get_parameter_source(name) for name in given | excluded}
        if not any(sources[name] is ParameterSource.COMMANDLINE for name in given):
            continue
        for each in context.command.params:
            if sources.get(str(each.name)) is ParameterSource.DEFAULT_MAP:
                empty = () if isinstance(each, click.Option) and each.multiple else None
                is_flag = isinstance(each, click.Option) and each.is_flag
                context.params[str(each.name)] = False if is_flag else empty


def naming_file(context: click.Context, error: click.BadParameter) -> click.BadParameter:
    """The error of a value, with the name of the file if the value is in it."""
    name = str(error.param.name) if error.param else ""
    if context.get_parameter_source(name) is not ParameterSource.DEFAULT_MAP:
        return error
    message = f"{error.message} (in {context.meta[_CONFIG]})"
    return click.BadParameter(message, error.ctx, error.param, error.param_hint)


def file_in_use(context: click.Context) -> Path | None:
    """The file that sets a parameter of this command; None if none does."""
    sources = (context.get_parameter_source(str(each.name)) for each in context.command.params)
    used = ParameterSource.DEFAULT_MAP in sources
    found: Path | None = context.meta.get(_CONFIG) if used else None
    return found


def to_toml(context: click.Context) -> Iterator[str]:
    """The lines of a file with the options of a command; those with their default are comments."""
    for key, parameter in keys_of(context.command).items():
        value = context.params.get(str(parameter.name))
        source = context.get_parameter_source(str(parameter.name))
        written = "" if value is None or value == () else _toml(value)
        if source is ParameterSource.DEFAULT or not written:
            yield f"# {key} = {written}".rstrip()
        else:
            given = source is ParameterSource.COMMANDLINE
            origin = "command line" if given else str(context.meta.get(_CONFIG))
            yield f"{key} = {written}  # {origin}"


def _toml(value: Any) -> str:
    """A converted value as TOML."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, tuple):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    pairs = [pair for each in value for pair in (each if _is_pairs(each) else (each,))]
    if pairs and all(isinstance(each, tuple) for each in pairs):
        return "{" + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in pairs) + "}"
    return "[" + ", ".join(map(_toml, value)) + "]"


def _is_pairs(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], tuple)
