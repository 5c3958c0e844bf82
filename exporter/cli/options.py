"""Click options from the fields of the option records, and help with a heading for each section."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from exporter.cli import config
from exporter.cli.exit_codes import printing, report_shortened_files
from exporter.cli.progress import Progress
from exporter.cli.stderr import say
from exporter.cli.values import PARSERS, PATH, Number, OneOf, OutputPath, Whole, list_of
from exporter.jobs.job import Job
from exporter.output.c_source import FORMS
from exporter.planning.option import ADVANCED, Option, options_of
from exporter.planning.options import CutOptions
from exporter.storage.urls import redact, scheme_of

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# --- options ------------------------------------------------------------------------------------


class SectionOption(click.Option):
    """An option below a heading in `--help`."""

    def __init__(self, *arguments: Any, section: str, **details: Any) -> None:
        super().__init__(*arguments, **details)
        self.section = section


ONCE = ("--keep", "--remove", "--head", "--units")  # of a second one, Click would drop the first


class Command(click.Command):
    """A command whose options a file may set, and whose `--help` lists them in sections."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Also from the file; `--print-config` needs no argument. Refuse a second selection."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for parameter, count in Counter(order).items():
            flag = next((flag for flag in parameter.opts if flag in ONCE), None)
            if flag is not None and count > 1:
                raise click.UsageError(
                    f"{flag} is given {count} times: for several heads, give --cut HEAD=SPEC for "
                    "each",
                    ctx,
                )
        required = [each for each in self.params if each.required]
        for each in required:
            each.required = "--print-config" not in args
        try:
            rest = super().parse_args(ctx, args)
        except click.BadParameter as error:
            raise config.naming_file(ctx, error) from error
        finally:
            for each in required:
                each.required = True
        config.let_command_line_win(ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or show its options."""
        if ctx.params.pop("print_config"):
            with printing():
                click.echo("\n".join(config.to_toml(ctx)))
            return 0
        report_shortened_files(as_json=ctx.params["as_json"])
        if (file := config.file_in_use(ctx)) and not ctx.params["quiet"]:
            say(f"options from {file}")
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                section = getattr(parameter, "section", "Messages")
                sections.setdefault(section, []).append(row)
        for title in sorted(sections, key=lambda each: _LAST.get(each, 0)):
            with formatter.section(title):
                formatter.write_dl(sections[title])

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, a line each."""
        with formatter.section("Examples"):
            for example in (self.epilog or "").splitlines():
                formatter.write(f"  {example.rstrip()}\n")


_LAST = {ADVANCED: 1, "Configuration": 2, "Messages": 3}  # sections at the end of `--help`


def option(*names: str, section: str = "Output", **details: Any) -> Decorator:
    """An option that is not a field of a record."""
    return click.option(*names, cls=SectionOption, section=section, **details)


def record_options(name: str, *records: type, without: Iterable[str] = ()) -> Decorator:
    """The options that the fields of these records declare for a command."""
    declared = [each for record in records for each in options_of(record, name) if each.flag]
    found = [each for each in declared if each.name not in without]
    return _all(*(_from_field(each, name) for each in found))


def _from_field(field: Option, command_name: str) -> Decorator:
    if field.name == "to" and command_name not in {
        "run",
        "inspect",
    }:  # the kind follows from the output's suffix
        forms = {name: form.help for name, form in FORMS.items()}
        field = replace(field, help="Also write:", choices=forms)
    details: dict[str, Any] = {
        "help": field.text,
        "metavar": field.value,
        "section": field.section,
    }
    flag = str(field.flag)
    if field.type == "bool":
        if field.default:
            return option(f"{flag}/--no-{flag[2:]}", default=True, show_default=True, **details)
        return option(flag, is_flag=True, **details)
    if field.name == "labels" and command_name == "inspect":
        details |= {"is_flag": False, "flag_value": "", "metavar": "[PATTERN]"}
        details["help"] = "List the labels, or those that match. With a selection: a label file."
        return option(flag, field.name, default=None, **details)
    if field.type.startswith("bool |"):  # its value may be left out
        details |= {"is_flag": False, "flag_value": ""}
        return option(flag, field.name, type=_type(field), default=None, **details)
    is_repeated = field.type.startswith("Mapping") or field.parse == "name"
    if is_repeated:
        details["help"] = f"{field.text} Can be repeated."
    if field.default is not None and field.parse != "size" and not is_repeated:
        details |= {"default": field.default, "show_default": True}
    if isinstance(field.default, tuple) and not is_repeated:
        details["default"] = ",".join(field.default)
    return option(flag, field.name, type=_type(field), multiple=is_repeated, **details)


def _type(field: Option) -> Any:
    if field.parse:
        return PARSERS[field.parse]
    if field.choices:
        names = tuple(field.choices)
        return list_of(names) if "tuple" in field.type else OneOf(names)
    if field.type.startswith("int"):
        return Whole(field.minimum, field.maximum)
    if field.type.startswith("float"):
        return Number(field.minimum, field.maximum, min_open=field.is_open)
    return str


def _all(*options: Decorator) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for each in reversed(options):
            function = each(function)
        return function

    return decorate


def argument(name: str, **details: Any) -> Decorator:
    """A file or a folder that a command reads."""
    return click.argument(name, type=PATH, **details)


def output(metavar: str = "FILE", **details: Any) -> Decorator:
    """-o, --output"""
    details = {"required": "default" not in details, **details}
    details["help"] = f"{metavar.capitalize().replace('Dir', 'Folder')} to write."
    return option("-o", "--output", type=OutputPath(), metavar=metavar, **details)


measure_share = option(
    "--measure-share",
    is_flag=True,
    section="Forecast",
    help="Time the head's share of the latency instead of counting its multiply-adds.",
)
dry_run = _all(
    option(
        "--dry-run",
        is_flag=True,
        section="Forecast",
        help="Show sizes, counts, a verdict, and the edits; write nothing.",
    ),
    measure_share,
)

configuration = _all(
    option(
        "--config",
        type=PATH,
        is_eager=True,
        expose_value=False,
        callback=config.use_config,
        section="Configuration",
        help="File with options, by name. Default: exporter.toml, or [tool.exporter] in "
        "pyproject.toml, in the current folder.",
    ),
    option(
        "--print-config",
        is_flag=True,
        section="Configuration",
        help="Show all options as such a file, and do nothing else.",
    ),
)

messages = _all(
    option("--json", "as_json", is_flag=True, section="Messages", help="Print one JSON object."),
    option("-q", "--quiet", is_flag=True, section="Messages", help="No progress on stderr."),
    option(
        "-v",
        "--verbose",
        is_flag=True,
        section="Messages",
        help="Also show the time of each step, and every check.",
    ),
    option("--debug", is_flag=True, section="Messages", help="Show the traceback of an error."),
)


def command(
    name: str,
    examples: Sequence[str],
    *more: Decorator,
    arguments: tuple[str, ...] = ("model",),
    records: tuple[type, ...] = (Job,),
    declared_by: str = "",
    without: tuple[str, ...] = (),
    uploads: bool = True,
) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with its arguments and the options that the records declare for it.

    Args:
        examples: arguments of each example; they end its help.
        more: options that are not fields of the records.
        arguments: names of the files that it reads.
        declared_by: the command whose options it has. Default: its own.
        without: fields of the records that are no options of it.
        uploads: an output that is a URL is a local path for the command, and uploaded at its end.
    """
    epilog = "\n".join(f"exporter {name} {example}" for example in examples)
    files = (argument(each) for each in arguments)
    decorate = _all(
        *files,
        *more,
        record_options(declared_by or name, *records, without=without),
        configuration,
        messages,
    )

    def make(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def with_upload(**given: Any) -> Any:
            if not (uploads and scheme_of(given.get("output"))):
                return function(**given)
            from exporter.storage.upload import writable

            with writable(given["output"], force=given.get("force", False)) as output:
                return function(**{**given, "output": output})

        return click.command(name, cls=Command, epilog=epilog)(decorate(with_upload))

    return make


# --- records ------------------------------------------------------------------------------------


def make_job(given: Mapping[str, Any], progress: Progress) -> Job:
    """The `Job` of a command's parameters."""
    repeated = {
        each.name: dict(pairs(given[each.name]))
        for each in options_of(Job)
        if each.type.startswith("Mapping") and each.name in given
    }
    line = shlex.join(["exporter", *map(redact, sys.argv[1:])])
    context = click.get_current_context(silent=True)  # none if the options were not given there
    if context is not None and config.file_in_use(context):
        line = ""  # the job states all options itself: the file may change
    calls = {
        "progress": progress,
        "on_sample": progress.on_sample,
        "on_file": progress.on_file,
    }
    values = {**given, **repeated, **calls, "command": line}
    return Job(**fields_of(Job, values))


def pairs(given: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """The pairs of a repeated option; those of `--dim` have several each time."""
    for each in given:
        yield from each if isinstance(each[0], tuple) else (each,)


def make_cut_options(given: Mapping[str, Any], **replaced: Any) -> CutOptions:
    """The `CutOptions` of a command's parameters."""
    values = {**given, **replaced}
    for name, what in (("merge", "the group"), ("cuts", "the head")):
        pairs = given[name]
        values[name] = dict(pairs)
        if twice := next((key for key, n in Counter(k for k, _ in pairs).items() if n > 1), None):
            flag = "--merge" if name == "merge" else "--cut"
            raise click.UsageError(f"{flag} names {what} {twice!r} twice")
    specs = sum(values[name] not in (None, {}) for name in ("keep", "remove", "cuts"))
    if specs > 1 or (not specs and not any(values[n] for n in ("merge", "gate", "drop_outputs"))):
        raise click.UsageError("give either --keep SPEC, --remove SPEC or --cut HEAD=SPEC")
    return CutOptions(**fields_of(CutOptions, values))


def wants_forecast(given: Mapping[str, Any], output: Path | None) -> bool:
    """Whether a command that can write shows a forecast instead, which needs no output."""
    if given["measure_share"] and not given["dry_run"]:
        raise click.UsageError("--measure-share is an option of --dry-run: give both")
    if output is None and not given["dry_run"]:
        raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
    return bool(given["dry_run"])


def fields_of(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are fields of a record; None leaves a field its default."""
    names = record.__dataclass_fields__  # type: ignore[attr-defined]  # records only
    return {name: value for name, value in values.items() if name in names and value is not None}
