"""`verify` of two files without a remap: inputs, outputs and units are matched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporter
from exporter.errors import UsageError
from exporter.formats.tflite import from_bytes
from exporter.graph import Use
from exporter.graph.edits import Plan, Replace
from exporter.records import Report
from tests.builders import onnx_models as onnx
from tests.builders.commands import exporter as run_command
from tests.builders.tflite_builder import Builder

KERNEL, BIAS = onnx.numbers(6, 5), onnx.numbers(5)
OTHER = onnx.numbers(6, 4, seed=9)


def other_names(tmp_path: Path, kernel: Any = KERNEL, bias: Any = BIAS) -> Path:
    """A file with the input `in` and the output `out`."""
    builder = Builder()
    x = builder.feed("in", 1, 6)
    inputs = [x, builder.constant("k", kernel.T), builder.constant("b", bias)]
    builder.op("FULLY_CONNECTED", inputs, (1, len(bias)), "y", "FullyConnectedOptions")
    builder.softmax("y", "out")
    path = tmp_path / "other.tflite"
    from_bytes(builder.content("out"), "other.tflite").write(path)
    return path


def onnx_sum(path: Path) -> Path:
    """A file with the inputs `x` and `more`, and the output `y`."""
    proto = onnx.proto([onnx.node("Add", ["x", "more"], ["y"])], {"more": onnx.numbers(6)}, ir=3)
    del proto.graph.initializer[:]
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def original(tmp_path: Path) -> Path:
    onnx.classifier().write(tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def stages(report: Report) -> set[str]:
    return {check.stage for check in report.checks}


# --- must fail ----------------------------------------------------------------------------------


def test_another_network_fails(original: Path, tmp_path: Path) -> None:
    report = exporter.verify(original, other_names(tmp_path, KERNEL + np.float32(0.1), BIAS[::-1]))
    assert not report.ok
    assert report.remap is None


def test_rows_that_are_not_of_the_original_are_no_units(original: Path, tmp_path: Path) -> None:
    report = exporter.verify(original, other_names(tmp_path, OTHER, onnx.numbers(4)))
    assert not report.ok
    assert report.remap is None
    assert "all outputs are compared as they are" in report.warnings[-1]


def test_a_row_that_occurs_twice_is_no_cut(original: Path, tmp_path: Path) -> None:
    twice = [1, 1, 3]
    report = exporter.verify(original, other_names(tmp_path, KERNEL[:, twice], BIAS[twice]))
    assert (report.ok, report.remap) == (False, None)


def test_files_in_the_wrong_order_are_refused(original: Path, tmp_path: Path) -> None:
    cut, again = tmp_path / "cut.onnx", tmp_path / "again.onnx"
    exporter.prune(original, keep=[1, 2]).save(cut)
    exporter.prune(cut, keep=[0]).save(again)
    for first in ("cut.onnx", "again.onnx"):
        with pytest.raises(UsageError, match=f"{first} was cut from net.onnx") as caught:
            exporter.verify(tmp_path / first, original)
        assert "exporter verify ORIGINAL CUT" in str(caught.value)
    assert exporter.verify(cut, again).ok
    assert exporter.verify(original, again).ok


def test_a_bench_needs_the_same_inputs(original: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"takes x, and other.onnx takes x, more: both must"):
        exporter.bench(original, onnx_sum(tmp_path / "other.onnx"))


def test_an_input_without_a_counterpart_is_refused(original: Path, tmp_path: Path) -> None:
    builder = Builder()
    x = builder.feed("in", 1, 7)
    builder.dense(x, 5, "out")
    from_bytes(builder.content("out"), "wide.tflite").write(tmp_path / "wide.tflite")
    with pytest.raises(
        UsageError, match=r"input 'x' \[\?, 6\] of net.onnx has no counterpart"
    ) as e:
        exporter.verify(original, tmp_path / "wide.tflite")
    assert "--map-input x=NAME; its inputs: 'in' [1, 7]" in e.value.hint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--map-input z=in", "net.onnx has no input 'z'"),
        ("--map-input x=z", "other.tflite has no input 'z'"),
        ("--map-output y=z", "other.tflite has no output 'z'"),
        ("--map-input x", "'x' is not of the form A=B"),
    ],
)
def test_wrong_pairs_are_refused(original: Path, tmp_path: Path, line: str, message: str) -> None:
    other_names(tmp_path)
    done = run_command(f"verify net.onnx other.tflite {line}", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


# --- must pass ----------------------------------------------------------------------------------


def test_ends_are_matched_by_position_with_a_note(original: Path, tmp_path: Path) -> None:
    report = exporter.verify(original, other_names(tmp_path))
    assert report.ok
    assert stages(report) == {"export"}
    assert {check.output for check in report.checks} == {"y"}
    assert report.warnings[:2] == (
        "input 'x' of net.onnx is 'in' of other.tflite, by position",
        "output 'y' of net.onnx is 'out' of other.tflite, by position",
    )


def test_ends_are_matched_as_the_user_says(original: Path, tmp_path: Path) -> None:
    pairs: Any = {"map_input": {"x": "in"}, "map_output": {"y": "out"}}
    report = exporter.verify(original, other_names(tmp_path), **pairs)
    assert report.ok
    assert not [warning for warning in report.warnings if "by position" in warning]
    assert report.command.endswith("--map-input x=in --map-output y=out")


def two_outputs(path: Path, names: tuple[str, str]) -> Path:
    nodes = [
        onnx.node("Relu", ["x"], [names[0]], "relu"),
        onnx.node("Sigmoid", ["x"], [names[1]], "sigmoid"),
    ]
    onnx.model(nodes, {}, x=("batch", 6), outputs=dict.fromkeys(names)).write(path)
    return path


def test_a_wrong_position_fails_and_a_pair_corrects_it(tmp_path: Path) -> None:
    left = two_outputs(tmp_path / "left.onnx", ("a", "b"))
    right = two_outputs(tmp_path / "right.onnx", ("c", "d"))
    assert exporter.verify(left, right).ok
    crossed: Any = {"map_output": {"a": "d", "b": "c"}}
    assert not exporter.verify(left, right, **crossed).ok
    swapped = two_outputs(tmp_path / "swapped.onnx", ("b", "a"))
    assert not exporter.verify(left, swapped).ok, "names come before positions"


def test_channels_may_be_last(tmp_path: Path) -> None:
    weights = onnx.numbers(4, 3, 1, 1)
    nodes = [
        onnx.node("Conv", ["x", "w"], ["c"], "conv"),
        onnx.node("GlobalAveragePool", ["c"], ["p"], "pool"),
        onnx.node("Flatten", ["p"], ["y"], "flat"),
    ]
    onnx.model(nodes, {"w": weights}, x=(1, 3, 8, 8)).write(tmp_path / "first.onnx")
    last = [onnx.node("Transpose", ["x"], ["t"], "t", perm=[0, 3, 1, 2])]
    nodes[0] = onnx.node("Conv", ["t", "w"], ["c"], "conv")
    net = onnx.model([*last, *nodes], {"w": weights}, x=(1, 8, 8, 3))
    net.write(tmp_path / "same_name.onnx")
    for left, right in (("first", "same_name"), ("same_name", "first")):
        assert exporter.verify(tmp_path / f"{left}.onnx", tmp_path / f"{right}.onnx").ok


@pytest.mark.parametrize("kept", [(0, 1, 3), (4, 2)])
def test_the_remap_is_recovered_from_the_rows(
    original: Path, tmp_path: Path, kept: tuple[int, ...]
) -> None:
    order = list(kept)
    report = exporter.verify(original, other_names(tmp_path, KERNEL[:, order], BIAS[order]))
    assert report.ok
    assert report.remap is not None
    assert report.remap.heads[0].kept == kept
    found = f"{len(kept)} of 5 units of 'y' were recognized by their weights"
    assert report.warnings[-1].endswith(found)
    assert {check.output for check in report.checks} == {"y", "y (z)"}


@pytest.mark.parametrize(("change", "result"), [(0.0, "proved"), (1e-9, "sampled")])
def test_a_cut_without_its_remap_is_proved_if_it_is_a_cut_to_the_recognized_units(
    original: Path, tmp_path: Path, change: float, result: str
) -> None:
    import onnx as library  # noqa: PLC0415 - to remove the remap as another tool would

    exporter.prune(original, keep=[4, 2]).save(tmp_path / "cut.onnx")
    proto = library.load(tmp_path / "cut.onnx")
    del proto.metadata_props[:]
    for constant in proto.graph.initializer:
        value = library.numpy_helper.to_array(constant)
        if value.dtype.kind == "f":
            changed = (value * (1 + change)).astype(value.dtype) + np.float32(change)
            constant.CopyFrom(library.numpy_helper.from_array(changed, constant.name))
    library.save(proto, tmp_path / "bare.onnx")
    report = exporter.verify(original, tmp_path / "bare.onnx")
    assert report.ok
    assert report.artifacts[0].proof is not None
    assert report.artifacts[0].proof.result == result


def test_units_of_a_quantized_file_are_recognized(original: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=onnx.numbers(100, 6, seed=1))
    small = exporter.prune(original, keep=[0, 1, 3])
    small.save(tmp_path / "small.onnx")
    exporter.quantize(
        *(tmp_path / name for name in ("small.onnx", "q.onnx")),
        precision="int8",
        data=tmp_path / "x.npz",
        bench=False,
    )
    import onnx as library  # noqa: PLC0415 - to remove the remap as another tool would

    proto = library.load(tmp_path / "q.onnx")
    del proto.metadata_props[:]
    library.save(proto, tmp_path / "bare.onnx")
    report = exporter.verify(
        original, tmp_path / "bare.onnx", quantized_to="int8", data=tmp_path / "x.npz"
    )
    assert report.ok
    assert report.remap is not None
    assert report.remap.heads[0].kept == (0, 1, 3)


def test_a_quantized_cut_matches_the_cut_that_it_was_made_from(
    original: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=onnx.numbers(100, 6, seed=1))
    for name, kept in (("small", [0, 1, 3]), ("other", [0, 1, 4])):
        exporter.prune(original, keep=kept).save(tmp_path / f"{name}.onnx")
    files = (tmp_path / "small.onnx", tmp_path / "q.onnx")
    exporter.quantize(*files, precision="dynamic", bench=False)
    report = exporter.verify(*files, data=tmp_path / "x.npz")
    assert report.ok
    assert ("original", True) in {(check.metric, check.passed) for check in report.checks}
    assert report.artifacts[0].proof is not None
    assert report.artifacts[0].proof.reason == "it was quantized"
    assert exporter.verify(original, files[1], data=tmp_path / "x.npz").ok
    refused = exporter.verify(tmp_path / "other.onnx", files[1], data=tmp_path / "x.npz")
    assert ("original", False) in {(check.metric, check.passed) for check in refused.checks}


def test_a_tolerance_lifts_equality(original: Path, tmp_path: Path) -> None:
    net = onnx.classifier()
    uses = tuple(Use(node.name, slot) for node, slot in net.graph().consumers["bias"])
    near = net.apply(Plan((Replace("bias", BIAS + np.float32(1e-5), uses),)))
    near.write(tmp_path / "near.onnx")
    assert not exporter.verify(original, tmp_path / "near.onnx").ok
    assert exporter.verify(original, tmp_path / "near.onnx", tolerance=1e-3).ok
