"""The Python functions: their arguments and results, and that inputs stay unchanged."""

from __future__ import annotations

import inspect
import json
import runpy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import keras
import numpy as np
import pytest

import exporter
from exporter.cli import options as cli_options
from exporter.errors import CheckError, ExporterError, ModelError, OutputError, UsageError
from exporter.graph.edits import Edit
from exporter.jobs.job import Job
from exporter.jobs.prune import Pruned
from exporter.modes import MODES, Semantics
from exporter.planning.keywords import with_keywords
from exporter.planning.option import option, options_of
from exporter.planning.options import CutOptions
from exporter.trace.head import Head
from tests.builders.commands import PROJECT, listing
from tests.builders.keras_models import ARCHITECTURES
from tests.builders.shelf import LABELS, UNITS


@pytest.fixture(scope="module")
def net() -> Any:
    return ARCHITECTURES["sequential, softmax inside"].made()


@pytest.fixture
def work(shelf: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shelf, tmp_path / "work"))


# --- names, signatures, help --------------------------------------------------------------------


def test_every_public_name_exists() -> None:
    assert dir(exporter) == sorted(exporter.__all__)
    for name in exporter.__all__:
        assert getattr(exporter, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'frob'"):
        exporter.frob  # noqa: B018 - it must raise


def test_keywords_for_type_checkers_match_the_fields() -> None:
    """If this fails, run `make keywords`."""
    script = runpy.run_path(str(PROJECT / "tools" / "api_keywords.py"))
    source = script["API"].read_text()
    assert script["with_block"](source) == source


FUNCTIONS = ("inspect", "prune", "convert", "quantize", "run", "verify", "bench")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature_and_help_show_every_option_of_the_command(name: str) -> None:
    function = getattr(exporter, name)
    shown = inspect.signature(function).parameters
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in shown.values())
    records = (CutOptions, Job) if name in {"prune", "run", "inspect"} else (Job,)
    expected = {o.name: o for record in records for o in options_of(record, name)}
    if name == "prune":  # it writes no file, and opens Keras models in this process
        for absent in ("to", "force", "share_body", "timeout_s", "memory_limit_bytes"):
            del expected[absent]
    assert expected.keys() <= shown.keys()
    for each in expected.values():
        assert shown[each.name].default == each.default
        assert shown[each.name].annotation is not inspect.Parameter.empty
        assert f"\n    {each.name}: " in function.__doc__
    assert "exporter." in function.__doc__.splitlines()[2], "an example comes first"


@dataclass(frozen=True)
class Extra:
    """A record with one option, as an engineer would add it."""

    depth: int = option(3, "How deep to cut.", "Selection", ("prune",), minimum=1)


def test_a_new_field_is_an_option_and_a_keyword(capsys: pytest.CaptureFixture[str]) -> None:
    @cli_options.command("prune", ("net.onnx",), arguments=(), records=(Extra,))
    def command(**given: Any) -> dict[str, Any]:
        return given

    @with_keywords(Extra, types=get_type_hints(Extra))
    def prune(**options: Any) -> dict[str, Any]:
        """Cut."""
        return options

    assert command.main(["--depth", "5"], standalone_mode=False)["depth"] == 5
    command.main(["--help"], standalone_mode=False)
    assert "Selection:\n  --depth COUNT  How deep to cut.  [default: 3; 1 or more]" in (
        capsys.readouterr().out
    )
    assert str(inspect.signature(prune)) == "(*, depth: int = 3) -> dict[str, typing.Any]"
    assert prune(depth=5) == {"depth": 5}
    assert prune.__doc__ == "Cut.\n\nOptions:\n    depth: How deep to cut."


def test_text_of_an_error_contains_the_hint() -> None:
    assert str(UsageError("the fact", "the remedy")) == "the fact\nhint: the remedy"
    assert str(UsageError("the fact")) == "the fact"


# --- errors -------------------------------------------------------------------------------------

