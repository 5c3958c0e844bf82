"""The project around the code: contents of packages, pinned versions, README commands."""

from __future__ import annotations

import ast
import json
import re
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import NamedTuple

import hatchling.build
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import exporter
from exporter.cli import COMMANDS
from exporter.errors import LIBRARIES
from tests.builders.documents import blocks, looks_like, run_python, run_shell

PROJECT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
DATA = {"exporter/py.typed", "exporter/data/digits.npz"}
PAGES = {path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("exporter/report/page/*")}
LARGEST_FILE = 1_000_000  # bytes
UNFINISHED = re.compile(rb"\b(TO" + rb"DO|FIX" + rb"ME|X" + rb"XX)\b")


# --- contents of packages -----------------------------------------------------------------------


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)  # a build starts there


@pytest.fixture
def wheel(at_root: None, tmp_path: Path) -> list[str]:
    path = tmp_path / hatchling.build.build_wheel(str(tmp_path))
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@pytest.fixture
def source(at_root: None, tmp_path: Path) -> dict[str, bytes]:
    """The files of the source distribution: path within the project -> contents."""
    path = tmp_path / hatchling.build.build_sdist(str(tmp_path))
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is not None:
                found[member.name.partition("/")[2]] = stream.read()
    return found


def test_wheel_contains_only_the_package(wheel: list[str]) -> None:
    package = {name for name in wheel if not name.startswith("unit_exporter-")}
    modules = {path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("exporter/**/*.py")}
    assert package == modules | DATA | PAGES
    metadata = {name.partition("/")[2] for name in set(wheel) - package}
    licenses = {"licenses/LICENSE", "licenses/NOTICE"}
    assert metadata == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", *licenses}


def test_metadata_of_the_wheel(at_root: None, tmp_path: Path) -> None:
    """An install without extras brings no TensorFlow."""
    path = tmp_path / hatchling.build.build_wheel(str(tmp_path))
    with zipfile.ZipFile(path) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/METADATA"))
        metadata = message_from_bytes(archive.read(name))
        (script,) = (each for each in archive.namelist() if each.endswith("/entry_points.txt"))
        assert b"exporter = exporter.cli:main" in archive.read(script)
    assert set(metadata.get_all("Provides-Extra") or ()) == set(EXTRAS)
    required = map(Requirement, metadata.get_all("Requires-Dist") or ())
    plain = {each.name for each in required if each.marker is None}
    assert {"click", "onnx", "onnxruntime", "ai-edge-litert"} <= plain
    assert plain & {"tensorflow", "tf2onnx", "litert-quantizer", "matplotlib", "pandas"} == set()


def test_source_files_are_small_and_finished(source: dict[str, bytes]) -> None:
    assert {"pyproject.toml", "README.md", "Makefile", "tests/project/test_project.py"} <= set(
        source
    )
    assert [name for name, data in source.items() if len(data) > LARGEST_FILE] == []
    text = {name: data for name, data in source.items() if not name.endswith(".npz")}
    assert [name for name, data in text.items() if UNFINISHED.search(data)] == []


def test_public_names_exist_and_no_module_hides_one() -> None:
    names = set(exporter.__all__)
    assert [name for name in sorted(names) if not hasattr(exporter, name)] == []
    modules = {path.stem for path in PROJECT.glob("exporter/*") if path.stem != "__init__"}
    assert names & modules == set()
    assert names <= set(dir(exporter))


def test_no_test_module_imports_another() -> None:
    modules = (PROJECT / "tests").rglob("*.py")
    assert [m.name for m in modules if _test_imports(m)] == []


def _test_imports(module: Path) -> list[str]:
    """The test modules that a module imports; what several tests need belongs in tests/builders."""
    nodes = [*ast.walk(ast.parse(module.read_text("utf-8")))]
    sources = [
        n for n in nodes if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("tests")
    ]
    plain = [n.name for each in nodes if isinstance(each, ast.Import) for n in each.names]
    names = [f"{each.module}.{n.name}" for each in sources for n in each.names]
    return [name for name in (*plain, *names) if re.match(r"tests\..*\btest_", name)]


