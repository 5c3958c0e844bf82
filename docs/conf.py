"""The documentation site: `make docs-site` builds it with Sphinx, into build/site."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parent.parent))

from exporter.cli.main import COMMANDS, cli

project = "exporter"
version = release = metadata.version("unit-exporter")

extensions = [
    "myst_parser",  # pages are Markdown, so that they read well in the repository too
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # sections of docstrings: Args, Raises
    "sphinx_copybutton",
]
myst_heading_anchors = 4
smartquotes = False  # quotes are part of commands
default_role = "code"  # single backticks in docstrings

html_theme = "furo"
html_title = project
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # most functions have sixty keywords, each with its text below
napoleon_custom_sections = [("Options", "params_style")]
napoleon_numpy_docstring = False
copybutton_prompt_text = "$ "


class _Tables(click.HelpFormatter):
    """The sections of a command's help, as Markdown tables."""

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        self.write(f"\n### {name}\n\n")
        yield

    def write_dl(self, rows: Sequence[tuple[str, str]], *_: Any, **__: Any) -> None:
        self.write("| option | meaning |\n|:---|:---|\n")
        for names, text in rows:
            escaped = re.sub(r"([|*<_])", r"\\\1", text)
            self.write(f"| `{names}` | {escaped} |\n")


def _commands() -> str:
    """The reference of all commands."""
    context = click.Context(cli, info_name="exporter")
    parts = []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        inner = click.Context(command, info_name=name, parent=context)
        tables = _Tables()
        command.format_options(inner, tables)
        usage = " ".join(["exporter", name, *command.collect_usage_pieces(inner)])
        parts += [f"## exporter {name}\n", cleandoc(command.help or ""), f"```sh\n{usage}\n```"]
        parts += ["Examples:\n", f"```sh\n{command.epilog}\n```", tables.getvalue()]
    return "\n".join(parts)


def _write_commands(_app: Any, page: str, source: list[str]) -> None:
    if page == "reference/commands":
        source[0] += _commands()


def _as_restructured_text(_app: Any, _kind: str, _name: str, *rest: Any) -> None:
    """Mark the indented examples of a docstring as code."""
    lines: list[str] = rest[-1]
    text = "\n".join(lines).replace("|", r"\|")
    lines[:] = re.sub(r"(^|\n)(?! )(.*)\n\n(?=    \S)", r"\1\2\n\n::\n\n", text).split("\n")


def setup(app: Any) -> None:
    app.connect("source-read", _write_commands)
    app.connect("autodoc-process-docstring", _as_restructured_text, priority=1)
