"""Metadata that MediaPipe needs, added to files with known labels; read back independently."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.formats.tflite import TfliteModel, from_bytes, open_file
from exporter.formats.tflite.pack import pack
from exporter.formats.tflite.schema import unpack
from exporter.graph.normalization import PIXELS, Normalization
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.planning.pixels import image_inputs
from tests.builders.ssd_models import CLASSES, ROWS, ssd
from tests.builders.tflite_builder import Builder, classifier, read
from tests.builders.tflite_metadata import (
    AXIS_LABELS,
    VALUE_LABELS,
    Associated,
    Read,
    input_metadata,
    metadata,
    unzipped,
    zipped,
)

LABELS = ("ant", "bee", "cät", "dog", "elk")
SMALL = "ant\ncät\n".encode()
FEATURES, IMAGE, BOXES = 1, 2, 3  # types of ContentProperties in the schema
RGB, GRAYSCALE = 1, 2


def planned(model: TfliteModel, normalize: str | None = None, **options: Any) -> Cut:
    given = {"keep": [0, 2], "labels": LABELS} | options
    return plan_cut(model, CutOptions(**given), images=image_inputs(model, normalize))


def pruned(model: TfliteModel, normalize: str | None = None, **options: Any) -> TfliteModel:
    return model.apply(planned(model, normalize, **options).plan)


def opened(builder: Builder, *outputs: str) -> TfliteModel:
    return from_bytes(builder.content(*(outputs or ("y",))), "net.tflite")


def stated(content: bytes) -> bytes | None:
    """The metadata of a file; None if it has none."""
    model = read(content)
    found = [e.buffer for e in model.metadata if e.name == b"TFLITE_METADATA"]
    return model.buffers[found[0]].data.tobytes() if found else None


def ranked() -> TfliteModel:
    """A file that returns an index only."""
    builder = Builder()
    axis = builder.constant("axis", np.array([1], np.int32))
    builder.dense(builder.feed("x", 1, 4), 5, "z")
    builder.op("ARG_MAX", ["z", axis], (1,), "id", "ArgMaxOptions", dtype="int32", outputType=2)
    return opened(builder, "id")


# --- nothing is added -----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [None, [""] * 5], ids=["no labels", "empty labels"])
def test_a_file_without_labels_gets_no_metadata(labels: list[str] | None) -> None:
    small = pruned(opened(images()), "0..1", labels=labels)
    assert [entry.name for entry in read(small.content).metadata] == [b"exporter.remap"]
    assert not zipfile.is_zipfile(io.BytesIO(small.content))


def test_original_indices_get_no_labels() -> None:
    """A line per kept unit would name other indices than those that the file returns."""
    assert stated(pruned(ranked()).content) is None


def test_units_next_to_boxes_get_no_label_file() -> None:
    """A label file of an axis has one line for each of its positions."""
    builder = Builder()
    builder.dense(builder.feed("x", 1, 4), 9, "y")
    assert stated(pruned(opened(builder), units="4:9").content) is None


def test_metadata_of_a_newer_schema_is_kept() -> None:
    """It cannot be written again without a loss."""
    writer = flatbuffers.Builder(64)
    writer.StartObject(9)
    writer.PrependInt32Slot(8, 7, 0)
    writer.Finish(writer.EndObject(), b"M001")
    newer = bytes(writer.Output())
    builder = classifier()
    builder.metadata("TFLITE_METADATA", newer)
    assert stated(pruned(opened(builder)).content) == newer


# --- label files ----------------------------------------------------------------------------------


def test_a_label_file_is_added() -> None:
    small = pruned(opened(classifier()), keep=["elk", "cät"], keep_order=True)
    root = Read.of(small.content)
    assert root.text(7) == "1.0.0"  # min_parser_version
    assert [tensor.text(0) for tensor in root.tensors("inputs")] == ["x"]
    (output,) = root.tensors("outputs")
    assert (output.text(0), output.files()) == ("y", [("labels.txt", AXIS_LABELS)])
    assert output.one(3).number(0) == FEATURES
    assert unzipped(small.content) == {"labels.txt": "elk\ncät\n".encode()}
    with zipfile.ZipFile(io.BytesIO(small.content)) as archive:
        assert archive.testzip() is None
        (entry,) = archive.infolist()
    assert entry.compress_type == zipfile.ZIP_STORED
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    assert small.graph().labels == {"y": ("elk", "cät")}
    again = pruned(opened(classifier()), keep=["elk", "cät"], keep_order=True)
    assert again.content == small.content


def test_a_file_that_was_labeled_is_cut_again() -> None:
    once = pruned(opened(classifier()), keep=[0, 2, 4])
    again = pruned(once, keep=["elk", "ant"], labels=None)
    assert unzipped(again.content) == {"labels.txt": b"ant\nelk\n"}
    assert stated(again.content) == stated(once.content)


def test_labels_of_an_earlier_remap_are_added() -> None:
    """Files that older versions wrote have their labels in the remap only."""
    file = unpack(pruned(opened(classifier()), keep=[0, 2, 4]).content)
    file.model.metadata = [e for e in file.model.metadata if e.name != b"TFLITE_METADATA"]
    file.tail = b""
    bare = from_bytes(pack(file, "bare.tflite"), "bare.tflite")
    assert bare.graph().labels == {}
    assert unzipped(pruned(bare, keep=[0, 1], labels=None).content) == {"labels.txt": SMALL}


def test_new_indices_get_labels_of_values() -> None:
    small = pruned(ranked(), new_ids=True)
    (output,) = Read.of(small.content).tensors("outputs")
    assert output.files() == [("labels.txt", VALUE_LABELS)]
    assert unzipped(small.content) == {"labels.txt": SMALL}


def test_outputs_with_the_same_units_share_a_file() -> None:
    model = opened(classifier(), "y", "z")
    tensors = Read.of(pruned(model).content).tensors("outputs")
    assert [tensor.files() for tensor in tensors] == [[("labels.txt", AXIS_LABELS)]] * 2


def test_an_added_output_is_described_too() -> None:
    """MediaPipe refuses metadata for another number of outputs."""
    small = pruned(opened(classifier()), emit="ids")
    assert len(Read.of(small.content).tensors("outputs")) == 2


def test_all_labels_stay_if_units_keep_their_indices() -> None:
    small = pruned(opened(classifier()), mode="mask")
    assert unzipped(small.content)["labels.txt"].decode().split() == list(LABELS)


def test_labels_of_the_user_replace_those_of_the_main_language() -> None:
    names = [Associated("l.txt"), Associated("de.txt", locale="de")]
    files = {"l.txt": b"1\n2\n3\n4\n5\n", "de.txt": b"A\nB\nK\nH\nE\n"}
    builder = classifier()
    builder.metadata("TFLITE_METADATA", metadata(names))
    model = from_bytes(zipped(builder.content("y"), files), "labeled.tflite")
    small = pruned(model)
    assert unzipped(small.content) == {"l.txt": SMALL, "de.txt": b"A\nK\n"}
    assert stated(small.content) == metadata(names)


def test_a_lost_label_file_is_written() -> None:
    """The metadata names a file, and another tool dropped the archive."""
    builder = classifier()
    builder.metadata("TFLITE_METADATA", metadata([Associated("l.txt")]))
    small = pruned(opened(builder))
    assert unzipped(small.content) == {"l.txt": SMALL}


def test_metadata_and_archive_are_extended() -> None:
    builder = classifier()
    builder.metadata("TFLITE_METADATA", metadata((), author="somebody"))
    model = from_bytes(zipped(builder.content("y"), {"labels.txt": b"x"}), "net.tflite")
    small = pruned(model)
    root = Read.of(small.content)
    assert (root.text(0), root.text(4)) == ("net", "somebody")
    (output,) = root.tensors("outputs")
    assert (output.text(0), output.files()) == ("output 0", [("labels-2.txt", AXIS_LABELS)])
    assert unzipped(small.content) == {"labels.txt": b"x", "labels-2.txt": SMALL}
    with zipfile.ZipFile(io.BytesIO(small.content)) as archive:
        assert archive.comment == b"of a test"


# --- images ---------------------------------------------------------------------------------------


def images(channels: int = 3, *, scaled: bool = False, batch: int | None = 1) -> Builder:
    """image [1, 2, 2, channels] -> perhaps x / 255 -> mean -> dense "z" -> softmax "y"."""
    builder = Builder()
    x = builder.feed("image", batch, 2, 2, channels)
    if scaled:
        scale = builder.constant("scale", [np.float32(1 / 255)])
        x = builder.op("MUL", [x, scale], (1, 2, 2, channels), "scaled", "MulOptions")
    axes = builder.constant("axes", np.array([1, 2], np.int32))
    x = builder.op("MEAN", [x, axes], (1, channels), "mean", "ReducerOptions")
    builder.softmax(builder.dense(x, 5, "z"), "y")
    return builder


@pytest.mark.parametrize(
    ("builder", "normalize", "mean", "std"),
    [
        pytest.param(images(), "0..255", [0], [1], id="pixels"),
        pytest.param(images(), "-1..1", [127.5], [127.5], id="a range"),
        pytest.param(images(), "1,2,3,4,5,6", [1, 2, 3], [4, 5, 6], id="per channel"),
        pytest.param(images(), None, [0], [1], id="unknown: as they are"),
        pytest.param(images(scaled=True), None, [0], [1], id="scaled by the model"),
        pytest.param(images(scaled=True), "0..1", [0], [255], id="the option is first"),
    ],
)
def test_a_normalization_is_stated(
    builder: Builder, normalize: str | None, mean: list[float], std: list[float]
) -> None:
    (tensor,) = Read.of(pruned(opened(builder), normalize).content).tensors("inputs")
    assert tensor.text(0) == "image"
    assert tensor.normalization() == (mean, std)
    content = tensor.one(3)
    assert (content.number(0), content.one(1).number(0)) == (IMAGE, RGB)


@pytest.mark.parametrize(
    ("builder", "normalize", "known"),
    [
        pytest.param(images(), "0..1", Normalization((0.0,), (255.0,)), id="given"),
        pytest.param(images(scaled=True), None, PIXELS, id="a first layer"),
        pytest.param(images(), None, None, id="unknown"),
    ],
)
def test_an_unknown_normalization_is_not_read_as_known(
    builder: Builder, normalize: str | None, known: Normalization | None
) -> None:
    small = pruned(opened(builder), normalize)
    assert small.graph().normalization.get("image") == known
    warnings = planned(opened(builder), normalize).warnings
    assert any("give --normalize" in warning for warning in warnings) == (known is None)


def test_a_gray_image_without_a_known_normalization_is_no_image() -> None:
    """An input of one channel may be a sound."""
    model = opened(images(1))
    assert not planned(model).warnings
    (tensor,) = Read.of(pruned(model).content).tensors("inputs")
    assert tensor.normalization() is None
    (tensor,) = Read.of(pruned(model, "0..1").content).tensors("inputs")
    assert tensor.normalization() == ([0], [255])
    assert tensor.one(3).one(1).number(0) == GRAYSCALE


def test_a_stated_normalization_is_kept() -> None:
    builder = images()
    builder.metadata("TFLITE_METADATA", input_metadata([1.0], [2.0]))
    small = pruned(opened(builder), "0..255")
    (tensor,) = Read.of(small.content).tensors("inputs")
    assert tensor.normalization() == ([1], [2])


def test_a_known_normalization_completes_a_labeled_file() -> None:
    builder = images()
    builder.metadata("TFLITE_METADATA", metadata([Associated("l.txt")]))
    lines = "".join(f"{label}\n" for label in LABELS).encode()
    model = from_bytes(zipped(builder.content("y"), {"l.txt": lines}), "net.tflite")
    assert stated(pruned(model, labels=None).content) == metadata([Associated("l.txt")])
    (tensor,) = Read.of(pruned(model, "0..1", labels=None).content).tensors("inputs")
    assert tensor.normalization() == ([0], [255])


def test_a_normalization_of_other_channels_is_refused() -> None:
    with pytest.raises(UsageError, match="has 3 channels, input 'image' has 1"):
        planned(opened(images(1)), "imagenet")


def test_inputs_that_take_no_images_state_nothing() -> None:
    assert image_inputs(opened(classifier()), None) == {}
    assert image_inputs(opened(ssd(int8=True), *ROWS), "0..1") == {
        "x": Normalization((0.0,), (255.0,))
    }


# --- detectors ------------------------------------------------------------------------------------


def test_a_detector_is_described() -> None:
    labels = [f"class {i}" for i in range(CLASSES)]
    small = pruned(opened(ssd(), *ROWS), keep=[1, 3], labels=labels)
    boxes, classes, scores, number = Read.of(small.content).tensors("outputs")
    assert [each.text(0) for each in (boxes, classes, scores, number)] == [
        "location",
        "category",
        "score",
        "number of detections",
    ]
    assert boxes.one(3).number(0) == BOXES
    assert boxes.one(3).one(1).number(1) == 1  # BOUNDARIES
    assert classes.files() == [("labels.txt", VALUE_LABELS)]
    assert not boxes.files() + scores.files() + number.files()
    assert unzipped(small.content) == {"labels.txt": b"class 1\nclass 3\n"}


def test_original_class_indices_get_no_labels() -> None:
    small = pruned(opened(ssd(), *ROWS), keep=[1, 3], labels=list("abcde"), restore_ids=True)
    assert stated(small.content) is None


# --- real files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["float.tflite", "uint8_logits.tflite"])
def test_files_of_the_zoo(zoo: Path, suffix: str) -> None:
    (path,) = zoo.glob(f"mobilenet*{suffix}")
    labels = str(zoo / "labels" / "imagenet_1001.txt")
    small = pruned(open_file(path), "-1..1", keep=["macaw", "plate"], labels=labels)
    root = Read.of(small.content)
    (image,), (output,) = root.tensors("inputs"), root.tensors("outputs")
    is_float = "float" in suffix
    assert image.normalization() == (([127.5], [127.5]) if is_float else None)
    assert output.files() == [("labels.txt", AXIS_LABELS)]
    assert unzipped(small.content) == {"labels.txt": b"macaw\nplate\n"}
    assert len(small.content) < path.stat().st_size
