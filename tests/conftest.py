"""Fixtures and settings for all tests."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from exporter.conversion.process import Child
    from tests.builders.commands import Done

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # also for tests that import onnxruntime themselves

PROJECT = Path(__file__).parent.parent

# Tracing each line takes longer than most tests. Other tests run the lines of the rooms with a
# coverage gate too, so these run without it.
UNTRACED = {
    *("batches", "cli", "conversion", "evaluation", "fuzz", "layers", "project"),
    *(f"jobs/test_{name}.py" for name in ("prune_and_convert", "quantize")),
    *(f"modes/test_{name}.py" for name in ("gate_files", "mode_matrix", "mode_zoo")),
    *(f"performance/test_{name}.py" for name in ("latency", "memory")),
    *(f"quantization/test_{name}.py" for name in ("interface", "real_networks")),
    *(f"report/test_{name}.py" for name in ("browser", "html", "report")),
}

settings.register_profile(
    "ci",
    derandomize=True,  # the same examples in each run: a failure has its cause in the change
    database=None,
    deadline=None,  # the machines share their cores
    print_blob=True,
)
settings.register_profile("search", max_examples=2000, deadline=None)  # for a longer search by hand
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.hasplugin("_cov"):  # a test without tracing may import a module first
        import_rooms_with_a_gate()
    for item in items:
        place = item.path.relative_to(PROJECT / "tests")
        if {place.parts[0], place.as_posix()} & UNTRACED:
            item.add_marker(pytest.mark.no_cover)


def import_rooms_with_a_gate() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]["coverage"]
    for pattern in settings["report"]["include"]:
        for path in PROJECT.glob(pattern):
            import_module(".".join(path.relative_to(PROJECT).with_suffix("").parts))


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of real models; see its README."""
    named = os.environ.get("EXPORTER_ZOO")
    folder = Path(named) if named else PROJECT.parent / "shared" / "zoo"
    if not folder.is_dir():
        pytest.skip(f"no folder of real models at {folder}; EXPORTER_ZOO names it")
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of files that once fooled the tool, by topic."""
    named = os.environ.get("EXPORTER_CASES")
    folder = Path(named) if named else PROJECT.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"no folder of cases at {folder}; EXPORTER_CASES names it")
    return folder


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the source tree."""
    return PROJECT


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small ONNX and TFLite files; see `tests.builders.shelf`."""
    from tests.builders.shelf import fill  # noqa: PLC0415 - for those tests that ask for it

    folder = tmp_path_factory.mktemp("shelf")
    fill(folder)
    return folder


@pytest.fixture(scope="session")
def keras_shelf(shelf: Path) -> Path:
    """The same folder, also with Keras files."""
    from tests.builders.shelf import fill_keras  # noqa: PLC0415 - for those tests that ask for it

    fill_keras(shelf)
    return shelf


@pytest.fixture(scope="session")
def digits_network(child: Child, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The demo's network, trained once for all tests, and its accuracy."""
    path = tmp_path_factory.mktemp("trained") / "digits.keras"
    return path, child.request("train", "training", what="digits", path=str(path), seed=0)["score"]


@pytest.fixture(scope="session", autouse=True)
def children_are_forks() -> Iterator[None]:
    """Children that convert are forks of a process that has imported TensorFlow."""
    from tests.builders import fork_server  # noqa: PLC0415 - imported after coverage starts

    with pytest.MonkeyPatch.context() as patch:
        if fork_server.AVAILABLE:
            patch.setattr("exporter.conversion.process.start_process", fork_server.start_child)
        yield


@pytest.fixture
def new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that start from nothing, as those of users do."""
    from tests.builders import fork_server  # noqa: PLC0415 - imported after coverage starts

    place = "exporter.conversion.process.start_process"
    monkeypatch.setattr(place, fork_server.start_from_nothing)


@pytest.fixture(scope="session")
def child() -> Iterator[Child]:
    """A child process for all tests that do not test the process itself."""
    from tests.builders.child import SharedChild  # noqa: PLC0415 - only for tests that need it

    shared = SharedChild()
    yield shared
    shared.close()
    if shared.log is not None:  # kept if a request failed
        shared.log.unlink()


@pytest.fixture
def jobs_share_child(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs such as `exporter.run` use the shared child instead of starting one."""
    monkeypatch.setattr("exporter.conversion.process.Child", lambda *_limits: child)


@pytest.fixture
def command_here(
    jobs_share_child: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str | Sequence[str], Path], Done]:
    """Run a command in this process with the shared child, for tests of results, not of processes.

    Takes the command line without the program's name, and the folder.
    """
    from exporter.cli.exit_codes import run_command  # noqa: PLC0415 - only for tests that need it
    from exporter.cli.main import cli  # noqa: PLC0415 - likewise
    from tests.builders.commands import Done  # noqa: PLC0415 - likewise

    def run(line: str | Sequence[str], folder: Path) -> Done:
        monkeypatch.chdir(folder)
        capsys.readouterr()
        code = run_command(cli, shlex.split(line) if isinstance(line, str) else list(line))
        return Done(code, *capsys.readouterr())

    return run
