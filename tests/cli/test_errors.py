"""Errors: one line and a hint, the exit code, no file written, the inputs unchanged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.builders.commands import Done, command, environment, exporter, leftover_files, listing
from tests.builders.refusals import Refusal, assert_refused

pytestmark = pytest.mark.usefixtures("isolated_libraries")
posix = pytest.mark.skipif(not hasattr(os, "killpg"), reason="POSIX only")


@pytest.fixture(scope="module")
def folder(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shelf, with files and folders that outputs must not replace."""
    folder = tmp_path_factory.mktemp("work") / "work"
    shutil.copytree(shelf, folder)
    (folder / "folder").mkdir()
    (folder / "folder" / "diary.txt").write_text("dear diary")
    (folder / "old").mkdir()
    (folder / "old" / "report.json").write_text("{}")
    for name in ("net.onnx", "labels.txt"):
        shutil.copyfile(folder / name, folder / "old" / name)
    (folder / "y.onnx.remap.json").write_text("{}")
    return folder


USAGE = {
    "options of a forecast without a selection": Refusal(
        "inspect net.onnx --precision int8",
        2,
        "--precision needs a selection: give --keep SPEC or --remove SPEC",
    ),
    "a measured share without a selection": Refusal(
        "inspect net.onnx --measure-share", 2, "--measure-share needs a selection"
    ),
    "a measured share without a forecast": Refusal(
        "prune net.onnx -o x.onnx --keep 1 --measure-share",
        2,
        "--measure-share is an option of --dry-run: give both",
    ),
    "an unknown unit in a forecast": Refusal(
        "inspect net.onnx --keep 7", 2, "keep entry 1 at character 1, '7': there is no unit 7"
    ),
    "a precision that no weights can have, in a forecast": Refusal(
        "inspect net.onnx --keep 1 --precision fp32,fp16 --integer-io",
        2,
        "a model at fp16 has float inputs and outputs",
    ),
    "no such command": Refusal(
        "prun net.onnx", 2, "there is no command 'prun'", "did you mean `exporter prune`?"
    ),
    "a file that is spelled wrong": Refusal(
        "inspect nett.onnx", 2, "there is no file nett.onnx", "did you mean net.onnx?"
    ),
    "a folder that is not there": Refusal(
        "inspect nowhere/net.onnx", 2, "there is no folder nowhere", "check the path"
    ),
    "a choice that is spelled wrong": Refusal(
        "prune net.onnx -o x.onnx --keep 1 --mode slize",
        2,
        "Invalid value for '--mode': 'slize' is not one of slice, zero, mask, gate; did you mean "
        "'slice'?",
    ),
    "a word of a list that is spelled wrong": Refusal(
        "run net.onnx -o x --keep 1 --precision fp33",
        2,
        "Invalid value for '--precision': 'fp33' is not one of",
    ),
    "a folder as the output": Refusal(
        "prune net.onnx -o . --keep 1", 2, "the output . does not end in .onnx"
    ),
    "no such option": Refusal(
        "inspect net.onnx --frob", 2, "there is no option", "exporter inspect --help"
    ),
    "no output": Refusal(
        "prune net.onnx --keep 1", 2, "Missing option '-o' / '--output'.", "exporter prune --help"
    ),
    "no precision": Refusal(
        "quantize net.onnx -o x.onnx",
        2,
        "Missing option '--precision'. Choose from: fp16, dynamic, int8, int16x8, int4",
        "exporter quantize --help",
    ),
    "an empty name": Refusal(
        ("run", "net.onnx", "-o", "", "--keep", "1"), 2, "Invalid value for '-o' / '--output'"
    ),
    "a name that is not UTF-8": Refusal(
        ("inspect", "\udcff.onnx"),
        2,
        r"Invalid value for 'MODEL': '\udcff.onnx' is not valid UTF-8: rename it",
    ),
    "a name that would move the cursor": Refusal(
        ("inspect", "no\n\x1b[31m.onnx"), 2, r"there is no file no\n\x1b[31m.onnx", "check the path"
    ),
    "neither keep nor remove": Refusal(
        "prune net.onnx -o x.onnx", 2, "give either --keep SPEC, --remove SPEC or --cut HEAD=SPEC"
    ),
    "both keep and remove": Refusal(
        "prune net.onnx -o x.onnx --keep 1 --remove 2",
        2,
        "give either --keep SPEC, --remove SPEC or --cut HEAD=SPEC",
    ),
    "keep order with remove": Refusal(
        "prune net.onnx -o x.onnx --remove 2 --keep-order",
        2,
        "keep_order needs keep, not remove",
        "give keep with the units in order",
    ),
    "unknown mode": Refusal(
        "prune net.onnx -o x.onnx --keep 1 --mode mince", 2, "Invalid value for '--mode'"
    ),
    "unknown kind": Refusal(
        "run net.onnx -o x --keep 1 --to png",
        2,
        "Invalid value for '--to': 'png' is not one of keras, onnx, tflite",
    ),
    "unknown precision": Refusal(
        "run net.onnx -o x --keep 1 --precision fp8", 2, "Invalid value for '--precision': 'fp8'"
    ),
    "tolerance of NaN": Refusal(
        "prune net.onnx -o x.onnx --keep 1 --tolerance nan", 2, "Invalid value for '--tolerance'"
    ),
    "timeout of 0": Refusal("inspect net.onnx --timeout 0", 2, "Invalid value for '--timeout'"),
    "timeout of inf": Refusal("inspect net.onnx --timeout inf", 2, "Invalid value for '--timeout'"),
    "not a size": Refusal(
        "inspect net.onnx --memory-limit much", 2, "Invalid value for '--memory-limit': 'much'"
    ),
    "a negative dimension": Refusal(
        "prune open.onnx -o x.onnx --keep 1 --input-shape x=1,-1",
        2,
        "Invalid value for '--input-shape': 'x=1,-1' is not of the form NAME=1,16",
    ),
    "opset out of range": Refusal(
        "run net.onnx -o x --keep 1 --opset 3", 2, "Invalid value for '--opset'"
    ),
    "variant without a spec": Refusal(
        "run net.onnx -o x --variant a", 2, "--variant 'a' is not of the form NAME=SPEC"
    ),
    "variant that leaves the folder": Refusal(
        "run net.onnx -o x --variant ../a=1", 2, "--variant '../a=1' is not of the form NAME=SPEC"
    ),
    "variant twice": Refusal(
        "run net.onnx -o x --variant a=1 --variant a=2", 2, "--variant 'a' is given twice"
    ),
    "variant and keep": Refusal(
        "run net.onnx -o x --variant a=1 --keep 2",
        2,
        "--variant excludes --keep, --remove and --cut",
    ),
}