# --- pinned versions ----------------------------------------------------------------------------


def pinned(name: str) -> dict[str, str]:
    """Pins of a requirements file, and of files that it includes: canonical name -> version."""
    found: dict[str, str] = {}
    for line in (PROJECT / "requirements" / name).read_text("utf-8").splitlines():
        if line.startswith("-r "):
            found.update(pinned(line.removeprefix("-r ")))
        elif line and not line.startswith("#"):
            package, _, version = line.partition("==")
            assert version, f"{line!r} has no version"
            found[canonicalize_name(package)] = version
    return found


def group(name: str) -> list[str]:
    result: list[str] = []
    for entry in PYPROJECT["dependency-groups"][name]:
        result += group(entry["include-group"]) if isinstance(entry, dict) else [entry]
    return result


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        pytest.param("run.txt", PYPROJECT["project"]["dependencies"], id="run time"),
        *(
            pytest.param("run.txt", wanted, id=f"extra {name}")
            for name, wanted in PYPROJECT["project"]["optional-dependencies"].items()
        ),
        pytest.param("dev.txt", [*PYPROJECT["build-system"]["requires"], *group("dev")], id="dev"),
    ],
)
def test_pins_satisfy_the_ranges(file: str, wanted: list[str]) -> None:
    pins = pinned(file)
    others = [text for text in wanted if not text.startswith("unit-exporter[")]
    for requirement in map(Requirement, others):
        version = pins[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} against the pin {version}"


def test_pins_without_tensorflow_lack_its_packages() -> None:
    light = pinned("no-tensorflow.txt")
    assert {"tensorflow", "keras", "tf2onnx", "h5py"} & set(light) == set()
    dependencies = {
        canonicalize_name(Requirement(d).name) for d in PYPROJECT["project"]["dependencies"]
    }
    assert "pillow" in light
    assert "scikit-learn" not in light
    assert dependencies <= set(light), "an install without extras is the light one"


EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]


def test_the_extra_all_has_every_other_one() -> None:
    (everything,) = map(Requirement, EXTRAS["all"])
    others = {extra for extra, wanted in EXTRAS.items() if not wanted[0].startswith("unit-")}
    assert everything.extras == others


def test_hints_name_the_extra_that_has_the_library() -> None:
    """Every library of an extra, by the name that pip knows."""
    modules = {"pillow": "PIL", "scikit-learn": "sklearn"}
    for extra, wanted in EXTRAS.items():
        names = [Requirement(text).name for text in wanted if not text.startswith("unit-")]
        for name in names:
            hint = LIBRARIES[modules.get(name, name.replace("-", "_"))]
            found = Requirement(hint)
            assert found.name == "unit-exporter", f"{name} of the extra {extra}"
            of_hint = {Requirement(text).name for each in found.extras for text in EXTRAS[each]}
            assert name in of_hint


# --- the container ------------------------------------------------------------------------------


def test_dockerfile() -> None:
    """Its RUN lines are those of the README; it copies what a build of the wheel needs."""
    text = (PROJECT / "Dockerfile").read_text("utf-8")
    lines = [line.partition(" ")[::2] for line in text.splitlines() if line[:1].isupper()]
    found: dict[str, list[str]] = {}
    for name, rest in lines:
        found.setdefault(name, []).append(rest)
    install = (PROJECT / "README.md").read_text("utf-8")
    assert " && ".join(found["RUN"]) in install
    version = re.search(r"python:(3\.\d+)", found["FROM"][0])
    assert version
    assert version[1] in Requirement(f"x{PYPROJECT['project']['requires-python']}").specifier
    copied = {source for each in found["COPY"] for source in each.split()[:-1]}
    assert all((PROJECT / source).exists() for source in copied)
    project = PYPROJECT["project"]
    assert {"requirements", "exporter", "pyproject.toml"} <= copied
    assert {project["readme"], *project["license-files"]} <= copied
    (entry,), (command,) = found["ENTRYPOINT"], found["CMD"]
    assert json.loads(entry)[0] in project["scripts"]
    assert json.loads(command)[0] in COMMANDS


