"""A heavy library is imported, and needed, only by the commands that use it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.commands import environment, exporter, leftover_files

TENSORFLOW = {"tensorflow", "keras", "tf2onnx"}
ONNX = {"onnx", "onnxruntime"}
TFLITE = {"ai_edge_litert", "flatbuffers"}
HEAVY = {*TENSORFLOW, *ONNX, *TFLITE, "numpy", "rich", "psutil", "h5py", "exporter.jobs.run"}

SHOW = """
import json, sys
try:
    {code}
except SystemExit as end:
    assert not end.code, end.code
json.dump(sorted(sys.modules), sys.stderr)
"""

NOTHING = "pass"
IMPORT = "import exporter"
HELP = "from exporter.cli import main; main(['--help'])"
PRUNE_HELP = "from exporter.cli import main; main(['prune', '--help'])"
PRUNE = "from exporter.cli import main; main('prune net.{0} -o {1}.{0} --keep 1-3 -q'.split())"
TABLES = """
    from exporter.modes import MODES, PROBABILITIES
    from exporter.formats import KINDS
    from exporter.output.c_source import FORMS
    from exporter.quantization import PRECISIONS
    assert MODES and PROBABILITIES and KINDS and FORMS and PRECISIONS
"""
UNCHECKED = PRUNE.replace("-q'", "-q --no-verify'")
REMAP = "from exporter import Remap; import exporter; assert exporter.Selection; assert Remap"

# name -> code, and the modules that it must not import
FORBIDDEN: dict[str, tuple[str, set[str]]] = {
    "import exporter": (IMPORT, HEAVY | {"click"}),
    "the remap on a device": (REMAP, HEAVY - {"numpy"} | {"click"}),
    "the tables of choices": (TABLES, HEAVY | {"click"}),
    "exporter --help": (HELP, HEAVY),
    "exporter prune --help": (PRUNE_HELP, HEAVY),
    "cutting an .onnx": (PRUNE.format("onnx", "lazy"), TENSORFLOW | {"ai_edge_litert"}),
    "cutting a .tflite": (PRUNE.format("tflite", "lazy"), TENSORFLOW | ONNX),
}


@pytest.fixture(scope="module")
def work(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(shelf, tmp_path_factory.mktemp("lazy") / "work"))


def loaded(code: str, folder: Path) -> set[str]:
    """The modules that a new interpreter has imported after it ran the code."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(code=code)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stderr)
    return set(names)


# A cut without its check: the libraries, and the rooms of which it imports nothing, or only these.
LIBRARIES = {"click", "numpy", "filelock", "flatbuffers", "rich", "markdown_it", "exporter"}
ROOMS: dict[str, set[str]] = {
    "evaluation": {"measures"},
    "forecast": set(),
    "performance": {"resources"},
    "proof": set(),
    "quantization": {"precisions"},
    "verification": {"metrics"},
    "layers": set(),
    "conversion": {"options", "process"},
    "cli": {
        "config",
        "exit_codes",
        "main",
        "options",
        "progress",
        "prune",
        "show",
        "stderr",
        "stdout",
        "values",
    },
    "jobs": {
        "job",
        *("checks", "options", "output_file", "prune", "record", "source", "started", "timings"),
        *("label_file", "vocabulary"),
    },
    "data": {"files", "image_input", "inputs", "pixel_range", "samples", "stream"},
}


def test_a_cut_imports_what_it_uses(work: Path) -> None:
    names = loaded(UNCHECKED.format("tflite", "bare"), work) - loaded(NOTHING, work)
    packages = {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names}
    assert {name for name in packages if not name.startswith("_")} <= LIBRARIES
    unused = {
        "multiprocessing",
        "numpy.ma",
        "subprocess",
        "exporter.formats.onnx",
        "exporter.report.html",
    }
    assert not unused & names
    for room, allowed in ROOMS.items():
        prefix = f"exporter.{room}."
        assert {n.removeprefix(prefix) for n in names if n.startswith(prefix)} <= allowed, room


@pytest.mark.parametrize("name", FORBIDDEN)
def test_imports_no_heavy_library(name: str, work: Path) -> None:
    code, forbidden = FORBIDDEN[name]
    assert loaded(code, work) & forbidden == set()