CALLS: dict[str, tuple[Any, type[Exception], str]] = {
    "an option that does not exist": (
        lambda path: exporter.prune(path, keep=[1], frob=2),  # type: ignore[call-overload]
        TypeError,
        r"prune\(\) got an unexpected keyword argument 'frob'$",
    ),
    "a misspelt option": (
        lambda path: exporter.prune(path, kep=[1]),  # type: ignore[call-overload]
        TypeError,
        r"prune\(\) got an unexpected keyword argument 'kep'; did you mean `keep`\?",
    ),
    "an option of another function": (
        lambda path: exporter.inspect(path, bench=False),
        TypeError,
        "'bench'",
    ),
    "keep where nothing is cut": (
        lambda path: exporter.verify(path, path, keep=[1]),  # type: ignore[call-overload]
        TypeError,
        r"verify\(\) got an unexpected keyword argument 'keep'",
    ),
    "neither keep nor remove": (exporter.prune, UsageError, "keep"),
    "both": (lambda path: exporter.prune(path, keep=[1], remove=[2]), UsageError, "keep"),
    "out of range": (lambda path: exporter.prune(path, keep=[7]), UsageError, "there is no unit 7"),
    "twice": (lambda path: exporter.prune(path, keep=[1, 1]), UsageError, "keep"),
    "an unknown mode": (
        lambda path: exporter.prune(path, keep=[1], mode="mince"),
        UsageError,
        "there is no mode 'mince'",
    ),
    "a variant that leaves the folder": (
        lambda path: exporter.run(path, path.parent / "out", variants={"../a": [1]}),
        UsageError,
        "the variant '../a' cannot name a folder",
    ),
    "no variant": (
        lambda path: exporter.run(path, path.parent / "out", variants={}),
        UsageError,
        "there are no variants",
    ),
    "keep and variants": (
        lambda path: exporter.run(path, path.parent / "out", variants={"a": [1]}, remove=[2]),
        UsageError,
        "give keep, remove or cuts, and only one of them",
    ),
    "no samples": (
        lambda path: exporter.prune(path, keep=[1], samples=0),
        UsageError,
        "samples is 0",
    ),
    "an unknown kind": (
        lambda path: exporter.run(path, path.parent / "out", keep=[1], to=["png"]),
        UsageError,
        "no 'png' can be written",
    ),
    "a missing file": (lambda path: exporter.inspect(path / "no"), UsageError, "no"),
    "a missing file, opened": (
        lambda _: exporter.open_model("no.onnx"),
        UsageError,
        "there is no file no.onnx",
    ),
    "a folder that exists": (
        lambda path: exporter.run(path, path.parent, keep=[1]),
        OutputError,
        "exists",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_refused(name: str, work: Path) -> None:
    call, kind, message = CALLS[name]
    before = listing(work)
    with pytest.raises(kind, match=message):
        call(work / "net.onnx")
    assert listing(work) == before


def test_a_live_model_with_a_lambda_is_refused() -> None:
    features = keras.Input((4,))
    tricked = keras.layers.Lambda(lambda values: values, name="trick")(features)
    model = keras.Model(features, keras.layers.Dense(3, name="head")(tricked))
    with pytest.raises(ModelError, match="layer 'trick' is a Lambda"):
        exporter.prune(model, keep=[1])


# --- prune --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_prune_a_path_or_an_opened_model(kind: str, work: Path) -> None:
    path = work / f"net.{kind}"
    model = exporter.open_model(path)
    before = model.graph()
    results = [
        exporter.prune(model, keep=["macaw", "crow"], labels=LABELS),
        exporter.prune(path, keep="macaw,crow", labels=work / "labels.txt"),
        exporter.prune(str(path), keep=(i for i in (5, 0)), labels=list(LABELS)),
    ]
    for index, pruned in enumerate(results):
        assert isinstance(pruned, Pruned)
        assert pruned.remap.heads[0].kept == (0, 5)
        assert pruned.remap.heads[0].labels == ("macaw", "crow")
        assert pruned.remap.to_original([1, 0]).tolist() == [5, 0]
        pruned.save(work / f"small{index}.{kind}")
    files = {(work / f"small{index}.{kind}").read_bytes() for index in range(3)}
    assert len(files) == 1
    assert model.graph() is before
    with pytest.raises(OutputError, match="exists"):
        results[0].save(work / f"small0.{kind}")
    results[0].save(work / f"small0.{kind}", force=True)
    with pytest.raises(UsageError, match="does not end in"):
        results[0].save(work / "small.png")
    assert exporter.verify(path, work / f"small0.{kind}").ok


def test_progress_gets_each_step(work: Path) -> None:
    steps: list[str] = []
    exporter.prune(work / "net.onnx", keep=[1, 2], progress=steps.append)
    assert steps == ["cutting net.onnx", "checking net.onnx (cut)"]


def test_a_live_model_returns_a_live_model(net: Any) -> None:
    weights = [np.array(w) for w in net.get_weights()]
    inputs = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
    before = np.asarray(net(inputs))
    small = exporter.prune(net, keep=[5, 2, 3], keep_order=True)
    assert isinstance(small, keras.Model)
    assert small.output_shape == (None, 3)
    z = np.log(before[:, [5, 2, 3]])
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(small(inputs)), expected, atol=1e-6)
    assert small.remap.to_original([0, 1, 2]).tolist() == [5, 2, 3]
    assert small is not net
    for ours, theirs in zip(net.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.asarray(net(inputs)), before)
    assert net.output_shape == (None, 7)


def test_an_opened_keras_file_is_saved_with_its_remap(net: Any, tmp_path: Path) -> None:
    net.save(tmp_path / "net.keras")
    pruned = exporter.prune(exporter.open_model(tmp_path / "net.keras"), remove=[0])
    pruned.save(tmp_path / "small.keras")
    remap = json.loads((tmp_path / "small.keras.remap.json").read_text())
    assert remap["heads"][0]["kept"] == [1, 2, 3, 4, 5, 6]
    assert remap["original"]["name"] == "net.keras"
    assert keras.models.load_model(tmp_path / "small.keras").output_shape == (None, 6)


@pytest.fixture
def wrong_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MODES["slice"].functions

    def neighbors(head: Head, kept: Sequence[int], *_: Semantics) -> tuple[Edit, ...]:
        return right.edits(head, [(unit + 1) % head.units for unit in kept])

    wrong = replace(right, edits=neighbors)
    monkeypatch.setattr("exporter.modes.slicing.FUNCTIONS", wrong)


def test_a_failed_check_is_in_the_result(wrong_mode: None, work: Path, net: Any) -> None:
    for model in (work / "net.onnx", work / "net.tflite", net):
        assert exporter.prune(model, keep=[1, 2]).ok is False
        with pytest.raises(CheckError, match=r"checks failed; .*: max_abs is ") as raised:
            exporter.prune(model, keep=[1, 2], check=True)
        assert raised.value.exit_code == 1
    assert exporter.prune(work / "net.onnx", keep=[1, 2], verify=False, check=True).ok


def test_a_model_that_failed_a_check_is_not_saved(wrong_mode: None, work: Path) -> None:
    before = listing(work)
    pruned = exporter.prune(work / "net.onnx", keep=[1, 2])
    with pytest.raises(CheckError, match=r"a check failed; .*small.onnx was not written"):
        pruned.save(work / "small.onnx")
    assert listing(work) == before
    pruned.model.write(work / "small.onnx")
    assert not exporter.verify(work / "net.onnx", work / "small.onnx").ok
    with pytest.raises(CheckError):
        exporter.verify(work / "net.onnx", work / "small.onnx", check=True)


def test_a_failed_check_of_a_run_is_in_its_report(wrong_mode: None, work: Path) -> None:
    report = exporter.run(work / "net.onnx", work / "out", keep=[1, 2], bench=False)
    assert not report.ok
    with pytest.raises(CheckError, match="checks failed"):
        exporter.run(work / "net.onnx", work / "a", keep=[1, 2], bench=False, check=True)
    variants = {"low": [1, 2]}
    with pytest.raises(CheckError, match="checks failed"):
        exporter.run(work / "net.onnx", work / "b", variants=variants, bench=False, check=True)
    assert (work / "out" / "pruned.fp32.onnx").exists()
    assert "Do not use pruned.fp32.onnx." in report._repr_markdown_()


# --- run, convert, verify, bench, inspect -------------------------------------------------------


def test_report_displays_itself_in_a_notebook(work: Path) -> None:
    report = exporter.run(work / "net.tflite", work / "out", keep=range(3), samples=4, bench=False)
    assert report.ok
    assert report.inputs == {"source": "synthetic, seed 0", "samples": 4}
    files = f"{work / 'net.tflite'} -o {work / 'out'}"
    assert report.command == f"exporter run {files} --keep 0,1,2 --samples 4 --no-bench"
    assert report._repr_markdown_() == (work / "out" / "report.md").read_text()
    assert exporter.Report.from_json((work / "out" / "report.json").read_text()) == report


def test_run_variants(work: Path) -> None:
    reports = exporter.run(
        work / "net.onnx",
        work / "out",
        variants={"low": range(3), "high": "crow,gull"},
        labels=LABELS,
        bench=False,
    )
    assert {
        name: report.remap.heads[0].kept for name, report in reports.items() if report.remap
    } == {
        "low": (0, 1, 2),
        "high": (5, 6),
    }
    assert {path.name for path in (work / "out").iterdir()} == {
        "SHA256SUMS",
        "index.html",
        "low",
        "high",
    }


def test_run_a_live_model(net: Any, tmp_path: Path) -> None:
    """The child process gets the model as a file."""
    report = exporter.run(net, tmp_path / "out", keep=[1, 2], to="onnx", bench=False)
    assert report.ok
    assert {check.stage for check in report.checks} == {"cut", "export"}
    assert report.original.sha256 is None
    assert report.original.path == net.name
    assert net.output_shape == (None, 7)


def test_inspect_bench_and_convert_files(work: Path) -> None:
    found = exporter.inspect(work / "net.onnx")
    assert [facts.head.units for facts in found.heads] == [UNITS]
    exporter.prune(work / "net.onnx", keep=[1, 2]).save(work / "small.onnx")
    (timed,) = exporter.bench(work / "net.onnx", work / "small.onnx", samples=2).latency
    assert timed.artifact == "small.onnx"
    with pytest.raises(UsageError, match="ONNX cannot be converted"):
        exporter.convert(work / "net.onnx", work / "net2.tflite")


def test_every_error_has_a_code_and_one_line(work: Path) -> None:
    with pytest.raises(ExporterError) as raised:
        exporter.prune(work / "double.onnx", keep=[1])
    assert raised.value.exit_code == 3
    assert "\n" not in raised.value.message