SELECTION = {
    "index out of range": Refusal(
        "--keep 1,7",
        2,
        "keep entry 2 at character 3, '7': there is no unit 7",
        "there are 7 units, 0 to 6",
    ),
    "range out of range": Refusal(
        "--keep 5-9", 2, "keep entry 1 at character 1, '5-9': there is no unit 9"
    ),
    "descending range": Refusal("--keep 5-3", 2, "keep entry 1 at character 1, '5-3'"),
    "duplicate": Refusal("--keep 1,1", 2, "keep entry 2 at character 3, '1'", "remove one"),
    "a quote that is not closed": Refusal("--keep 'macaw", 2, "keep entry 1"),
    "nothing to keep": Refusal("--keep ,", 2, "keep entry 1"),
    "keep nothing": Refusal(
        "--remove 0-6", 2, "none of the 7 units would be kept", "keep at least one"
    ),
    "label without labels": Refusal(
        "--keep macaw",
        2,
        "keep entry 1 at character 1, 'macaw': it is a label, and there are no labels",
        "give --labels FILE, or use indices",
    ),
    "unknown label": Refusal(
        "--keep macow --labels labels.txt",
        2,
        "keep entry 1 at character 1, 'macow': no unit has this label",
        "similar labels: 'macaw' (0)",
    ),
    "pattern without a match": Refusal("--keep x* --labels labels.txt", 2, "keep entry 1"),
    "label count": Refusal(
        "--keep 1 --labels three.txt", 2, "3 labels for 7 units", "give one label for each unit"
    ),
    "missing labels": Refusal(
        "--keep 1 --labels no.txt", 2, "cannot read 'no.txt': No such file or directory"
    ),
    "missing list of units": Refusal("--keep @no.txt", 2, "keep entry 1"),
    "unknown head": Refusal(
        "--keep 1 --head color", 2, "no head is named 'color'", "heads: 'probabilities'"
    ),
    "missing data": Refusal("--keep 1 --data no.npz", 2, "there is no file no.npz"),
    "data in another format": Refusal(
        "--keep 1 --data labels.txt", 2, "input 'x' of shape [?, 6] and dtype float32 does not take"
    ),
    "data of another shape": Refusal(
        "--keep 1 --data wide.npz", 2, "wide.npz: the array for input 'x' has the shape [5, 7]"
    ),
    "shape that does not fit": Refusal(
        "--keep 1 --input-shape x=1,9", 2, "input 'x' has the shape [?, 6], not [1, 9]"
    ),
    "shape of an unknown input": Refusal(
        "--keep 1 --input-shape z=1,6", 2, "the model has no input 'z'", "its inputs are 'x'"
    ),
}

