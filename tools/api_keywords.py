"""Write the keywords in `exporter/keywords.py` from the fields of the option records.

Type checkers read keywords from source code only, so that the fields have to be written there.
Run it after a change of an option: `make keywords`. A test compares the block with the fields.
"""

from __future__ import annotations

from pathlib import Path

from exporter.jobs.job import Job
from exporter.jobs.select_options import SelectOptions
from exporter.jobs.trim_options import TrimOptions
from exporter.planning.option import options_of
from exporter.planning.options import CutOptions

API = Path(__file__).parents[1] / "exporter" / "keywords.py"
START, END = "# --- written by tools/api_keywords.py ", "# --- end of the keywords "
RECORDS = {
    "CutKeywords": CutOptions,
    "JobKeywords": Job,
    "SelectKeywords": SelectOptions,
    "TrimKeywords": TrimOptions,
}


def block() -> str:
    """The lines between the two marks."""
    return "\n\n\n".join(_typed_dict(name, record) for name, record in RECORDS.items())


def _typed_dict(name: str, record: type) -> str:
    fields = [f"    {each.name}: {_accepted(each.type)}" for each in options_of(record)]
    head = [f"class {name}(TypedDict, total=False):", f'    """Options of `{record.__name__}`."""']
    return "\n".join([*head, "", *fields])


def _accepted(kind: str) -> str:
    """The type of a keyword: a record makes paths of strings, and tuples of other iterables."""
    if kind.startswith("Path"):
        return f"str | {kind}"
    return kind.replace("tuple[str, ...]", "str | Iterable[str]")


def with_block(source: str) -> str:
    """The source of the module with the block in its place."""
    before, _, rest = source.partition(START)
    line, _, rest = rest.partition("\n")
    after = rest[rest.index(END) :]
    return f"{before}{START}{line}\n\n\n{block()}\n\n\n{after}"


if __name__ == "__main__":
    API.write_text(with_block(API.read_text()))
