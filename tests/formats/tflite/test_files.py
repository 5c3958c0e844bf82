"""TFLite files: refused ones, names, data that a cut must keep, and the runner."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as library

from exporter.errors import ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes, open_file, schema
from exporter.formats.tflite.pack import pack
from exporter.graph import Array, Use
from exporter.graph.edits import Plan, Take
from exporter.modes import MODES
from exporter.planning.cut import CutOptions, plan_cut
from exporter.remap import HeadRemap, Origin, Remap
from exporter.trace import trace
from tests.builders.tflite_builder import Builder, classifier, read
from tests.builders.tflite_metadata import Associated, metadata, zipped
from tests.builders.tflite_objects import objects

X = np.random.default_rng(7).normal(size=(1, 4)).astype(np.float32)
GOOD = classifier().content("y")
CUT = Take("z/kernel", 0, np.array([3, 1]), (Use("z", 1),))


def opened(builder: Builder, *outputs: str) -> TfliteModel:
    return from_bytes(builder.content(*(outputs or ("y",))), "built.tflite")


def sliced(model: TfliteModel, *kept: int) -> TfliteModel:
    head = trace(model.graph()).head()
    return model.apply(Plan(MODES["slice"].edits(head, kept)))


# --- refused --------------------------------------------------------------------------------------


def damaged(**changes: Any) -> bytes:
    """The small classifier with one wrong number."""
    builder = classifier()
    operator, tensor = builder.subgraph.operators[0], builder.subgraph.tensors[1]
    builder.content("y")
    match changes:
        case {"input": index}:
            operator.inputs = np.array([0, index, 2], np.int32)
        case {"intermediate": index}:
            operator.intermediates = np.array([index, -1], np.int32)
        case {"tensor": (field, value)}:
            setattr(tensor, field, value)
        case {"axis": width}:
            builder.at("y").shape = np.array([1, width], np.int32)
        case {"metadata": index}:
            builder.metadata("mine", b"x")
            builder.model.metadata[0].buffer = index
        case {"signature": index}:
            builder.signature({"x": "x"}, {"y": "y"})
            builder.model.signatureDefs[0].outputs[0].tensorIndex = index
        case {"offset": offset}:
            buffer = builder.model.buffers[tensor.buffer]
            buffer.data, buffer.offset, buffer.size = None, offset, 80
        case {"code": index}:
            operator.opcodeIndex = index
    packed = flatbuffers.Builder(1024)
    packed.Finish(builder.model.Pack(packed), b"TFL3")
    return bytes(packed.Output())


BAD: dict[str, bytes] = {
    "empty": b"",
    "text": b"a text that is not a model\n" * 9,
    "another flatbuffer": GOOD[:4] + b"TFL2" + GOOD[8:],
    "a zip": b"PK\x03\x04" + bytes(60),
    "the first bytes": GOOD[:8],
    "all but one byte": GOOD[:-1],
    "offsets outside": b"\xff\xff\xff\x7f" + GOOD[4:],
    "a tensor that does not exist": damaged(input=99),
    "a negative tensor": damaged(input=-2),
    "an intermediate result that does not exist": damaged(intermediate=99),
    "a buffer that does not exist": damaged(tensor=("buffer", 99)),
    "too small for its shape": damaged(tensor=("shape", np.array([50, 4], np.int32))),
    "too large for its shape": damaged(tensor=("shape", np.array([2, 4], np.int32))),
    "a shape below zero": damaged(tensor=("shape", np.array([-5, -4], np.int32))),
    "a signature of an unknown tensor": damaged(signature=99),
    "metadata with an unknown buffer": damaged(metadata=99),
    "a very long axis": damaged(axis=2**31 - 1),
    "a buffer outside of the file": damaged(offset=10**9),
    "weights in another file": damaged(tensor=("externalBuffer", 1)),
    "an operator code that does not exist": damaged(code=99),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(BAD[name])
    with pytest.raises(ModelError, match=r"net\.tflite") as caught:
        open_file(path)
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message + caught.value.hint
    assert path.read_bytes() == BAD[name]
    assert capfd.readouterr() == ("", "")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none\.tflite: No such file"):
        open_file(tmp_path / "none.tflite")


HAVOC = """
import random, sys
from pathlib import Path
from exporter.planning.cut import CutOptions, plan_cut
from exporter.errors import ExporterError
from exporter.formats.tflite import from_bytes
from exporter.modes import MODES
from exporter.graph.edits import Plan
from exporter.trace import trace

