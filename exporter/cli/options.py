"""The options that commands share, in the order in which `--help` shows them.

An option is named like the field that it fills, so that `fill` can build the record.
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from exporter.modes import MODES, PROBABILITIES
from exporter.output.c_source import FORMS

Decorated = Callable[..., Any]
Record = TypeVar("Record")


class Name(click.Path):
    """A path that can stand in a report: not empty, and valid UTF-8."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("an empty name is none", param, ctx)
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{str(value)!a} is not valid UTF-8: rename it", param, ctx)
        return super().convert(value, param, ctx)


PATH = Name()


class Shape(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """NAME=1,16"""

    name = "NAME=1,16"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        name, _, numbers = str(value).rpartition("=")
        if not name or not re.fullmatch(r"[1-9][0-9]*(,[1-9][0-9]*)*", numbers):
            self.fail(f"{value!r} is not of the form NAME=1,16", param, ctx)
        return name, tuple(int(n) for n in numbers.split(","))


class Group(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """NAME=SPEC"""

    name = "NAME=SPEC"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, found, spec = str(value).partition("=")
        if not found:
            self.fail(f"{value!r} is not of the form NAME=SPEC", param, ctx)
        return name.strip(), spec


class Size(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """Bytes, or a number with K, M, G (thousands), or Ki, Mi, Gi."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)i?B?", str(value), re.IGNORECASE)
        if not match or not float(match[1]):
            self.fail(f"{value!r} is not a size such as 800M or 4G", param, ctx)
        step = 1024 if "i" in str(value).lower() else 1000
        return int(float(match[1]) * step ** " KMG".index(match[2].upper() or " "))


class Number(click.FloatRange):
    """A number in a range that is neither infinite nor NaN."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number to work with", param, ctx)
        return number


class Names(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A comma list out of a table's keys."""

    name = "LIST"

    def __init__(self, *names: str) -> None:
        self.names = names

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        chosen = tuple(part.strip() for part in str(value).split(","))
        for name in chosen:
            if name not in self.names:
                self.fail(f"{name!r} is not one of {', '.join(self.names)}", param, ctx)
        return tuple(dict.fromkeys(chosen))


def _group(*options: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    def decorate(function: Decorated) -> Decorated:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def fill(record: type[Record], given: Mapping[str, Any]) -> Record:
    """The record whose fields bear the names of these parameters; None takes the default."""
    names = {field.name for field in fields(record)}  # type: ignore[arg-type]  # records only
    return record(**{k: v for k, v in given.items() if k in names and v is not None})


def job(given: dict[str, Any], say: Callable[[str], None]) -> Any:
    """The `Job` that these parameters describe."""
    from exporter.jobs.options import Job

    given["input_shapes"] = dict(given.get("input_shapes", ()))
    command = shlex.join(["exporter", *sys.argv[1:]])
    return fill(Job, {**given, "progress": say, "command": command})


def choice(given: Mapping[str, Any], **instead: Any) -> Any:
    """The `CutOptions` that these parameters describe."""
    from exporter.planning.cut import CutOptions

    wanted = {**given, **instead}
    wanted["merge"] = groups = dict(given["merge"])
    for name in groups:
        if sum(name == other for other, _ in given["merge"]) > 1:
            raise click.UsageError(f"--merge names the group {name!r} twice")
    both = wanted["keep"] is not None and wanted["remove"] is not None
    if both or (
        wanted["keep"] is None and wanted["remove"] is None and not (groups or wanted.get("gate"))
    ):
        raise click.UsageError("give either --keep SPEC or --remove SPEC")
    return fill(CutOptions, wanted)


selection = _group(
    click.option("--keep", metavar="SPEC", help="Units to keep: 3,5-9,owl,'mac*',@file,=literal."),
    click.option("--remove", metavar="SPEC", help="Units to remove instead."),
    click.option(
        "--labels",
        type=PATH,
        metavar="FILE",
        help="Labels: .csv, .json, else one a line. Default: those in the model.",
    ),
    click.option("--keep-order", is_flag=True, help="New order as given, not ascending."),
    click.option("--head", metavar="NAME", help="Which head, where the model has several."),
    click.option(
        "--units",
        metavar="A:B",
        help="Where on its axis the units stand, where boxes share it: 5:85.",
    ),
    click.option(
        "--restore-ids",
        is_flag=True,
        help="A detector's class numbers stay the original's.",
    ),
    click.option(
        "--emit",
        metavar="ids|ids:K",
        help="One more output, int32: the original's index of the best unit, or of the best K.",
    ),
    click.option(
        "--new-ids",
        is_flag=True,
        help="What an argmax or a top-k returns counts the units that are left. Default: they stay "
        "the original's indices.",
    ),
    click.option(
        "--mode",
        type=click.Choice(tuple(MODES)),
        default="slice",
        show_default=True,
        help="; ".join(f"{name}: {mode.summary}" for name, mode in MODES.items()) + ".",
    ),
    click.option(
        "--probabilities",
        type=click.Choice(PROBABILITIES),
        default="renormalized",
        show_default=True,
        help="absolute: kept units answer as in the original.",
    ),
    click.option(
        "--merge",
        "merge",
        type=Group(),
        multiple=True,
        help="Units that become one, whose probability is the sum of theirs; repeatable.",
    ),
    click.option(
        "--restore-width", is_flag=True, help="A narrow head, an output of the old width."
    ),
    click.option(
        "--for-quantization", is_flag=True, help="Mask without a floor that would ruin a scale."
    ),
    click.option(
        "--gate",
        metavar="input|COND",
        help='Choose units while the model runs: by one more input, or by "[probability|logit|abs] '
        '(>|>=|<|<=) NUMBER" or "top:K".',
    ),
    click.option(
        "--allow-nonfinite", is_flag=True, help="Cut a model with NaN or infinite weights."
    ),
    click.option(
        "--allow-remove-special", is_flag=True, help="Remove units such as the background."
    ),
)

inputs = _group(
    click.option(
        "--data",
        type=PATH,
        metavar="FILE",
        help="Inputs to run on: .npz by input name, or .npy. Default: seeded samples.",
    ),
    click.option("--samples", type=click.IntRange(1), help="How many. Default: 16, or the file's."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option(
        "--input-shape",
        "input_shapes",
        type=Shape(),
        multiple=True,
        help="For dimensions that the model leaves open, the batch included.",
    ),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True),
)

quantization = _group(
    click.option(
        "--calibration",
        type=PATH,
        metavar="FILE",
        help="Inputs that show the ranges of activations. Default: those of --data.",
    ),
    click.option(
        "--synthetic-calibration",
        is_flag=True,
        help="Make up those inputs; the ranges are then not those of real data.",
    ),
    click.option(
        "--integer-io", is_flag=True, help="Integer inputs and outputs, with int8 and int16x8."
    ),
)

checks = _group(
    inputs,
    click.option("--tolerance", type=Number(0), help="Largest |difference| allowed."),
)

limits = _group(
    click.option(
        "--timeout",
        "timeout_s",
        type=Number(0, min_open=True),
        default=1800.0,
        show_default=True,
        help="Seconds for each step of the process that converts and quantizes.",
    ),
    click.option(
        "--memory-limit",
        "memory_limit_bytes",
        type=Size(),
        help="Resident memory that it may take, such as 4G.",
    ),
)

signature = click.option(
    "--signature",
    metavar="NAME",
    help="Of a SavedModel. Default: serving_default, or the only one.",
)

conversion = _group(
    click.option("--opset", type=click.IntRange(13, 21), default=17, show_default=True),
    click.option(
        "--batch",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Of files that need a fixed one (TFLite), where the model leaves it open.",
    ),
    signature,
    click.option(
        "--large-head",
        "large_head_bytes",
        type=Size(),
        help="A kernel of this size is grafted after the conversion. Default: 256M.",
    ),
    limits,
)

dry_run = click.option("--dry-run", is_flag=True, help="Show what would be cut; write nothing.")

forms = click.option(
    "--to",
    type=Names(*FORMS),
    help="c-array: also write the TFLite file as C source and header.",
)

force = click.option("--force", is_flag=True, help="Replace what stands in the output's place.")

common = _group(
    click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
    click.option("-v", "--verbose", is_flag=True, help="Say more: each step's time, each check."),
    click.option("--debug", is_flag=True, help="Show where an error comes from."),
)