FILES = {
    "missing": Refusal(
        "prune no.onnx -o x.onnx --keep 1",
        2,
        "there is no file no.onnx",
        "check the path; it starts in the current folder",
    ),
    "a folder": Refusal("inspect folder", 2, "folder is a folder without a saved_model.pb"),
    "missing in verify": Refusal("verify net.onnx no.onnx", 2, "there is no file no.onnx"),
    "empty .onnx": Refusal("prune empty.onnx -o x.onnx --keep 1", 3, "empty.onnx is empty"),
    "empty .tflite": Refusal("prune empty.tflite -o x.tflite --keep 1", 3, "empty.tflite is empty"),
    "truncated .onnx": Refusal(
        "prune truncated.onnx -o x.onnx --keep 1",
        3,
        "truncated.onnx is not an ONNX file, or",
        "save or copy the model again",
    ),
    "truncated .tflite": Refusal(
        "prune truncated.tflite -o x.tflite --keep 1", 3, "truncated.tflite is damaged or truncated"
    ),
    "foreign .onnx": Refusal(
        "prune foreign.onnx -o x.onnx --keep 1",
        3,
        "foreign.onnx is not a model file of a known kind (Keras, ONNX, TFLite)",
        "models are .keras, .h5, .hdf5, .onnx, .tflite files",
    ),
    "foreign .tflite": Refusal(
        "prune foreign.tflite -o x.tflite --keep 1", 3, "foreign.tflite is not a model file"
    ),
    "picture": Refusal("inspect picture.png", 3, "picture.png is not a model file"),
    "second softmax": Refusal(
        "prune double.onnx -o x.onnx --keep 1",
        3,
        "no head can be cut: output 'probabilities': Softmax 'first'",
        "export the model without the operations after it",
    ),
    "operation without a rule": Refusal(
        "run norule.onnx -o x --keep 1",
        3,
        "no head can be cut: output 'probabilities': CumSum 'running'",
    ),
    "no head": Refusal("prune nohead.onnx -o x.onnx --keep 1", 3, "no head can be cut: output 'y'"),
    "several heads": Refusal(
        "prune two.onnx -o x.onnx --keep 1",
        2,
        "the model has several heads: 'color', 'shape'",
        "choose one with --head NAME",
    ),
    "NaN weights": Refusal(
        "prune nan.onnx -o x.onnx --keep 1",
        4,
        "1 of 1 kept values of 'bias' are NaN or infinite",
        "--allow-nonfinite cuts the model anyway",
    ),
    "infinite weights": Refusal(
        "prune inf.tflite -o x.tflite --keep 1",
        4,
        "1 of 1 kept values of 'bias' are NaN or infinite",
    ),
}

