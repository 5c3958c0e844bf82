"""Several heads cut in one call, and class maps of a detector that are outputs of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import exporter
from exporter.cli.exit_codes import run_command
from exporter.cli.main import cli
from exporter.errors import UsageError
from exporter.formats.model import RunOptions
from exporter.graph import Array
from exporter.jobs.variant import label_files
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.prove import prove
from exporter.trace import trace
from tests.builders.several_heads import (
    CLASSES,
    FIVE,
    LEVELS,
    expected,
    five_heads,
    level_maps,
    one_kernel,
    two_in_tflite,
)

Cuts = Mapping[str, Sequence[int]]

MINIMUM = 0.05  # probability of a gate
BOTH = {"gender": [1], "age": [0, 3]}
CASES: Mapping[str, tuple[Callable[[], Any], Cuts]] = {
    "five heads": (
        five_heads,
        {"pose": [0, 2], "age": [0, 3], "gender": [1], "race": [1, 2, 6], "mood": [0, 1, 2, 3]},
    ),
    "two of five": (five_heads, {"race": [5, 6], "pose": [1, 2]}),
    "heads of one kernel": (one_kernel, BOTH),
    "TensorFlow Lite": (two_in_tflite, BOTH),
}


def answers(model: Any) -> dict[str, Array]:
    x = np.random.default_rng(7).normal(size=(1, 6)).astype(np.float32)
    return dict(model.runner(RunOptions())({"x": x}))


def check(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("mode", ["slice", "mask", "restore_width"])
@pytest.mark.parametrize("case", CASES)
def test_each_head_returns_its_kept_units(case: str, mode: str) -> None:
    build, cuts = CASES[case]
    model = build()
    how = {"restore_width": True} if mode == "restore_width" else {"mode": mode}
    cut = plan_cut(model, CutOptions(cuts=cuts, **how))
    pruned = model.apply(cut.plan)
    check(answers(pruned), expected(answers(model), cuts, mode))
    assert {head.name: head.kept for head in pruned.remap.heads} == {
        name: tuple(kept) for name, kept in cuts.items()
    }
    assert prove(model, pruned, pruned.remap).result == "proved"


@pytest.mark.parametrize("build", [five_heads, two_in_tflite])
def test_each_head_has_its_own_gate(build: Callable[[], Any]) -> None:
    cuts, model = {"age": [0, 2, 3], "gender": [1]}, build()
    pruned = model.apply(
        plan_cut(model, CutOptions(cuts=cuts, gate=f"probability > {MINIMUM}")).plan
    )
    before, after = answers(model), answers(pruned)
    for name, kept in cuts.items():
        is_on = (before[name] > MINIMUM) & np.isin(np.arange(FIVE[name]), kept)
        shown = before[name] * is_on
        assert 0 < is_on.sum() < FIVE[name], "some units are on, and some off"
        np.testing.assert_allclose(after[name], shown / shown.sum(), atol=1e-6)
    assert prove(model, pruned, pruned.remap).result == "proved"


@pytest.mark.parametrize("case", CASES)
def test_one_call_is_one_call_for_each_head(case: str) -> None:
    build, cuts = CASES[case]
    original = step = build()
    for name, kept in cuts.items():
        step = step.apply(plan_cut(step, CutOptions(keep=kept, head=name)).plan)
    cut = plan_cut(original, CutOptions(cuts=cuts))
    pruned = original.apply(cut.plan)
    assert pruned.graph().outputs == step.graph().outputs
    for name, values in answers(step).items():
        np.testing.assert_array_equal(answers(pruned)[name], values)
    assert cut.remap.heads == step.remap.heads
    assert cut.remap.steps == step.remap.steps
    assert (cut.remap.original.name, cut.remap.parent) == (original.name, None)
    assert [part.heads[0].name for part in cut.parts] == list(cuts)


def test_python_and_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    five_heads().write(Path("five.onnx"))
    pruned = exporter.prune("five.onnx", cuts={"age": "0,3", "pose": range(2)}, mode="mask")
    assert pruned.ok
    assert {check.output.split(" ")[0] for check in pruned.results.checks} >= set(FIVE)
    Path("ages.txt").write_text("baby\nchild\nteen\nadult\nold\n")
    line = "run five.onnx --cut age=adult,baby --cut pose=0-1 --labels ages.txt --no-bench"
    assert run_command(cli, [*line.split(), "-o", "out", "--samples", "2"]) == 0
    assert Path("out/labels.txt").read_text() == "baby\nadult\n"
    remap = exporter.open_model("out/pruned.fp32.onnx").remap
    assert remap is not None
    assert [head.name for head in remap.heads] == ["age", "pose"]
    capsys.readouterr()
    assert run_command(cli, [*line.split(), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "head 'age', slice: 2 of 5 units kept\nkept: baby, adult\nhead 'pose'" in shown


def test_keras() -> None:
    x = keras.Input((6,), name="x")
    units = {"age": 5, "gender": 3}
    heads = [keras.layers.Dense(n, activation="softmax", name=k)(x) for k, n in units.items()]
    model = keras.Model(x, heads)
    cuts = {"age": [0, 3], "gender": [1, 2]}
    pruned: Any = exporter.prune(model, cuts=cuts, samples=2)
    given = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    before, after = (
        {name: np.asarray(y) for name, y in zip(units, m(given), strict=True)}
        for m in (model, pruned)
    )
    assert pruned.ok
    check(after, expected(before, cuts, "slice"))


def test_several_label_files() -> None:
    tables = plan_cut(five_heads(), CutOptions(cuts=BOTH)).remap.heads
    labels = {"gender": ("f",), "age": ("baby", "teen")}
    named = [replace(t, name=f"out/{t.name}", labels=labels[t.name]) for t in tables]
    assert label_files(named) == {
        "labels.out_gender.txt": "f\n",
        "labels.out_age.txt": "baby\nteen\n",
    }
    assert label_files(tables) == {}


REFUSED = [
    ({"cuts": {"age": "0"}, "keep": "1"}, "give keep, remove or cuts, and only one of them"),
    ({"cuts": {"age": "0"}, "head": "age"}, "--head belongs to one head, and --cut names"),
    ({"cuts": {"age": "0"}, "merge": {"a": "1,2"}}, "--merge belongs to one head, and --cut names"),
    ({"cuts": {"age": "0"}, "gate": "input"}, "a gate by an input has one input, for one head"),
    ({"cuts": {"size": "0"}}, "no head is named 'size'"),
    ({"cuts": {"age": "0", "pose": "3"}}, "head 'pose': keep entry 1 .* there is no unit 3"),
    ({"cuts": {"age": "a", "pose": "0"}, "labels": ["a", "b"]}, "the 2 labels fit no head, of 2"),
    (
        {"cuts": {"gender": "a", "other": "0"}, "labels": ["a", "b"]},
        "the 2 labels fit 'gender' and 'other', of 2",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused(options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIVE, "other", 2)
    with pytest.raises(UsageError, match=message):
        plan_cut(five_heads(), CutOptions(**options))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--head age --keep 0 --head pose --keep 1", "--head is given 2 times"),
        ("--keep 0 --keep 1", "--keep is given 2 times: for several heads, give --cut HEAD=SPEC"),
        ("--cut age=0 --cut age=1", "--cut names the head 'age' twice"),
        ("--cut age", "'age' is not of the form HEAD=SPEC"),
        ("--cut age=0 --keep 1", "give either --keep SPEC, --remove SPEC or --cut HEAD=SPEC"),
        ("--keep 0", "the model has several heads"),
    ],
)
def test_command_lines_that_are_refused(
    line: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    five_heads().write(tmp_path / "five.onnx")
    monkeypatch.chdir(tmp_path)
    code = run_command(cli, f"prune five.onnx -o small.onnx {line}".split())
    assert (code, message in capsys.readouterr().err) == (2, True)


# --- class maps of a detector --------------------------------------------------------------------

MAPS = [f"cls{level}" for level in LEVELS]
LABELS = [f"label{unit}" for unit in range(CLASSES)]


@pytest.mark.parametrize("head", [None, "cls1"])
def test_class_maps_are_cut_together(head: str | None) -> None:
    model = level_maps()
    cut = plan_cut(model, CutOptions(keep=[1, 4], head=head))
    pruned = model.apply(cut.plan)
    assert sorted(table.name for table in cut.remap.heads) == MAPS
    x = np.random.default_rng(7).normal(size=(1, 3, 16, 16)).astype(np.float32)
    before, after = (dict(m.runner(RunOptions())({"x": x})) for m in (model, pruned))
    for name, values in before.items():
        wanted = values[..., [1, 4]] if name in MAPS else values
        np.testing.assert_allclose(after[name], wanted, atol=1e-6)
    assert prove(model, pruned, pruned.remap).result == "proved"


def test_a_cut_names_one_of_the_maps() -> None:
    cut = plan_cut(level_maps(), CutOptions(cuts={"cls2": [1, 4]}))
    assert sorted(table.name for table in cut.remap.heads) == MAPS
    with pytest.raises(UsageError, match="'cls0' and 'cls1' are class maps of one detector"):
        plan_cut(level_maps(), CutOptions(cuts={"cls0": [1], "cls1": [1]}))


@pytest.mark.parametrize(
    ("options", "is_one"),
    [
        ({}, True),
        ({"sigmoid": False, "labels": LABELS}, True),
        ({"sigmoid": False}, True),  # 6 values are no distributions of a box
        ({"channels": 4}, True),
        ({"channels": 7}, False),  # no boxes
    ],
)
def test_which_maps_are_one_head(options: dict[str, Any], is_one: bool) -> None:
    found = trace(level_maps(**options).graph())
    assert (found.choices == ()) is is_one
    assert not is_one or found.head().name == "cls0"


def test_maps_that_may_be_boxes_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.builders.several_heads.CLASSES", 8)
    model = level_maps(sigmoid=False)
    with pytest.raises(UsageError, match="several heads"):
        plan_cut(model, CutOptions(keep=[1]))
    assert len(plan_cut(model, CutOptions(keep=[1], head="cls0")).parts) == len(LEVELS)


def test_inspect_names_the_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    level_maps().write(tmp_path / "maps.onnx")
    assert run_command(cli, ["inspect", str(tmp_path / "maps.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "levels of a detector, which are cut together: cls0, cls1, cls2\n" in shown
    assert "Choose one" not in shown


def test_a_cut_of_all_units_changes_nothing() -> None:
    cut = plan_cut(five_heads(), CutOptions(cuts={"age": range(5), "pose": range(3)}))
    assert cut.plan.every_edit == ()
    assert replace(cut.plan, then=None).parts == cut.plan.parts[:1]
