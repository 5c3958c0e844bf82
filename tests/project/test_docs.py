"""The documents match the project: links resolve, and the documented layout exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.errors import ExporterError

PROJECT = Path(__file__).parents[2]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
LAYOUT = PROJECT / "docs" / "how-it-works.md"

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix()
)


def anchor(heading: str) -> str:
    """The fragment that renderers give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def broken_links(document: Path) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = document.parent / path if path else document
        if not file.exists() or (fragment and fragment not in anchors(file)):
            broken.append(target)
    return broken


def modules() -> set[str]:
    """Every module and package at the top of `exporter`, as the document writes them."""
    package = PROJECT / "exporter"
    files = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    return files | {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        pytest.param("[a](missing.md)", ["missing.md"], id="no such file"),
        pytest.param("[a](#nowhere)", ["#nowhere"], id="no such heading"),
        pytest.param("[a](#two-words)\n## Two words", [], id="heading"),
        pytest.param("[a](https://example.org/x)", [], id="web address"),
    ],
)
def test_broken_links_are_found(tmp_path: Path, text: str, broken: list[str]) -> None:
    document = tmp_path / "document.md"
    document.write_text(text, "utf-8")
    assert broken_links(document) == broken


@each_document
def test_links_resolve(document: Path) -> None:
    assert broken_links(document) == []


@each_document
def test_code_blocks_are_closed(document: Path) -> None:
    assert document.read_text("utf-8").count("```") % 2 == 0


def test_documented_layout_matches_the_package() -> None:
    block = re.search(r"```text\nexporter/\n(.*?)```", LAYOUT.read_text("utf-8"), re.DOTALL)
    assert block, "how-it-works.md shows the layout in a text block that begins with exporter/"
    listed = re.findall(r"^  (\w+(?:\.py|/))", block.group(1), re.MULTILINE)
    assert sorted(listed) == sorted(modules())


def test_named_files_exist() -> None:
    text = LAYOUT.read_text("utf-8") + (PROJECT / "CONTRIBUTING.md").read_text("utf-8")
    paths = set(
        re.findall(r"`((?:exporter|tests|docs|tools|requirements|benchmarks)/[\w./-]+)`", text)
    )
    assert [name for name in sorted(paths) if not (PROJECT / name).exists()] == []


def test_exit_codes_of_the_errors_are_in_the_readme() -> None:
    readme = PROJECT / "README.md"
    codes = {error.exit_code for error in ExporterError.__subclasses__()}
    section = readme.read_text("utf-8").lower().partition("exit code")[2]
    assert [code for code in sorted(codes) if not re.search(rf"\b{code}\b", section)] == []