OUTPUTS = {
    "suffix of another kind": Refusal(
        "prune net.onnx -o x.tflite --keep 1", 2, "the output x.tflite does not end in .onnx"
    ),
    "no suffix": Refusal("prune net.onnx -o x --keep 1", 2, "the output x does not end in .onnx"),
    "the input itself": Refusal(
        "prune net.onnx -o net.onnx --keep 1 --force", 2, "the output net.onnx is the model itself"
    ),
    "existing file": Refusal(
        "prune net.onnx -o sigmoid.onnx --keep 1",
        6,
        "sigmoid.onnx exists",
        "use --force to replace it",
    ),
    "existing file, before other errors": Refusal(
        "prune net.onnx -o sigmoid.onnx --keep 99 --dry-run", 6, "sigmoid.onnx exists"
    ),
    "existing remap": Refusal("prune net.onnx -o y.onnx --keep 1", 6, "y.onnx.remap.json exists"),
    "folder of a file that is a file": Refusal(
        "prune net.onnx -o labels.txt/x.onnx --keep 1", 6, "the folder labels.txt is not a folder"
    ),
    "folder of a file that is missing": Refusal(
        "prune net.onnx -o no/x.onnx --keep 1", 6, "the folder no does not exist"
    ),
    "existing folder": Refusal(
        "run net.onnx -o folder --keep 1", 6, "folder exists", "use --force"
    ),
    "existing folder, dry": Refusal(
        "run net.onnx -o folder --keep 1 --dry-run", 6, "folder exists"
    ),
    "folder below a file": Refusal(
        "run net.onnx -o labels.txt/x --keep 1", 6, "cannot write", "choose another place with -o"
    ),
    "a file instead of a folder": Refusal(
        "run net.onnx -o labels.txt --keep 1 --force", 6, "labels.txt is not a folder"
    ),
    "a folder of something else": Refusal(
        "run net.onnx -o folder --keep 1 --force", 6, "folder contains no report.json"
    ),
    "a folder that holds the model": Refusal(
        "run old/net.onnx -o old --keep 1 --force", 2, "the input old/net.onnx is in old"
    ),
    "a folder that holds the labels": Refusal(
        "run net.onnx -o old --keep 1 --force --labels old/labels.txt",
        2,
        "the input old/labels.txt",
    ),
    "no route": Refusal(
        "run net.onnx -o x --keep 1 --to tflite",
        2,
        "ONNX cannot be converted to TFLite",
        "use --to onnx, or start from the Keras model",
    ),
    "no route to Keras": Refusal(
        "run net.tflite -o x --keep 1 --to keras", 2, "TFLite cannot be converted to Keras"
    ),
    "no route, converted": Refusal(
        "convert net.onnx -o x.tflite", 2, "ONNX cannot be converted to TFLite"
    ),
    "converted to itself": Refusal(
        "convert net.onnx -o x.onnx", 2, "net.onnx is in ONNX format already"
    ),
    "converted to an unknown kind": Refusal(
        "convert net.onnx -o x.png",
        2,
        "the suffix of x.png is not one that models are converted to",
        "use -o NAME with",
    ),
    "two runtimes": Refusal(
        "bench net.onnx net.tflite",
        2,
        "net.onnx and net.tflite do not run in the same edge runtime",
    ),
    "demo in a folder that exists": Refusal("demo -o folder", 6, "folder exists"),
}

GATES = {
    "a condition that does not parse": Refusal(
        ("prune", "net.onnx", "-o", "x.onnx", "--gate", "logit >> 1"),
        2,
        "the condition 'logit >> 1', at character 8: expected a number",
        "write [probability|logit|abs] (>|>=|<|<=) NUMBER, or top:K",
    ),
    "a condition that chooses no unit": Refusal(
        "prune net.tflite -o x.tflite --gate top:0",
        2,
        "the condition 'top:0', at character 5: at least one unit must be chosen",
    ),
    "a head that cannot have a gate": Refusal(
        "prune open.onnx -o x.onnx --units 1:4 --gate input",
        3,
        "head 'y' cannot have a gate: the unit axis of 'y' contains more than its units",
        "use --mode mask or --mode slice",
    ),
}

