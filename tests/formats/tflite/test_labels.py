"""Label files and score calibrations in the archive: read for the graph, and cut with the units."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from exporter.errors import ModelError
from exporter.formats.tflite import TfliteModel, from_bytes, open_file
from exporter.formats.tflite.metadata import associated_files
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders.tflite_builder import Builder, classifier, read
from tests.builders.tflite_metadata import (
    SCORE_CALIBRATION,
    VALUE_LABELS,
    VOCABULARY,
    Associated,
    metadata,
    unzipped,
    zipped,
)

ENGLISH = b"ant\nbee\ncat\ndog\nelk\n"
GERMAN = b"Ameise\nBiene\nKatze\nHund\nElch\n"
SCORES = b"0.9,1.0,0.5\n\n0.8,2.0,0.25,0.1\n\n0.7,3.0,0.125\n"
ALL = (
    Associated("labels.txt"),
    Associated("labels-de.txt", locale="de"),
    Associated("scores.txt", SCORE_CALIBRATION),
)
FILES = {"labels.txt": ENGLISH, "labels-de.txt": GERMAN, "scores.txt": SCORES}


def labeled(
    files: Mapping[str, bytes] = FILES,
    *entries: Sequence[Associated],
    builder: Builder | None = None,
) -> TfliteModel:
    """A classifier of five units with an archive, and metadata for each output."""
    builder = builder or classifier()
    builder.metadata("TFLITE_METADATA", metadata(*(entries or [ALL])))
    return from_bytes(zipped(builder.content("y"), files), "labeled.tflite")


def cut(
    model: TfliteModel, *keep: int | str, mode: str = "slice", new_ids: bool = False
) -> TfliteModel:
    options = CutOptions(keep=keep, mode=mode, keep_order=mode == "slice", new_ids=new_ids)
    return model.apply(plan_cut(model, options).plan)


# --- files that do not change ---------------------------------------------------------------------

UNTOUCHED: dict[str, tuple[Mapping[str, bytes], Sequence[Associated]]] = {
    "too few lines": ({"labels.txt": b"ant\nbee\n"}, ALL),
    "one line more": ({"labels.txt": ENGLISH + b"fox\n"}, ALL),
    "two empty lines at the end": ({"labels.txt": ENGLISH + b"\n"}, ALL),
    "an empty file": ({"labels.txt": b""}, ALL),
    "no file of that name": ({"other.txt": ENGLISH}, ALL),
    "a vocabulary": ({"labels.txt": ENGLISH}, [Associated("labels.txt", VOCABULARY)]),
    "labels of another output": ({"labels.txt": ENGLISH}, []),
    "labels of ids without ids": (
        {"labels.txt": ENGLISH},
        [Associated("labels.txt", VALUE_LABELS)],
    ),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_files_that_are_not_about_the_units_do_not_change(name: str) -> None:
    files, entries = UNTOUCHED[name]
    model = labeled(files, entries)
    assert model.graph().labels == {}
    assert unzipped(cut(model, 3, 1).content) == files


def test_other_metadata_does_not_change() -> None:
    builder = classifier()
    builder.metadata("TFLITE_METADATA", metadata(ALL).replace(b"M001", b"X999"))
    model = from_bytes(zipped(builder.content("y"), FILES), "foreign.tflite")
    assert model.graph().labels == {}
    assert unzipped(cut(model, 3, 1).content) == FILES


def test_zero_changes_no_file() -> None:
    model = labeled()
    zeroed = cut(model, 3, 1, mode="zero")
    assert unzipped(zeroed.content) == FILES
    assert zeroed.graph().labels == model.graph().labels


def test_metadata_survives_byte_for_byte() -> None:
    builder = classifier()
    builder.metadata("mine", b"anything")
    model = labeled(builder=builder)
    small = read(cut(model, 3, 1).content)
    kept = {entry.name: small.buffers[entry.buffer].data.tobytes() for entry in small.metadata}
    assert kept[b"TFLITE_METADATA"] == metadata(ALL)
    assert kept[b"mine"] == b"anything"


# --- refused --------------------------------------------------------------------------------------


def _two_outputs() -> Builder:
    builder = Builder()
    x = builder.feed("x", 1, 4)
    builder.dense(x, 5, "y")
    builder.dense(x, 5, "other")
    return builder


def test_a_file_of_two_outputs_that_are_cut_differently_is_refused() -> None:
    builder = _two_outputs()
    builder.metadata("TFLITE_METADATA", metadata(ALL[:1], ALL[:1]))
    model = from_bytes(zipped(builder.content("y", "other"), FILES), "two.tflite")
    with pytest.raises(ModelError, match=r"'labels\.txt' .* belongs to several outputs"):
        model.apply(plan_cut(model, CutOptions(keep=[3], head="y")).plan)


def test_damaged_metadata_is_reported() -> None:
    source = metadata(ALL)
    refused = 0
    for position in range(0, len(source), 2):
        if 4 <= position < 8:
            continue
        broken = source[:position] + b"\xf1\xff" + source[position + 2 :]
        try:
            associated_files(broken, 1)
        except ModelError as error:
            assert error.message == "TFLITE_METADATA is damaged: an offset points outside"  # noqa: PT017 - of many
            refused += 1
    assert refused > 20
    for length in range(8, len(source)):
        try:
            associated_files(source[:length], 1)
        except ModelError:
            refused += 1
    assert refused > 100


def test_a_damaged_archive_is_reported() -> None:
    builder = classifier()
    builder.metadata("TFLITE_METADATA", metadata(ALL))
    content = zipped(builder.content("y"), FILES)
    with pytest.raises(ModelError, match="archive after the model is damaged: Bad CRC-32"):
        from_bytes(content.replace(b"elk", b"owl"), "damaged.tflite")


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused() -> None:
    builder = classifier()
    builder.metadata("TFLITE_METADATA", metadata(ALL))
    bomb = {**FILES, "further.bin": bytes(1 << 25)}
    packed = zipped(builder.content("y"), bomb, compression=zipfile.ZIP_DEFLATED)
    assert len(packed) < 1 << 17
    with pytest.raises(ModelError, match=r"the archive after the model unpacks from \d+ to 335\d+"):
        from_bytes(packed, "net.tflite")
    stored = zipped(builder.content("y"), bomb)
    assert from_bytes(stored, "net.tflite").graph().outputs == ("y",)


@pytest.mark.parametrize("lost", [1, 22, 60, 200, 340])
def test_a_truncated_archive_is_reported(lost: int) -> None:
    """Otherwise the rest of it would be lost silently."""
    content = labeled().content[: -len(b"of a test")]
    assert len(content) - lost > content.index(b"PK\x03\x04") + 4
    with pytest.raises(ModelError, match=r"half is truncated: its archive with 'labels\.txt'"):
        from_bytes(content[:-lost], "half")


def test_metadata_without_an_archive_is_accepted() -> None:
    builder = classifier()
    builder.metadata("TFLITE_METADATA", metadata(ALL))
    model = from_bytes(builder.content("y"), "stripped.tflite")
    assert model.graph().labels == {}
    assert cut(model, 3, 1).content.count(b"PK\x03\x04") == 0


# --- cut ------------------------------------------------------------------------------------------


def test_labels_are_in_the_graph_and_select_units() -> None:
    model = labeled()
    assert model.graph().labels == {"y": ("ant", "bee", "cat", "dog", "elk")}
    small = cut(model, "dog", "b*")
    assert small.graph().labels == {"y": ("dog", "bee")}
    assert small.remap is not None
    assert small.remap.heads[0].labels == ("dog", "bee")


def test_the_language_without_a_name_is_the_main_one() -> None:
    model = labeled(FILES, [ALL[1], ALL[0]])
    assert model.graph().labels["y"][0] == "ant"
    assert labeled(FILES, [ALL[1]]).graph().labels["y"][0] == "Ameise"


def test_every_file_is_cut_in_the_kept_order() -> None:
    small = cut(labeled(), 3, 0, 2)
    assert unzipped(small.content) == {
        "labels.txt": b"dog\nant\ncat\n",
        "labels-de.txt": b"Hund\nAmeise\nKatze\n",
        "scores.txt": b"\n0.9,1.0,0.5\n0.8,2.0,0.25,0.1\n",
    }


def test_a_group_has_its_name_and_no_calibration() -> None:
    model = labeled()
    merged = model.apply(plan_cut(model, CutOptions(keep=[2], merge={"fly": [3, 0]})).plan)
    assert unzipped(merged.content) == {
        "labels.txt": b"fly\ncat\n",
        "labels-de.txt": b"fly\nKatze\n",
        "scores.txt": b"\n0.8,2.0,0.25,0.1\n",
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"ant\nbee\ncat\ndog\nelk", b"dog\nbee"),
        (b"ant\r\nbee\r\ncat\r\ndog\r\nelk\r\n", b"dog\r\nbee\r\n"),
        (b"ant\n\ncat\ndog\nelk", b"dog\n\n"),  # otherwise the empty label would not count
        (b"\xff\n\xfe\ncat\n\xfd\nelk\n", b"\xfd\n\xfe\n"),
    ],
    ids=["no newline at the end", "CRLF", "an empty last label", "not UTF-8"],
)
def test_kept_lines_do_not_change(before: bytes, after: bytes) -> None:
    model = labeled({"labels.txt": before}, ALL)
    assert unzipped(cut(model, 3, 1).content) == {"labels.txt": after}
    assert not any("\r" in label for label in model.graph().labels["y"])


@pytest.mark.parametrize("first", ["slice", "zero"])
def test_a_file_that_was_cut_is_cut_again(first: str) -> None:
    small = cut(labeled(), 4, 2, 1, mode=first)
    again = cut(small, "bee", "elk")
    assert unzipped(again.content)["labels.txt"] == b"bee\nelk\n"
    assert again.remap is not None
    assert again.remap.heads[0].kept == (1, 4)


def test_each_output_has_its_own_files() -> None:
    builder = _two_outputs()
    builder.metadata("TFLITE_METADATA", metadata(ALL[:1], ALL[1:2]))
    model = from_bytes(zipped(builder.content("y", "other"), FILES), "two.tflite")
    small = model.apply(plan_cut(model, CutOptions(keep=[3], head="y")).plan)
    assert unzipped(small.content) == FILES | {"labels.txt": b"dog\n"}
    assert small.graph().labels == {"y": ("dog",), "other": model.graph().labels["other"]}


def test_metadata_counts_outputs_in_the_files_order() -> None:
    builder = _two_outputs()
    builder.signature({"x": "x"}, {"first": "other", "second": "y"})
    builder.metadata("TFLITE_METADATA", metadata(ALL[:1], ALL[1:2]))
    model = from_bytes(zipped(builder.content("y", "other"), FILES), "two.tflite")
    assert {name: found[0] for name, found in model.graph().labels.items()} == {
        "second": "ant",
        "first": "Ameise",
    }


def _ranked(*, shown: bool) -> TfliteModel:
    """An ARG_MAX of the units; its ids have labels."""
    builder = Builder()
    axis = builder.constant("axis", np.array([1], np.int32))
    builder.dense(builder.feed("x", 1, 4), 5, "y")
    builder.op("ARG_MAX", ["y", axis], (1,), "id", "ArgMaxOptions", dtype="int32", outputType=2)
    entry = [Associated("labels.txt", VALUE_LABELS)]
    outputs = ["y", "id"] if shown else ["id"]
    builder.metadata("TFLITE_METADATA", metadata(*([[], entry] if shown else [entry])))
    return from_bytes(zipped(builder.content(*outputs), FILES), "ranked.tflite")


@pytest.mark.parametrize("shown", [True, False], ids=["with the units", "alone"])
def test_the_labels_of_ids_are_cut(*, shown: bool) -> None:
    model = _ranked(shown=shown)
    assert model.graph().labels == {"id": ("ant", "bee", "cat", "dog", "elk")}
    assert unzipped(cut(model, 4, 2).content) == FILES  # the ids are still the original ones
    small = cut(model, 4, 2, new_ids=True)
    assert unzipped(small.content) == FILES | {"labels.txt": b"elk\ncat\n"}
    assert small.graph().labels == {"id": ("elk", "cat")}
    if not shown:
        assert unzipped(cut(model, "dog", new_ids=True).content)["labels.txt"] == b"dog\n"


# --- the archive ----------------------------------------------------------------------------------


def entries(content: bytes) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return archive.infolist()


def data_starts(content: bytes) -> list[int]:
    """The offset of the data of each archived file."""
    return [
        entry.header_offset + 30 + sum(struct.unpack_from("<HH", content, entry.header_offset + 26))
        for entry in entries(content)
    ]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("from_the_file", [True, False], ids=["from the file", "from the archive"])
def test_the_archive_is_stored_in_order_with_a_fixed_date(
    compression: int, *, from_the_file: bool
) -> None:
    builder = classifier()
    builder.metadata("TFLITE_METADATA", metadata(ALL))
    files = {"first.bin": bytes(range(256)), **FILES, "grüße.txt": b"hello"}
    content = zipped(
        builder.content("y"), files, compression=compression, counted_from_the_file=from_the_file
    )
    small = cut(from_bytes(content, "net.tflite"), 3, 1).content
    found = entries(small)
    assert [entry.filename for entry in found] == list(files)
    assert {(entry.compress_type, entry.date_time) for entry in found} == {
        (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
    }
    assert unzipped(small)["first.bin"] == files["first.bin"]
    assert unzipped(small)["grüße.txt"] == b"hello"
    assert [n % 16 for n in data_starts(small)] == [n % 16 for n in data_starts(content)]
    assert small.endswith(b"\x09\x00of a test")


def test_files_keep_their_alignment_if_none_of_them_changes() -> None:
    model = labeled({"a": b"12345", "b": b"1234"})
    small = cut(model, 3, 1).content
    assert [n % 16 for n in data_starts(small)] == [n % 16 for n in data_starts(model.content)]


def test_the_same_cut_gives_the_same_bytes() -> None:
    model = labeled()
    assert cut(model, 3, 1).content == cut(model, 3, 1).content


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
@pytest.mark.parametrize("from_the_file", [True, False], ids=["from the file", "from the archive"])
def test_unzip_reads_it(tmp_path: Path, *, from_the_file: bool) -> None:
    builder = classifier()
    builder.metadata("TFLITE_METADATA", metadata(ALL))
    content = zipped(builder.content("y"), FILES, counted_from_the_file=from_the_file)
    path = tmp_path / "small.tflite"
    path.write_bytes(cut(from_bytes(content, "net.tflite"), 3, 1).content)
    done = subprocess.run(
        ["unzip", "-p", str(path), "labels.txt"],  # noqa: S607 - whichever is installed
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"dog\nbee\n"
    assert done.returncode <= 1  # 1: bytes before the archive, which are the model


# --- real files -----------------------------------------------------------------------------------

MOBILENET = "mobilenet_v1_025_224_uint8_metadata.tflite"


def test_the_labels_of_a_real_file(zoo: Path) -> None:
    model = open_file(zoo / MOBILENET)
    labels = (zoo / "labels" / "imagenet_1001.txt").read_text("utf-8").splitlines()
    assert len(model.graph().labels[model.graph().outputs[0]]) == len(labels) == 1001
    small = cut(model, "cheeseburger", "macaw", "tench")
    assert unzipped(small.content) == {"labels.txt": b"cheeseburger\nmacaw\ntench\n"}
    assert len(model.content) - len(small.content) > 10484 + 998 * 256 - 2048


@pytest.mark.parametrize("seed", range(3))
def test_labels_stay_with_their_units(zoo: Path, seed: int) -> None:
    model = open_file(zoo / MOBILENET)
    old = unzipped(model.content)["labels.txt"].split(b"\n")
    kept = np.random.default_rng(seed).permutation(1001)[:50].tolist()
    new = unzipped(cut(model, *kept).content)["labels.txt"].split(b"\n")
    assert new == [*(old[i] for i in kept), b""]


def test_flower_labels_of_a_real_file(zoo: Path) -> None:
    model = open_file(zoo / "automl_flowers_uint8_metadata.tflite")
    small = cut(model, "tulips", "daisy")
    assert unzipped(small.content) == {"labels.txt": b"tulips\ndaisy\n"}
    assert list(small.graph().labels.values()) == [("tulips", "daisy")]