def test_a_heavy_import_is_seen(work: Path) -> None:
    assert loaded(NOTHING, work) & HEAVY == set()
    assert {"numpy", "onnx"} <= loaded(PRUNE.format("onnx", "seen"), work)


def test_no_telemetry_file_is_written(work: Path) -> None:
    """onnxruntime writes a temporary file when its telemetry starts."""
    done = exporter("prune net.onnx -o silent.onnx --keep 1-3", work, PYTHONUTF8="1")
    assert done.code == 0
    assert leftover_files(work) == []


# --- missing libraries --------------------------------------------------------------------------

BLOCKER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise {error}(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def without(names: set[str], folder: Path, error: str = "ModuleNotFoundError") -> str:
    """A PYTHONPATH under which these libraries cannot be imported."""
    path = folder / f"without {' '.join(sorted(names))} {error}"
    path.mkdir(exist_ok=True)
    code = BLOCKER.format(names=names, error=error)
    (path / "sitecustomize.py").write_text(code)
    return f"{path}:{environment()['PYTHONPATH']}"


COMMANDS = """
import sys
from exporter.cli import main
for line in sys.argv[1:]:
    try:
        main(line.split())
    except SystemExit as end:
        assert not end.code, (line, end.code)
"""


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_edge_files_need_no_tensorflow(kind: str, work: Path) -> None:
    """Commands in one process: the libraries are missing in each of them."""
    others = TFLITE - {"flatbuffers"} if kind == "onnx" else ONNX
    small = f"small-{kind}.{kind}"
    lines = (
        f"inspect net.{kind}",
        f"prune net.{kind} -o {small} --keep 1-3",
        f"verify net.{kind} {small}",
        f"bench net.{kind} {small} --bench-seconds 0",
        f"run net.{kind} -o run-{kind} --keep 1-3 --no-bench",
    )
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *lines],
        cwd=work,
        env=environment(PYTHONPATH=without(TENSORFLOW | others, work)),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr


MISSING: dict[str, tuple[str, set[str], str]] = {
    "TensorFlow": ("inspect net.keras", {"tensorflow"}, "unit-exporter[convert]"),
    "Keras": ("run net.keras -o missing --keep 1", {"keras"}, "unit-exporter[convert]"),
    "onnxruntime": ("prune net.onnx -o missing.onnx --keep 1", {"onnxruntime"}, "onnxruntime"),
    "LiteRT": ("prune net.tflite -o missing.tflite --keep 1", {"ai_edge_litert"}, "ai-edge-litert"),
    "ONNX": ("inspect net.onnx --json", {"onnx"}, "onnx"),
}


@pytest.mark.parametrize("name", MISSING)
def test_the_error_names_the_missing_library(name: str, work: Path, keras_shelf: Path) -> None:
    shutil.copyfile(keras_shelf / "net.keras", work / "net.keras")
    line, absent, distribution = MISSING[name]
    done = exporter(line, work, PYTHONPATH=without(absent, work))
    assert done.code == 2, done.err
    (module,) = absent
    error, hint = f"{module} is not installed", f"install it: pip install {distribution}"
    if done.out:
        assert (done.record["error"], done.record["hint"]) == (error, hint)
    else:
        assert done.err.splitlines()[-2:] == [f"error: {error}", f"hint: {hint}"]
    assert "Traceback" not in done.err


def test_a_library_that_fails_to_load_is_reported_with_the_reason(work: Path) -> None:
    path = without({"onnx"}, work, "ImportError")
    done = exporter("inspect net.onnx", work, PYTHONPATH=path)
    assert done.code == 2
    assert done.err.startswith("error: onnx cannot be imported: No module named 'onnx'\n")


def test_a_missing_module_of_the_package_is_a_bug(work: Path) -> None:
    path = without({"exporter.trace"}, work)
    module = Path(path.partition(":")[0]) / "sitecustomize.py"
    module.write_text(module.read_text().replace('name.partition(".")[0]', "name"))
    done = exporter("inspect net.onnx", work, PYTHONPATH=path)
    assert done.code == 70
    assert "Traceback" in done.err
    assert done.err.splitlines()[-2:] == [
        "error: this is a bug in exporter",
        "hint: please report the lines above",
    ]