TABLE = {
    **USAGE,
    **{
        name: Refusal(f"prune net.onnx -o x.onnx {case.line}", case.code, case.error, case.hint)
        for name, case in SELECTION.items()
    },
    **FILES,
    **OUTPUTS,
    **GATES,
}

KERAS_IN_CHILD = {  # the same as in a command's own child, without the import of TensorFlow
    "second softmax": Refusal(
        "prune double.keras -o x.keras --keep 1", 3, "no head can be cut: output 'second'"
    ),
    "layer without a rule": Refusal(
        "prune norule.keras -o x.keras --keep 1", 3, "no head can be cut: output 'norm'"
    ),
    "NaN weights": Refusal(
        "run nan.keras -o x --keep 1", 4, "1 of 1 kept values of 'probabilities/bias' are NaN"
    ),
}
KERAS = {
    "empty .keras": Refusal("run empty.keras -o x --keep 1", 3, "empty.keras is empty"),
    "empty .h5": Refusal("prune empty.h5 -o x.h5 --keep 1", 3, "empty.h5 is empty"),
    "foreign .keras": Refusal("inspect foreign.keras", 3, "foreign.keras is not a model file"),
    "truncated .keras": Refusal(
        "convert truncated.keras -o x.onnx", 3, "truncated.keras is damaged or truncated"
    ),
    "truncated .h5": Refusal("inspect truncated.h5", 3, "truncated.h5 is damaged or truncated"),
    "Lambda": Refusal(
        "run lambda.keras -o x --keep 1",
        3,
        "lambda.keras: layer 'trick' is a Lambda, which runs custom code",
        "build the model again with a built-in layer instead",
    ),
    "custom layer": Refusal(
        "run custom.keras -o x --keep 1",
        3,
        "custom.keras: layer 'mine' is of the custom class 'Doubled'",
        "load it in Python with the package that defines the class, save it with "
        "model.export(FOLDER), and cut that folder",
    ),
    "wrong spec, before the conversion": Refusal(
        "run net.keras -o x --keep 9", 2, "keep entry 1 at character 1, '9': there is no unit 9"
    ),
    "wrong suffix, before TensorFlow": Refusal(
        "prune net.keras -o x.onnx --keep 1", 2, "the output x.onnx does not end in .keras"
    ),
    "out of time": Refusal(
        "run net.keras -o x --keep 1 --timeout 0.5",
        5,
        "opening net.keras took longer than 0.5 s",
        "raise --timeout; the log is ",
    ),
    "out of memory": Refusal(
        "run net.keras -o x --keep 1 --memory-limit 50M",
        5,
        "opening net.keras took ",
        "raise --mem",
    ),
}