content, chance = Path(sys.argv[1]).read_bytes(), random.Random(int(sys.argv[2]))
opened = refused = 0

def attempt(damaged):
    global opened, refused
    try:
        model = from_bytes(damaged, "x")
        for head in trace(model.graph()).heads:
            for mode in (MODES[name] for name in ("slice", "zero", "mask")):
                model.apply(Plan(mode.edits(head, [0])))
        for gate in sys.argv[3:]:
            model.apply(plan_cut(model, CutOptions(gate=gate)).plan)
        opened += 1
    except ExporterError as error:
        assert "\\n" not in error.message, error.message
        refused += 1

for length in range(0, len(content), 29):
    attempt(content[:length])
assert not opened, "a truncated file was opened"
for _ in range(400):
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4])):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    attempt(bytes(damaged))
print(opened, refused)
"""


def _signed() -> bytes:
    builder = classifier(batch=None)
    builder.signature({"features": "x"}, {"probabilities": "y"})
    return builder.content("y")


def _gated() -> bytes:
    model = from_bytes(_signed(), "net.tflite")
    return model.apply(plan_cut(model, CutOptions(gate="input")).plan).content


def _rich() -> bytes:
    """Operators with shapes, axes and sizes as inputs, and an archive with labels."""
    builder = Builder()
    x, kernel = builder.feed("x", 1, 4, 4, 3), builder.normal("k", 6, 1, 1, 3)
    stride: dict[str, Any] = {"strideW": 1, "strideH": 1}
    builder.op("CONV_2D", [x, kernel, ""], (1, 4, 4, 6), "c", "Conv2DOptions", **stride)
    widths = builder.constant("widths", np.array([[0, 0], [1, 1], [0, 0], [0, 0]], np.int32))
    builder.op("PAD", ["c", widths], (1, 6, 4, 6), "p", "PadOptions")
    builder.op("CONCATENATION", ["p", "p"], (1, 12, 4, 6), "d", "ConcatenationOptions", axis=1)
    axes = builder.constant("axes", np.array([1, 2], np.int32))
    builder.op("MEAN", ["d", axes], (1, 6), "m", "ReducerOptions")
    bounds = [builder.constant(f"n{n}", np.array([n, n], np.int32)) for n in (0, 6, 1)]
    builder.op("STRIDED_SLICE", ["m", *bounds], (1, 6), "s", "StridedSliceOptions")
    last = builder.constant("last", np.array([1], np.int32))
    builder.op("ARG_MAX", ["s", last], (1,), "i", "ArgMaxOptions", dtype="int32", outputType=2)
    builder.metadata("TFLITE_METADATA", metadata([Associated("labels.txt")]))
    return zipped(builder.content("s", "i"), {"labels.txt": b"a\nb\nc\nd\ne\nf\n"})


@pytest.mark.parametrize(
    ("build", "seed", "gates"),
    [
        (_signed, 0, []),
        (_signed, 1, ["input", "probability > 0.1", "top:2"]),
        (_rich, 2, []),
        (_rich, 3, []),
        (_rich, 4, []),
        (_gated, 5, []),
    ],
)
def test_damaged_bytes_never_crash_the_process(
    build: Callable[[], bytes], seed: int, gates: list[str], tmp_path: Path
) -> None:
    """In a separate process, since a crash would be a signal."""
    path = tmp_path / "net.tflite"
    path.write_bytes(build())
    command = [sys.executable, "-W", "error", "-c", HAVOC, str(path), str(seed), *gates]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    kept, refused = map(int, done.stdout.split())
    assert kept > 10
    assert refused > 100


def test_strings_that_are_not_utf_8_are_shown() -> None:
    builder = classifier()
    builder.at("z").name = b"\xff\xfe"
    assert "\ufffd\ufffd" in opened(builder).graph().tensors


# --- names ----------------------------------------------------------------------------------------


def test_names_without_a_signature() -> None:
    """Empty and repeated names are followed by the index."""
    builder = classifier()
    builder.at("z").name = None
    builder.at("z/bias").name = "z/kernel"
    builder.at("z/kernel").name = "z/kernel"
    graph = opened(builder).graph()
    assert list(graph.tensors) == ["x", "z/kernel", "z/kernel#2", "#3", "y"]
    assert [node.name for node in graph.nodes] == ["#3", "y"]
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))


def test_names_of_the_first_signature_win() -> None:
    builder = classifier()
    builder.signature({"features": "x"}, {"z": "y"}, "first")
    builder.signature({"other": "x"}, {"probabilities": "y"}, "second")
    graph = opened(builder).graph()
    assert (graph.inputs, graph.outputs) == (("features",), ("z",))
    assert [node.outputs for node in graph.nodes] == [("z#3",), ("z",)]
    cut = sliced(opened(builder), 1, 2)
    assert [s.signatureKey for s in read(cut.content).signatureDefs] == [b"first", b"second"]


def test_outputs_are_matched_by_name_if_the_order_differs() -> None:
    builder = Builder()
    builder.dense(builder.feed("x", 1, 4), 3, "three")
    builder.dense("x", 5, "five")
    builder.signature({"x": "x"}, {"a": "three", "b": "five"})
    model = from_bytes(builder.content("five", "three"), "two.tflite")
    assert model.graph().outputs == ("a", "b")
    answers = model.runner(RunOptions())({"x": X})
    assert {name: values.shape for name, values in answers.items()} == {"a": (1, 3), "b": (1, 5)}
    cut = model.apply(Plan(MODES["slice"].edits(trace(model.graph()).head("b"), [4, 2])))
    after = cut.runner(RunOptions())({"x": X})
    np.testing.assert_array_equal(after["a"], answers["a"])
    np.testing.assert_allclose(after["b"], answers["b"][:, [4, 2]], rtol=1e-6)


def test_outputs_that_the_signature_leaves_out_are_listed() -> None:
    builder = classifier()
    builder.signature({"features": "x"}, {"probabilities": "y"})
    assert opened(builder, "y", "z").graph().outputs == ("probabilities", "z")


def test_an_input_that_is_returned() -> None:
    model = opened(classifier(), "y", "x")
    assert model.graph().outputs == ("y", "x")
    np.testing.assert_array_equal(model.runner(RunOptions())({"x": X})["x"], X)


# --- data kept by a cut ---------------------------------------------------------------------------


def test_metadata_and_descriptions_survive() -> None:
    builder = classifier()
    builder.metadata("min_runtime_version", b"1.14.0\0\0")
    builder.metadata("mine", b"anything")
    cut = read(sliced(opened(builder), 1).content)
    kept = {m.name: cut.buffers[m.buffer].data.tobytes() for m in cut.metadata}
    assert kept == {b"min_runtime_version": b"1.14.0\0\0", b"mine": b"anything"}
    assert (cut.description, cut.version) == (b"built by a test", 3)
    assert cut.buffers[0].data is None


def test_buffers_start_at_multiples_of_16() -> None:
    """As the schema requires, for runtimes that map the file into memory."""
    content = sliced(opened(classifier(units=7, features=3)), 1, 2, 5).content
    start = np.frombuffer(content, np.uint8).ctypes.data
    buffers = [buffer.data for buffer in read(content).buffers if buffer.data is not None]
    assert buffers
    assert all((data.ctypes.data - start) % 16 == 0 for data in buffers)


def archived(content: bytes, *, counted_from_the_file: bool) -> bytes:
    """The file with label files appended, as metadata writers and `cat` do."""
    target = io.BytesIO(content if counted_from_the_file else b"")
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("labels.txt", "a\nb\nc\nd\ne\n")
        archive.writestr("more.txt", "more\n")
    return target.getvalue() if counted_from_the_file else content + target.getvalue()


@pytest.mark.parametrize("counted_from_the_file", [True, False])
@pytest.mark.parametrize("kept", [(1,), (0, 1, 2, 3, 4)])
def test_the_archive_after_the_flatbuffer_stays_readable(
    counted_from_the_file: bool, kept: tuple[int, ...], tmp_path: Path
) -> None:
    content = archived(GOOD, counted_from_the_file=counted_from_the_file)
    cut = sliced(from_bytes(content, "labeled.tflite"), *kept)
    path = tmp_path / "cut.tflite"
    cut.write(path)
    assert path.read_bytes() == cut.content
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt") == b"a\nb\nc\nd\ne\n"
    base = 0 if counted_from_the_file else cut.content.index(b"PK\x03\x04")
    end = cut.content.rindex(b"PK\x05\x06")
    directory = base + number_at(cut.content, end + 16)
    assert cut.content[directory:].startswith(b"PK\x01\x02")
    assert cut.content[base + number_at(cut.content, directory + 42) :].startswith(b"PK\x03\x04")


def number_at(content: bytes, place: int) -> int:
    return int.from_bytes(content[place : place + 4], "little")


def outside(builder: Builder) -> bytes:
    """The same file with all constants after the flatbuffer, as ai-edge-quantizer writes them."""
    buffers = [b for b in builder.model.buffers if b.data is not None and len(b.data)]
    arrays = [buffer.data for buffer in buffers]
    for buffer, data in zip(buffers, arrays, strict=True):
        buffer.data, buffer.offset, buffer.size = None, 2, len(data)
    place = -(-len(builder.content("y")) // 16) * 16
    start, content = place, b""
    for buffer, data in zip(buffers, arrays, strict=True):
        buffer.offset = place + len(content)
        content += data.tobytes() + bytes(-len(data) % 16)
    flat = builder.content("y")
    return flat + bytes(start - len(flat)) + content


def test_buffers_after_the_flatbuffer_are_moved_inside() -> None:
    content = outside(classifier())
    model, plain = from_bytes(content, "outside.tflite"), from_bytes(GOOD, "inside.tflite")
    kernel, expected = (m.graph().tensors["z/kernel"].read for m in (model, plain))
    assert kernel is not None
    assert expected is not None
    np.testing.assert_array_equal(kernel(), expected())
    assert objects(sliced(model, 3, 1).content) == objects(sliced(plain, 3, 1).content)
    with pytest.raises(ModelError, match=r"outside\.tflite"):
        from_bytes(content[:-20], "outside.tflite")


def test_custom_options_after_the_flatbuffer_are_moved_inside() -> None:
    """The options of a custom operator, after the flatbuffer."""
    options, place = b"options of a custom operator", 4096
    builder = classifier()
    builder.op("CUSTOM", ["y"], (1, 5), "c")
    builder.model.operatorCodes[-1].customCode = "Mine"
    operator = builder.subgraph.operators[-1]
    operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize = place, len(options)
    content = builder.content("y")
    model = from_bytes(content + bytes(place - len(content)) + options, "custom.tflite")
    assert model.graph().nodes[-1].operator == "Mine"
    written = read(model.apply(Plan(())).content).subgraphs[0].operators[-1]
    assert written.customOptions.tobytes() == options
    assert (written.largeCustomOptionsOffset, written.largeCustomOptionsSize) == (0, 0)


@pytest.mark.parametrize("where", ["input", "outside"])
def test_data_inside_the_flatbuffer_hides_an_offset(where: str) -> None:
    """LiteRT is the reference."""
    builder = classifier()
    buffer = builder.model.buffers[builder.at("z/bias").buffer]
    buffer.offset, buffer.size = {"input": (16, 20), "outside": (10**9, 20)}[where]
    content = builder.content("y")
    written = from_bytes(content, "both.tflite").apply(Plan(())).content
    inputs = {"x": np.ones((1, 4), np.float32)}
    expected, answer = (
        from_bytes(each, "net.tflite").runner(RunOptions())(inputs)["y"]
        for each in (content, written)
    )
    np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_a_scale_that_is_not_finite_is_opened_and_written(scale: float) -> None:
    """The runtime decides whether it runs the file."""
    builder = classifier()
    builder.quantize("z", scale, 3)
    model = from_bytes(builder.content("y"), "odd.tflite")
    written = read(model.apply(Plan((CUT,))).content).subgraphs[0].tensors[builder.names["z"]]
    np.testing.assert_array_equal(written.quantization.scale, np.array([scale], np.float32))


@pytest.mark.parametrize("where", ["operator", "quantization"])
def test_unknown_options_are_not_lost(where: str) -> None:
    """Packing would drop options of a newer schema, so such a file is not cut."""
    builder = classifier()
    if where == "operator":
        builder.subgraph.operators[0].builtinOptionsType = 250
    else:
        quantization = builder.at(builder.quantize("z", 0.5, 3)).quantization
        quantization.detailsType, quantization.details = 250, library.CustomQuantizationT()
    model = from_bytes(builder.content("y"), "new.tflite")
    with pytest.raises(ModelError, match=r"new\.tflite has options of a newer schema"):
        model.apply(Plan((CUT,)))


# --- the remap ------------------------------------------------------------------------------------


def remap(*kept: int) -> Remap:
    labels = tuple(f"label {unit}" for unit in kept)
    head = HeadRemap(
        name="y",
        output="y",
        axis=1,
        mode="slice",
        activation="softmax",
        old_units=5,
        new_units=len(kept),
        kept=kept,
        new_to_old=kept,
        labels=labels,
    )
    return Remap(Origin("built.tflite", None), None, (head,))


def test_the_file_contains_the_remap() -> None:
    model = opened(classifier())
    assert model.remap is None
    first = model.apply(Plan((CUT,), remap(3, 1)))
    assert first.remap == remap(3, 1)
    again = first.apply(Plan((), remap(2)))
    assert again.remap == remap(2)
    names = [entry.name for entry in read(again.content).metadata]
    assert sorted(names) == [b"TFLITE_METADATA", b"exporter.remap"]  # each of them once
    assert first.apply(Plan(())).remap == remap(3, 1)


def test_a_damaged_remap_is_reported() -> None:
    builder = classifier()
    builder.metadata("exporter.remap", b"{}")
    with pytest.raises(ModelError, match="remap"):
        opened(builder)


# --- properties of the model ----------------------------------------------------------------------


def test_kind_name_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "net.bin"
    path.write_bytes(GOOD)
    model = open_model(path)
    assert (model.kind, model.name, model.precision) == ("tflite", "net.bin", "fp32")
    assert model.sha256 == from_bytes(GOOD, "again").sha256
    assert len(model.sha256 or "") == 64


@pytest.mark.parametrize(
    ("weights", "activations", "precision"),
    [
        ("float32", "float32", "fp32"),
        ("int8", "int8", "int8"),
        ("uint8", "uint8", "uint8"),
        ("int8", "float32", "dynamic"),
    ],
)
def test_precision(weights: str, activations: str, precision: str) -> None:
    builder = Builder()
    builder.feed("x", 1, 40, dtype=activations)
    builder.constant("k", np.ones((50, 40), weights))
    for name in ("x", "k"):
        if builder.at(name).type != 0:
            builder.quantize(name, 0.1, 0)
    options: Mapping[str, Any] = {"options": "FullyConnectedOptions", "dtype": activations}
    builder.op("FULLY_CONNECTED", ["x", "k", ""], (1, 50), "z", version=4, **options)
    if builder.at("z").type != 0:
        builder.quantize("z", 0.1, 0)
    assert from_bytes(builder.content("z"), "p.tflite").precision == precision


# --- running --------------------------------------------------------------------------------------


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    result: Array = e / e.sum(axis=-1, keepdims=True)
    return result


def test_an_open_batch_takes_the_length_of_the_inputs() -> None:
    builder = classifier(batch=None)
    runner = opened(builder).runner(RunOptions(batch=3))
    for count in (3, 1, 4, 4):
        x = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
        expected = softmax(x @ builder.constants["z/kernel"].T + builder.constants["z/bias"])
        np.testing.assert_allclose(runner({"x": x})["y"], expected, atol=1e-6)


def test_results_are_copies() -> None:
    runner = opened(classifier()).runner(RunOptions())
    first = runner({"x": X})["y"]
    kept = first.copy()
    runner({"x": -X})
    np.testing.assert_array_equal(first, kept)


FEEDS: dict[str, tuple[dict[str, Array], str]] = {
    "missing": ({}, "needs values for its input 'x'"),
    "unknown": ({"x": X, "other": X}, "no input 'other'"),
    "dtype": ({"x": X.astype(np.float64)}, "is float32, not float64"),
    "shape": ({"x": X[:, :2]}, r"has shape \[1, 4\], not \[1, 2\]"),
    "fixed batch": ({"x": np.concatenate([X, X])}, r"has shape \[1, 4\], not \[2, 4\]"),
    "rank": ({"x": X[0]}, r"has shape \[1, 4\], not \[4\]"),
}


@pytest.mark.parametrize("name", FEEDS)
def test_wrong_inputs(name: str) -> None:
    feeds, message = FEEDS[name]
    with pytest.raises(UsageError, match=message):
        opened(classifier()).runner(RunOptions())(feeds)


def test_a_file_that_cannot_run_is_reported() -> None:
    builder = classifier()
    builder.at("z/bias").shape = np.array([5, 1], np.int32)
    builder.at("z").shape = np.array([1, 4], np.int32)
    builder.subgraph.operators[0].inputs = np.array([0, 1, 0], np.int32)  # x as the bias
    with pytest.raises(ModelError, match=r"LiteRT cannot run built\.tflite"):
        opened(builder).runner(RunOptions())({"x": X})


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    model = opened(classifier())
    runner = model.runner(RunOptions(threads=2))
    runner({"x": X})
    assert runner.engine.startswith("ai-edge-litert ")
    assert capfd.readouterr() == ("", "")


def test_a_process_without_stderr(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(GOOD)
    code = (
        "import os, sys; os.close(2)\n"
        "from exporter.formats import open_model\n"
        "from exporter.formats.model import RunOptions\n"
        "open_model(sys.argv[1]).runner(RunOptions())\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "False\n"


# --- sizes ----------------------------------------------------------------------------------------


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.tflite"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse: it takes no space on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(ModelError, match=r"large\.tflite is larger than 2 GB"):
        open_file(path)


@pytest.mark.parametrize("where", ["a constant", "the archive"])
def test_a_result_that_is_too_large_is_refused_before_it_is_written(where: str) -> None:
    file = schema.unpack(GOOD)
    nothing = np.broadcast_to(np.uint8(0), (2**31,))  # one byte in memory
    if where == "a constant":
        file.model.buffers[1].data = nothing
    else:
        file.tail = Endless()
    with pytest.raises(ModelError, match="would be larger than 2 GB"):
        pack(file, "large.tflite")


class Endless(bytes):
    """An archive that claims to be large."""

    __slots__ = ()

    def __len__(self) -> int:
        return 2**31


@pytest.mark.parametrize("part", ["operatorCodes", "subgraphs", "buffers"])
def test_a_file_without_a_main_vector_is_refused(part: str) -> None:
    """For some of them the runtime's verifier crashes the process."""
    model = read(GOOD)
    setattr(model, part, [])
    packed = flatbuffers.Builder(1024)
    packed.Finish(model.Pack(packed), b"TFL3")
    with pytest.raises(ModelError, match="bare is damaged: it has no"):
        from_bytes(bytes(packed.Output()), "bare")


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read from now on."""
    reads: list[str] = []
    read_file = TfliteModel.read

    def counted(model: TfliteModel) -> None:
        reads.append(model.name)
        read_file(model)

    monkeypatch.setattr(TfliteModel, "read", counted)
    return reads


@pytest.mark.parametrize("limit", ["_KEPT_BYTES", "_KEPT_OBJECTS"])
def test_a_large_file_is_not_kept_in_memory(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"exporter.formats.tflite.files.{limit}", 9)
    reads = counted_reads(monkeypatch)
    for _ in range(2):
        from_bytes(GOOD, "large.tflite")
    assert len(reads) == 2


def test_a_file_that_is_opened_again_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = from_bytes(GOOD, "again.tflite")
    reads = counted_reads(monkeypatch)
    again = from_bytes(bytes(bytearray(GOOD)), "again.tflite")
    assert not reads
    assert again is not first
    again.remap = remap(1)
    assert from_bytes(GOOD, "again.tflite").remap is None
    assert first.remap is None
    from_bytes(GOOD + b"\0", "again.tflite")
    from_bytes(GOOD, "other.tflite")
    assert len(reads) == 2
