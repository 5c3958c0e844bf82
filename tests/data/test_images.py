"""Folders of images: decoded, resized, normalized and labeled as a model needs them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter.data.files import hash_files
from exporter.data.options import DataOptions, parse_normalize, parse_resize
from exporter.data.read import read_samples
from exporter.data.samples import join_batches
from exporter.errors import UsageError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.graph import Graph, Node, Quantization, Tensor
from exporter.graph.lengths import Lengths
from exporter.graph.normalization import Normalization, parse_normalization
from exporter.graph.operations import Elementwise

PIXELS = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3) * 10  # height 2, width 4


def graph(shape: tuple[int | None, ...] = (1, 2, 4, 3), dtype: str = "float32") -> Graph:
    tensor = Tensor("image", shape, dtype)
    return Graph((), {"image": tensor}, ("image",), ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two labels with one image each."""
    for label, name in (("cat", "a.png"), ("dog", "b.bmp")):
        (tmp_path / "set" / label).mkdir(parents=True)
        Image.fromarray(PIXELS).save(tmp_path / "set" / label / name)
    return tmp_path / "set"


RAW = DataOptions(normalize=Normalization())


@pytest.mark.parametrize(
    ("text", "pixel", "value"),
    [
        pytest.param("-1..1", 255, 1.0, id="-1..1, white"),
        pytest.param("-1..1", 0, -1.0, id="-1..1, black"),
        pytest.param("0..1", 51, 0.2, id="0..1"),
        pytest.param("0..255", 7, 7.0, id="pixels"),
        pytest.param("127.5,127.5", 255, 1.0, id="mean and deviation"),
        pytest.param("imagenet", 255, (255 - 123.675) / 58.395, id="imagenet, red"),
        pytest.param("10,20,30,1,2,4", 18, 8.0, id="per channel, red"),
    ],
)
def test_normalization(text: str, pixel: int, value: float) -> None:
    got = parse_normalization(text).apply(np.full((1, 1, 3), pixel))
    assert got.dtype == np.float32
    assert got[0, 0, 0] == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "1", "1..1", "a..b", "1..2..3", "0,0", "1,2,3", "nan,1", "1,inf"]
)
def test_other_normalizations_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_normalization(text)


def test_the_range_is_shown() -> None:
    assert str(parse_normalization("-1..1")) == "-1..1"
    assert str(Normalization()) == "0..255"


def test_images_become_inputs(folder: Path) -> None:
    samples = read_samples(folder, graph(), options=RAW)
    assert (samples.count, samples.labels, samples.source) == (2, ("cat", "dog"), "set")
    assert [samples.name_of(i) for i in range(2)] == ["cat/a.png", "dog/b.bmp"]
    assert samples.at([1]).name_of(0) == "dog/b.bmp"
    (first, second) = (feed["image"] for feed in samples.feeds())
    assert first.dtype == np.float32
    assert np.array_equal(first, PIXELS[np.newaxis])
    assert np.array_equal(second, first)


def test_channels_first(folder: Path) -> None:
    feed = next(read_samples(folder, graph((None, 3, 2, 4)), options=RAW).feeds())
    assert np.array_equal(feed["image"], np.moveaxis(PIXELS, -1, 0)[np.newaxis])


def test_one_channel(folder: Path) -> None:
    feed = next(read_samples(folder, graph((1, 2, 4, 1)), options=RAW).feeds())
    expected = np.asarray(Image.fromarray(PIXELS).convert("L"))
    assert np.array_equal(feed["image"][0, :, :, 0], expected)


@pytest.mark.parametrize(("dtype", "offset"), [("uint8", 0), ("int8", -128)])
def test_pixels_are_the_values_of_an_8_bit_input(folder: Path, dtype: str, offset: int) -> None:
    feed = next(read_samples(folder, graph(dtype=dtype)).feeds())
    assert feed["image"].dtype == dtype
    assert np.array_equal(feed["image"], PIXELS[np.newaxis].astype(int) + offset)


