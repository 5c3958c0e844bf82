"""Print the heads of a model, and how to choose one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.exit_codes import printing
from exporter.cli.stdout import print_json, print_printable, print_rich
from exporter.formats import KINDS
from exporter.report import formatting

if TYPE_CHECKING:
    from rich.table import Table

    from exporter.jobs.inspect import ChannelFacts, HeadFacts, Inspection


def inspection(inspected: Inspection, given: Mapping[str, Any]) -> int:
    """Print the heads of a model."""
    record = inspected.to_dict()
    with printing():
        if given["as_json"]:
            print_json(record)
        else:
            _print_inspection(inspected, record, verbose=given["verbose"])
    return 0


def _print_inspection(inspected: Inspection, record: Mapping[str, Any], *, verbose: bool) -> None:
    model = record["model"]
    about = (KINDS[model["kind"]].title, model["precision"], formatting.size(model["bytes"]))
    print_printable(f"{model['name']}: {', '.join(about)}")
    for tensor in record["inputs"]:
        print_printable(f"input {tensor['name']}: {_shape(tensor['shape'])} {tensor['dtype']}")
    if inspected.heads:
        click.echo()
        print_rich(lambda console: console.print(_head_table(inspected.heads)))
    for facts in inspected.heads if verbose else ():
        print_printable(_head_numbers(facts))
    for refusal in inspected.refused:
        print_printable(f"refused: {refusal}")
    for hint in dict.fromkeys(r.hint for r in inspected.refused if r.hint):
        print_printable(f"hint: {hint}")
    _print_choices(inspected)
    if inspected.channels is not None:
        click.echo()
        print_rich(lambda console: console.print(_channel_table(inspected.channels or ())))
    for name, units in (inspected.listed or {}).items():
        labels = next(facts.head.labels for facts in inspected.heads if facts.head.name == name)
        click.echo()
        print_printable(f"Labels of {name}: {len(units)} of {len(labels or ())}")
        for unit in units:
            print_printable(f"{unit:>7}  {(labels or ())[unit]}")
    if inspected.forecast is not None:
        from exporter.cli.show_forecast import print_forecast

        click.echo()
        print_forecast("", inspected.forecast, verbose=verbose)


def _print_choices(inspected: Inspection) -> None:
    """Which heads have to be named, and which are cut together."""
    if inspected.masks:
        click.echo()
        print_printable(
            f"{', '.join(inspected.masks)} computes masks: it is cut only if --head names it"
        )
    for maps in inspected.maps:
        click.echo()
        print_printable(f"levels of a detector, which are cut together: {', '.join(maps.names)}")
    if inspected.choices:
        name = shlex.quote(inspected.choices[0])
        several = f"or several: --cut {name}=SPEC for each"
        click.echo(f"\nChoose one with --head NAME: --head {name}; {several}")


def _channel_table(channels: tuple[ChannelFacts, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("Channels of", "Channels", "Units", "Bytes", "Multiply-adds", "Read by"):
        table.add_column(column, overflow="fold", no_wrap=column not in {"Channels of", "Read by"})
    for each in channels:
        name, count = Text(formatting.printable(each.name)), str(each.channels)
        if each.reason:
            table.add_row(
                name, count, "", "", "", Text(f"stay: {formatting.printable(each.reason)}")
            )
            continue
        readers = Text(formatting.printable(", ".join(each.consumers)))
        size, work = _share(each.bytes, None), _share(each.multiply_adds, None)
        table.add_row(name, count, str(each.units), size, work, readers)
    return table


def _head_table(heads: tuple[HeadFacts, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    columns = ["Head", "Units", "Activation", "Dtype", "Labels", "Bytes", "Multiply-adds"]
    has_parts = any(facts.head.axis_parts for facts in heads)
    for column in (*columns, *(["Parts"] if has_parts else [])):
        table.add_column(column, overflow="fold", no_wrap=column not in {"Head", "Parts"})
    for facts in heads:
        head = facts.head
        table.add_row(
            Text(formatting.printable(head.name)),
            str(head.units),
            head.activation,
            facts.dtype,
            "yes" if head.labels else "no",
            _share(facts.bytes, facts.share_of_bytes),
            _share(facts.multiply_adds, facts.share_of_multiply_adds),
            *(["\n".join(map(str, head.axis_parts))] if has_parts else []),
        )
    return table


def _share(count: int | None, share: float | None) -> str:
    """The share if it is known, else the count."""
    return _count(count) if share is None else f"{share:.1%}"


def _count(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _head_numbers(facts: HeadFacts) -> str:
    head = facts.head
    start, stop = head.unit_range or (0, head.units)
    numbers = f"{facts.bytes:,} bytes; {_count(facts.multiply_adds)} multiply-adds"
    return f"{head.name}: axis {head.axis}, {start} to {stop - 1}; {numbers}"


def _shape(shape: list[int | None] | None) -> str:
    if shape is None:
        return "any rank"
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