def test_changelog_has_a_section_for_unreleased_changes() -> None:
    assert "## [Unreleased]" in (PROJECT / "CHANGELOG.md").read_text("utf-8").splitlines()


class Command(NamedTuple):
    """One command of a `console` block, and its shown output ("..." matches any text)."""

    line: str
    shown: str


def commands(text: str) -> list[Command]:
    """Lines that begin with `$ `, each with the lines up to the next; a backslash continues one."""
    parts = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    return [Command(*part) for part in parts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("nothing\n", [], id="no command"),
        pytest.param("$ a\n$ b\n", [("a", ""), ("b", "")], id="two"),
        pytest.param("$ a\nx\ny\n$ b\n", [("a", "x\ny\n"), ("b", "")], id="shows output"),
        pytest.param("$ a \\\n  b\nx\n", [("a \\\n  b", "x\n")], id="continued"),
    ],
)
def test_commands_are_found(text: str, expected: list[tuple[str, str]]) -> None:
    assert commands(text) == expected


def check_demo(output: str, folder: Path) -> None:
    """The accuracy of the network, and the reason for each digit."""
    assert re.search(r"The network classifies 9\d\.\d% of 360 held-out digits correctly\.", output)
    assert " run exporter-demo/digits.keras -o mine --keep 3-5\n" in output
    rows = json.loads((folder / "report.json").read_text())["selection"]
    assert [row["label"] for row in rows if row["kept"]] == ["zero", "one", "seven"]
    assert len(rows) == 10
    assert all(re.match(r"f1 [01][.0-9]* (>= 0.9, count \d+, |< 0.9$)", r["reason"]) for r in rows)
    assert all(row["reason"] in output for row in rows)
    assert (folder / "digits.keras").exists()
    listed = (folder / "SHA256SUMS").read_text()
    for kind in ("onnx", "tflite"):
        assert f"  trimmed.{kind}\n" in listed
        sizes = [(folder / f"{name}.{kind}").stat().st_size for name in ("trimmed", "pruned.fp32")]
        assert sizes[0] < 0.6 * sizes[1]
    agreements = re.findall(r"agreement ([.0-9]+) % on \d+ training images", output)
    assert len(agreements) == 2
    assert min(map(float, agreements)) >= 98


def test_readme_commands_run(tmp_path: Path) -> None:
    """The `console` and `python` blocks run in order, in one empty folder; then the example of
    `docs/how-it-works.md` and the tutorial, on the network that the README's demo wrote.
    """
    readme = PROJECT / "README.md"
    found = blocks(readme.read_text("utf-8"))
    assert {"console", "python"} <= {block.language for block in found}
    for block in found:
        if block.language == "console":
            for command in commands(block.text):
                output = run_shell(command.line, tmp_path)
                assert not command.shown or looks_like(command.shown, output), output
                if command.line == "exporter demo":
                    check_demo(output, tmp_path / "exporter-demo")
        elif block.language == "python":
            run_python(block.text, tmp_path)
    example = (PROJECT / "docs" / "how-it-works.md").read_text("utf-8")
    dry_run = next(b for b in blocks(example) if b.text.startswith("$ exporter prune original"))
    (command,) = commands(dry_run.text)
    got = run_shell(command.line, tmp_path / "exporter-demo")
    assert looks_like(command.shown, got), got
    tutorial = (PROJECT / "docs" / "tutorial.md").read_text("utf-8")
    for command in commands("".join(b.text for b in blocks(tutorial) if b.language == "console")):
        got = run_shell(command.line, tmp_path)
        assert looks_like(command.shown, got), got