def test_a_normalization_for_a_quantized_input(folder: Path) -> None:
    known = Quantization(np.array([1 / 128]), np.array([128]), 0, 255)
    tensor = Tensor("image", (1, 2, 4, 3), "uint8", quantization=known)
    options = DataOptions(normalize=parse_normalization("-1..1"))
    feed = next(
        read_samples(folder, Graph((), {"image": tensor}, ("image",), ()), options=options).feeds()
    )
    real = PIXELS / 127.5 - 1
    assert np.array_equal(feed["image"][0], np.rint(real * 128 + 128))


def test_a_float_input_needs_a_normalization(folder: Path) -> None:
    with pytest.raises(UsageError, match="how input 'image' expects pixels is not known") as error:
        read_samples(folder, graph())
    assert "--normalize imagenet" in error.value.hint


def scaled(function: str, constant: float) -> Graph:
    """An image input whose first layer applies a function with a constant."""
    shape = (1, 2, 4, 3)
    tensors = {name: Tensor(name, shape, "float32") for name in ("image", "y")}
    values = np.array([constant], np.float32)
    tensors["scale"] = Tensor("scale", (1,), "float32", read=lambda: values)
    node = Node("y", "First", Elementwise(function=function), ("image", "scale"), ("y",))
    return Graph((node,), tensors, ("image",), ("y",))


@pytest.mark.parametrize(
    ("function", "constant", "known"),
    [
        pytest.param("mul", 1 / 255, True, id="scaled to 0..1"),
        pytest.param("div", 255.0, True, id="divided"),
        pytest.param("sub", 127.5, True, id="centered"),
        pytest.param("rescaling", 1.0, True, id="Keras Rescaling"),
        pytest.param("mul", 2.0, False, id="another factor"),
        pytest.param("add", 0.5, False, id="another offset"),
        pytest.param("max", 255.0, False, id="another function"),
    ],
)
def test_a_first_layer_that_normalizes_is_found(
    folder: Path, function: str, constant: float, *, known: bool
) -> None:
    first = scaled(function, constant)
    if known:
        assert read_samples(folder, first).count == 2
    else:
        with pytest.raises(UsageError, match="not known"):
            read_samples(folder, first)


@pytest.mark.parametrize(
    ("resize", "row"),
    [("stretch", [0, 90]), ("crop", [30, 60]), ("pad", [0, 0])],
)
def test_resize(folder: Path, resize: Any, row: list[int]) -> None:
    """A 4 x 2 image on a 4 x 4 input: stretched, cropped to its middle, or padded with black.

    The image is constant along its height, and 0, 30, 60, 90 along its width.
    """
    columns = np.broadcast_to(np.array([0, 30, 60, 90], np.uint8)[:, np.newaxis], (2, 4, 3))
    Image.fromarray(np.ascontiguousarray(columns)).save(folder / "cat" / "a.png")
    options = DataOptions(Normalization(), resize)
    got = next(read_samples(folder, graph((1, 4, 4, 3)), options=options).feeds())["image"][0]
    assert got.shape == (4, 4, 3)
    assert got[0, [0, -1], 0].tolist() == pytest.approx(row, abs=15)
    assert got[1, [0, -1], 0].tolist() == pytest.approx(
        [30, 60] if resize == "crop" else [0, 90], abs=15
    )


def test_the_orientation_of_the_camera_is_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    feed = next(read_samples(tmp_path, graph(), options=RAW).feeds())
    assert np.array_equal(feed["image"][0], PIXELS[::-1, ::-1])


