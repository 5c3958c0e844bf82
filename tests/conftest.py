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

# Tracing each line takes longer than most tests. Other tests run the same lines of the rooms with a
# coverage gate, so these run without it.
UNTRACED = {
    *("batches", "channels", "cli", "conversion", "devices", "evaluation", "fuzz", "layers"),
    *("project", "storage", "trimming"),
    *(f"formats/{name}" for name in ("keras", "savedmodel", "test_isolation.py")),
    *(f"jobs/test_{name}.py" for name in ("box_quality", "cut_before_conversion", "quantize")),
    *(f"jobs/test_{name}.py" for name in ("pixel_quality", "task_quality", "text_quality")),
    *(f"jobs/test_{name}.py" for name in ("prune_and_convert", "prune_and_convert_heads")),
    *(f"modes/test_{name}.py" for name in ("gate_files", "mode_matrix", "mode_zoo")),
    *(f"performance/test_{name}.py" for name in ("latency", "memory")),
    *(f"quantization/test_{name}.py" for name in ("interface", "onnx_quantizers", "quantize")),
    *(f"quantization/test_{name}.py" for name in ("real_networks", "remote", "tflite_quantizers")),
    *(f"report/test_{name}.py" for name in ("browser", "html", "report")),
    "graph/test_softmax.py::test_it_is_cut_as_one_activation",
    "modes/test_calibrated.py::test_factors_are_cut_with_their_units",
    "modes/test_gate.py::test_condition_chooses_among_the_kept_units",
    "modes/test_gate.py::test_gate_by_input",
    "modes/test_gate_integers.py::test_published_quantized_files",
    "modes/test_merge.py::test_absolute_merged_units_match_the_original",
    "modes/test_merge.py::test_merge_in_a_published_network",
    "modes/test_merge.py::test_merged_float_units",
    "modes/test_merge.py::test_merged_quantized_units_are_within_one_step",
    "modes/test_merge.py::test_operator_forms_of_each_opset",
    "performance/test_intervals.py::test_interval_contains_the_truth",
    "performance/test_verdict.py::test_false_claims",
    "planning/test_drop_outputs.py::test_command_line",
    "planning/test_unit_ids.py::test_the_added_output_returns_original_indices",
    "proof/test_probe.py::test_correct_cuts_pass",
    "proof/test_prove.py::test_every_cut_is_proved_however_it_is_written",
    "trace/test_output_parts.py::test_ids_are_indices_of_the_kept_units",
    "trace/test_output_parts.py::test_slice_then_run_is_run_then_take",
    "trace/test_tracer.py::test_slice_then_run_is_run_then_take",
    "trace/test_tracer.py::test_zero_makes_z_exactly_zero_and_is_idempotent",
    "verification/test_bisect.py::test_the_first_tensor_that_differs",
    "verification/test_blocks.py::test_blocks_of_any_size_give_the_same_verification",
    "verification/test_blocks.py::test_every_metric_is_that_of_whole_arrays",
    "verification/test_detector_rows.py::test_correct_rows_pass",
    "verification/test_detector_rows.py::test_original_class_indices_are_restored",
    "verification/test_trust.py::test_a_cut_that_looks_quantized_must_match_like_a_cut",
    "verification/test_trust.py::test_a_remap_states_the_precision",
    "verification/test_trust.py::test_shared_cases_fail",
    "verification/test_verify.py::test_a_correct_cut_passes",
    "verification/test_verify.py::test_a_damaged_cut_fails",
    "verification/test_verify.py::test_integer_logits_are_bit_identical",
}

settings.register_profile(
    "ci",
    max_examples=25,  # of a few units each; a longer search by hand is the other profile
    derandomize=True,  # the same examples in each run: a failure has its cause in the change
    database=None,
    deadline=None,  # the machines share their cores
    print_blob=True,
)
settings.register_profile("search", max_examples=2000, deadline=None)  # for a longer search by hand
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect the tests without tracing: their modules build models and tables of cases."""
    plugins = session.config.pluginmanager
    plugin = plugins.get_plugin("_cov")
    if plugin is None or plugin.cov_controller is None or plugins.hasplugin("dsession"):
        return (yield)  # no tracing, or a process that only starts the others
    import_rooms_with_a_gate()  # traced: the modules of the tests import them next
    plugin.cov_controller.pause()
    try:
        return (yield)
    finally:
        plugin.cov_controller.resume()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(PROJECT / "tests")
        test = f"{place.as_posix()}::{item.name.partition('[')[0]}"
        if {test, place.as_posix(), *(each.as_posix() for each in place.parents)} & UNTRACED:
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


@pytest.fixture(scope="session", autouse=True)
def libraries_run_here() -> None:
    """Jobs call libraries in their own process, as they do on other systems than Linux."""
    from tests.builders import in_process  # noqa: PLC0415 - imported after coverage starts

    in_process.run_libraries_here()


@pytest.fixture
def isolated_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs call libraries in forks with limits, as they do for users."""
    monkeypatch.setenv("TESTS_ISOLATE_LIBRARIES", "1")


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


@pytest.fixture(scope="session")
def other_child() -> Iterator[Child]:
    """A child that started from nothing, with other hashes: for tests of equal bytes."""
    from tests.builders import fork_server  # noqa: PLC0415 - only for tests that need it
    from tests.builders.child import SharedChild  # noqa: PLC0415 - likewise

    started = SharedChild()
    with pytest.MonkeyPatch.context() as patch:
        place = "exporter.conversion.process.start_process"
        patch.setattr(place, fork_server.start_from_nothing)
        started.request("load", "loading Keras", kind="keras")
    yield started
    started.close()


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