@pytest.fixture(scope="module")
def keras_folder(keras_shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras") / "work"
    shutil.copytree(keras_shelf, folder)
    return folder


@pytest.mark.parametrize("name", TABLE)
def test_refused(name: str, folder: Path) -> None:
    assert_refused(TABLE[name], folder)
    assert leftover_files(folder) == []


@pytest.mark.parametrize("name", KERAS_IN_CHILD)
def test_refused_in_the_child(
    name: str, keras_folder: Path, command_here: Callable[[Sequence[str], Path], Done]
) -> None:
    assert_refused(KERAS_IN_CHILD[name], keras_folder, command_here)


@pytest.mark.parametrize("name", KERAS)
def test_refused_keras(name: str, keras_folder: Path) -> None:
    for log in (keras_folder.parent / "work-tmp").glob("*.log"):
        log.unlink()
    # A limit needs a child that starts from nothing, and a command with variables has one.
    run = partial(exporter, PYTHONHASHSEED="0") if name.startswith("out of") else exporter
    assert_refused(KERAS[name], keras_folder, run)
    logs = [name for name in leftover_files(keras_folder) if name.endswith(".log")]
    assert leftover_files(keras_folder) == logs, "a failed conversion leaves only its log"
    assert len(logs) == (KERAS[name].code == 5)


@pytest.mark.parametrize(
    "name", ["unknown mode", "unknown label", "truncated .onnx", "NaN weights", "existing file"]
)
def test_one_json_object_on_failure(name: str, folder: Path) -> None:
    case = TABLE[name]
    done = exporter([*case.arguments, "--json", "-q"], folder)
    assert done.code == case.code
    assert done.err == ""
    record = done.record
    assert list(record) == ["schema", "ok", "exit", "error", "hint"]
    assert record["schema"] == "exporter/error/1"
    assert record["ok"] is False
    assert record["exit"] == case.code
    assert record["error"].startswith(case.error)
    assert record["hint"].startswith(case.hint)
    assert done.out.count("\n") == 1


def test_debug_shows_the_traceback_and_the_hint_once(folder: Path) -> None:
    done = exporter("inspect empty.onnx --debug", folder)
    assert done.code == 3
    assert done.err.startswith("Traceback")
    assert "error: empty.onnx is empty" in done.err
    assert done.err.count("hint: save or copy the model again") == 1


# --- signals ------------------------------------------------------------------------------------


@pytest.fixture
def started(keras_folder: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a command in a new session and a new folder, and leave it running."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        (tmp_path / "tmp").mkdir()
        for name in ("net.keras", "net.onnx"):
            shutil.copyfile(keras_folder / name, tmp_path / name)
        return subprocess.Popen(
            command(*arguments),
            cwd=tmp_path,
            env=environment(TMPDIR=str(tmp_path / "tmp")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )

    return start


def wait_for_step(process: subprocess.Popen[str], step: str) -> list[psutil.Process]:
    """Read stderr until a step begins; returns the child that holds Keras, if it runs then."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(step):
            break
    else:
        raise AssertionError(f"{step!r} was not printed")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        every = psutil.Process(process.pid).children(recursive=True)
        if children := [child for child in every if _holds_keras(child)]:
            return children
        if not step.startswith("opening"):
            return []
        time.sleep(0.01)
    raise AssertionError("no child was started")


def _holds_keras(process: psutil.Process) -> bool:
    """Not a short-lived copy of the command, in which a library reads the file."""
    try:
        return "exporter.conversion.child" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def assert_nothing_left(tmp_path: Path, children: list[psutil.Process]) -> None:
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running()]
    names = {name for name in listing(tmp_path) if not name.startswith("tmp/exporter-")}
    assert names == {"net.keras", "net.onnx", "tmp/"}


INTERRUPTIONS = {
    "while Keras loads": ("opening", "run", "net.keras"),
    "while it converts": ("converting to TFLite", "run", "net.keras"),
    "while it times": ("timing", "run", "net.onnx"),
}


@posix
@pytest.mark.parametrize("when", INTERRUPTIONS)
def test_interrupted(
    when: str, started: Callable[..., subprocess.Popen[str]], keras_folder: Path, tmp_path: Path
) -> None:
    step, name, model = INTERRUPTIONS[when]
    process = started(name, model, "-o", "deep/out", "--keep", "1-3", "--to", _KINDS[model])
    children = wait_for_step(process, step)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert err.strip().splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    assert_nothing_left(tmp_path, children)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert (tmp_path / model).read_bytes() == (keras_folder / model).read_bytes()


_KINDS = {"net.keras": "tflite,keras", "net.onnx": "onnx"}


@posix
def test_terminated(started: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = started("run", "net.onnx", "-o", "out", "--keep", "1-3")
    children = wait_for_step(process, "timing")
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert out == ""
    assert "Traceback" not in err
    assert_nothing_left(tmp_path, children)
    assert list((tmp_path / "tmp").iterdir()) == []


@posix
def test_a_killed_child(started: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = started("run", "net.keras", "-o", "out", "--keep", "1-3", "--json")
    children = wait_for_step(process, "opening")
    children[0].kill()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 5
    record = json.loads(out)
    assert record["exit"] == 5
    assert record["error"] == ("opening net.keras: the child process was killed by SIGKILL")
    assert record["hint"].startswith("the log is ")
    assert_nothing_left(tmp_path, children)
    suffixes = [path.suffix for path in (tmp_path / "tmp").iterdir()]
    assert suffixes == [".log"]