def test_files_that_do_not_decode_are_named(folder: Path) -> None:
    (folder / "cat" / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    (folder / "cat" / "empty.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"broken.jpg cannot be decoded \(and 1 more\)"):
        read_samples(folder, graph(), options=RAW)
    samples = read_samples(folder, graph(), options=DataOptions(Normalization(), skip_bad=True))
    assert samples.count == 2
    assert samples.warnings == ("2 images of set cannot be decoded and were left out",)


def test_one_bad_image_is_one(folder: Path) -> None:
    (folder / "cat" / "broken.jpg").write_bytes(b"")
    options = DataOptions(Normalization(), skip_bad=True)
    (warning,) = read_samples(folder, graph(), options=options).warnings
    assert warning == "1 image of set cannot be decoded and was left out"


def test_one_image(folder: Path) -> None:
    samples = read_samples(folder / "cat" / "a.png", graph(), options=RAW)
    assert (samples.count, samples.labels, samples.warnings) == (1, None, ())
    assert samples.name_of(0) == "a.png"
    assert np.array_equal(next(samples.feeds())["image"][0], PIXELS)


def test_large_images_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own warning, an error in these tests, does not appear."""
    Image.fromarray(np.zeros((3000, 2000), np.uint8)).save(folder / "cat" / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_000_000)
    samples = read_samples(folder, graph(), options=RAW)
    assert samples.warnings == ("large.png has 6 million pixels: decoding takes 18 MB",)
    assert len(list(samples.feeds())) == 3
    Image.fromarray(np.zeros((3000, 2000), np.uint8)).save(folder / "dog" / "another.png")
    (warning,) = read_samples(folder, graph(), options=RAW).warnings
    assert warning.endswith("decoding takes 18 MB, and 1 more is large")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
    with pytest.raises(UsageError, match=r"large\.png cannot be decoded \(and 1 more\)"):
        read_samples(folder, graph(), options=RAW)


def test_images_are_hashed_when_they_are_read(folder: Path) -> None:
    samples = read_samples(folder, graph(), options=RAW)
    list(samples.feeds())
    content = (folder / "cat" / "a.png").read_bytes()
    (folder / "cat" / "a.png").unlink()  # it is not read again
    found = hash_files(samples)
    assert [each.path.name for each in found] == ["a.png", "b.bmp"]
    assert found[0].sha256 == hashlib.sha256(content).hexdigest()


def test_an_open_size_is_given(folder: Path) -> None:
    opened = graph((None, None, None, 3))
    options = DataOptions(Normalization(), lengths=Lengths({"image": (1, 2, 4, 3)}))
    assert np.array_equal(
        next(read_samples(folder, opened, options=options).feeds())["image"][0], PIXELS
    )


def test_a_folder_of_images_and_other_data(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no way to resize called 'zoom'"):
        parse_resize("zoom")
    assert (parse_resize(None), parse_resize("pad")) == (None, "pad")
    assert parse_normalize(None) is None
    assert parse_normalize("0..255") == Normalization()
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="contains no data"):
        read_samples(tmp_path / "none", graph())


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", format="PNG")
    feed = next(read_samples(tmp_path, graph(), options=RAW).feeds())
    assert np.array_equal(feed["image"][0], PIXELS)
    Image.fromarray(PIXELS).save(tmp_path / "b.png", format="TIFF")
    with pytest.raises(UsageError, match=r"b\.png cannot be decoded"):
        read_samples(tmp_path, graph(), options=RAW)


def test_an_image_that_ends_early_is_named_when_it_is_used(folder: Path) -> None:
    path = folder / "cat" / "a.png"
    path.write_bytes(path.read_bytes()[:-30])
    samples = read_samples(folder, graph(), options=RAW)
    with pytest.raises(UsageError, match=r"a\.png cannot be decoded"):
        list(samples.feeds())
    skipping = DataOptions(Normalization(), skip_bad=True)
    assert read_samples(folder, graph(), options=skipping).count == 1


def test_nothing_but_files_that_do_not_decode(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match="none of the 1 files"):
        read_samples(tmp_path, graph(), options=DataOptions(Normalization(), skip_bad=True))


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="contains no data"):
        read_samples(tmp_path, graph(), options=RAW)


def test_any_number_of_labels_from_a_table(folder: Path) -> None:
    table = folder / "labels.csv"
    table.write_text("file,labels\ncat/a.png,tabby; sofa\ndog/b.bmp,\n")
    assert read_samples(folder, graph(), options=RAW).labels == (("tabby", "sofa"), ())
    table.write_text("file,label,labels\ncat/a.png,tabby,sofa\ndog/b.bmp,a,b\n")
    with pytest.raises(UsageError, match="has no columns file and label"):
        read_samples(folder, graph(), options=RAW)


def test_labels_from_a_table(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\ncat/a.png,tabby\ndog/b.bmp,beagle\n")
    assert read_samples(folder, graph(), options=RAW).labels == ("tabby", "beagle")
    (folder / "labels.csv").write_text("file,label\ncat/a.png,tabby\n")
    with pytest.raises(UsageError, match=r"has no row for dog/b\.bmp"):
        read_samples(folder, graph(), options=RAW)
    (folder / "labels.csv").write_text("name,class\n")
    with pytest.raises(UsageError, match="has no columns file and label"):
        read_samples(folder, graph(), options=RAW)


BAD_LABELS = {
    "a missing cell": (b"file,label\ncat/a.png\n", "has no label for 'cat/a.png'"),
    "two labels": (b"file,label\ncat/a.png,x\ncat/a.png,y\n", "two labels for 'cat/a.png'"),
    "not UTF-8": (b"file,label\ncat/a.png,\xe9\n", "is not UTF-8"),
    "a huge cell": (b"file,label\n" + b"x" * 200_000 + b",y\n", "is not valid CSV"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_damaged_tables_of_labels_are_refused(folder: Path, name: str) -> None:
    content, message = BAD_LABELS[name]
    (folder / "labels.csv").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_samples(folder, graph(), options=RAW)


def test_a_table_of_labels_from_windows(folder: Path) -> None:
    """A byte order mark, Windows line ends, a row that is there twice, and one without an image."""
    rows = "file,label\r\ncat/a.png, tabby\r\ncat/a.png,tabby\r\ndog/b.bmp,beagle\r\nno.png,x\r\n"
    (folder / "labels.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    assert read_samples(folder, graph(), options=RAW).labels == ("tabby", "beagle")


def test_images_that_lie_in_the_folder_itself_have_no_labels(folder: Path) -> None:
    Image.fromarray(PIXELS).save(folder / "c.png")
    samples = read_samples(folder, graph(), options=RAW)
    assert samples.labels is None
    assert samples.warnings == (
        "c.png is in no sub-folder, so the sub-folders are not used as labels",
    )


def test_a_limit_takes_images_of_every_label(tmp_path: Path) -> None:
    for label in "abc":
        (tmp_path / label).mkdir()
        for i in range(4):
            Image.fromarray(PIXELS).save(tmp_path / label / f"{i}.png")
    for limit, labels in ((3, "abc"), (6, "aabbcc"), (12, "aaaabbbbcccc"), (99, "aaaabbbbcccc")):
        samples = read_samples(tmp_path, graph(), limit, RAW)
        assert (samples.count, samples.labels) == (len(labels), tuple(labels))


def test_folders_and_hidden_files_are_no_images(folder: Path) -> None:
    (folder / "cat" / "more.png").mkdir()
    (folder / "cat" / "back").symlink_to(folder, target_is_directory=True)  # a loop
    (folder / "cat" / "._a.png").write_bytes(b"hidden, by macOS")
    (folder / ".cache").mkdir()
    Image.fromarray(PIXELS).save(folder / ".cache" / "a.png")
    assert read_samples(folder, graph(), options=RAW).count == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_images_of_16_bits_are_scaled(tmp_path: Path, channels: int) -> None:
    wide = np.arange(8, dtype=np.uint16).reshape(2, 4) * 8192 + 100
    Image.fromarray(wide).save(tmp_path / "wide.png")
    feed = next(read_samples(tmp_path, graph((1, 2, 4, channels)), options=RAW).feeds())
    assert np.array_equal(feed["image"][0, :, :, 0], wide // 256)


def test_a_normalization_has_the_channels_of_the_input(folder: Path) -> None:
    imagenet = DataOptions(parse_normalization("imagenet"))
    with pytest.raises(UsageError, match="has 3 channels, input 'image' has 1"):
        read_samples(folder, graph((1, 2, 4, 1)), options=imagenet)


def test_an_integer_input_takes_no_fractions(folder: Path) -> None:
    for text in ("-1..1", "0..0.5"):
        options = DataOptions(parse_normalization(text))
        with pytest.raises(UsageError, match="uint8, which cannot represent"):
            read_samples(folder, graph(dtype="uint8"), options=options)
    assert read_samples(folder, graph(dtype="int32"), options=RAW).count == 2


def test_resizing_is_for_folders(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", PIXELS[np.newaxis].astype(np.float32))
    with pytest.raises(UsageError, match=r"--resize is for images, and .*x\.npy is an array file"):
        read_samples(tmp_path / "x.npy", graph(), options=DataOptions(resize="crop"))
    assert read_samples(tmp_path / "x.npy", graph(), options=DataOptions()).count == 1


@pytest.mark.parametrize(("text", "fits"), [("0..255", True), ("-1..1", False)])
def test_arrays_are_compared_with_a_normalization(tmp_path: Path, text: str, *, fits: bool) -> None:
    """It describes the values, for the metadata of a file, and does not change them."""
    values = np.linspace(0, 255, PIXELS.size, dtype=np.float32).reshape(1, *PIXELS.shape)
    np.save(tmp_path / "x.npy", values)
    options = DataOptions(parse_normalization(text))
    samples = read_samples(tmp_path / "x.npy", graph(), options=options)
    np.testing.assert_array_equal(next(iter(samples.feeds()))["image"], values)
    warning = "input 'image' takes values -1 to 1, the samples are 0 to 255"
    # 0 to 1 become the levels 0 and 1, and -1 to 0 become 0: the mean error is (1/12 + 1/3) / 2
    loss = f"{10 * np.log10((1 / 3) / (5 / 24)):.1f} dB of the input's values, instead of 48.1"
    warning = f"{warning}: 8 bits calibrated on them keep {loss}"
    assert samples.warnings == (() if fits else (warning,))


def test_a_limit_takes_the_first(folder: Path) -> None:
    samples = read_samples(folder, graph(), 1, RAW)
    assert (samples.count, samples.labels) == (1, ("cat",))
    images = read_samples(folder, graph(), options=RAW).values["image"]
    assert len(images[1:]) == 1


def test_batches_repeat_the_first_images(folder: Path) -> None:
    opened = graph((None, 2, 4, 3))
    joined = join_batches(read_samples(folder, opened, options=RAW), opened, 3)
    (feed,) = joined.feeds()
    assert feed["image"].shape == (3, 2, 4, 3)


REFUSED = {
    "several inputs": (("a", "b"), (1, 2, 4, 3), "the model has 2 inputs"),
    "a vector": (("image",), (1, 16), "does not take images"),
    "many channels": (("image",), (1, 8, 8, 5), "does not take images"),
    "a fixed batch": (("image",), (4, 8, 8, 3), "takes 4 images at a time"),
    "no numbers": (("image",), (1, 8, 8, 3), "dtype string does not take images"),
    "an open size": (("image",), (1, None, None, 3), "is open"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_without_an_image_input_are_refused(folder: Path, name: str) -> None:
    inputs, shape, message = REFUSED[name]
    dtype = "string" if name == "no numbers" else "float32"
    tensors = {each: Tensor(each, shape, dtype) for each in inputs}
    with pytest.raises(UsageError, match=message):
        read_samples(folder, Graph((), tensors, inputs, ()), options=RAW)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        pytest.param(
            "mobilenet_v1_025_224_float.tflite",
            DataOptions(parse_normalization("-1..1")),
            id="tflite",
        ),
        pytest.param(
            "mobilenet_v1_025_224_float.onnx", DataOptions(parse_normalization("-1..1")), id="onnx"
        ),
        pytest.param("mobilenet_v1_025_224_uint8_metadata.tflite", DataOptions(), id="uint8"),
        pytest.param("mobilenet_v2_100_224_qdq_logits.onnx", DataOptions(), id="qdq"),
    ],
)
def test_photographs_are_recognized(zoo: Path, model: str, options: DataOptions) -> None:
    opened = open_model(zoo / model)
    samples = read_samples(zoo / "images", opened.graph(), options=options)
    images: Any = samples.values[opened.graph().inputs[0]]
    place = [path.name for path in sorted((zoo / "images").iterdir())].index("parrot.jpg")
    (output,) = opened.runner(RunOptions())({opened.graph().inputs[0]: images[place]}).values()
    labels = (zoo / "labels" / "imagenet_1001.txt").read_text().splitlines()
    assert labels[int(np.argmax(output))] == "macaw"


# --- ranges -------------------------------------------------------------------------------------

CALIBRATED = Quantization(np.array([1 / 128]), np.array([128]), 0, 255)  # -1 to 0.99


def quantized() -> Graph:
    tensor = Tensor("image", (1, 2, 4, 3), "uint8", quantization=CALIBRATED)
    return Graph((), {"image": tensor}, ("image",), ())


@pytest.mark.parametrize(
    ("normalize", "warns"),
    [
        pytest.param(None, False, id="pixels as they are"),
        pytest.param("-1..1", False, id="the range of the calibration"),
        pytest.param("0..255", True, id="far outside"),
        pytest.param("0..0.1", True, id="a small part"),
        pytest.param("0..1", False, id="half of it"),
    ],
)
def test_a_range_that_the_input_was_not_made_for_is_warned_of(
    folder: Path, normalize: str | None, *, warns: bool
) -> None:
    options = DataOptions(None if normalize is None else parse_normalization(normalize))
    samples = read_samples(folder, quantized(), options=options)
    assert bool(samples.warnings) == warns


def test_the_warning_contains_both_ranges(folder: Path) -> None:
    samples = read_samples(folder, quantized(), options=RAW)
    (warning,) = samples.warnings
    # 255 ** 2 / 3 is their power; what is clipped has 254 ** 3 / 3 / 255
    loss = f"{10 * np.log10(255**3 / 254**3):.1f} dB of them, instead of {20 * np.log10(510):.1f}"
    ranges = "input 'image' takes values -1 to 0.992, the samples are 0 to 255"
    assert warning == f"{ranges}: its 8 bits keep {loss}"


def test_arrays_are_held_against_the_metadata_and_the_first_layer(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", PIXELS[np.newaxis].astype(np.float32))
    stated = replace(graph(), normalization={"image": parse_normalization("-1..1")})
    (warning,) = read_samples(tmp_path / "pixels.npy", stated).warnings
    assert warning.startswith("input 'image' takes values -1 to 1, the samples are 0 to 230: ")
    assert read_samples(tmp_path / "pixels.npy", graph()).warnings == ()
    assert read_samples(tmp_path / "pixels.npy", scaled("mul", 1 / 255)).warnings == ()
    np.save(tmp_path / "units.npy", PIXELS[np.newaxis].astype(np.float32) / 255)
    (warning,) = read_samples(tmp_path / "units.npy", scaled("mul", 1 / 255)).warnings
    assert warning.startswith("input 'image' takes values 0 to 255, the samples are 0 to 0.902: ")
