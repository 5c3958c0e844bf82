"""Real TFLite classifiers, cut to a few units and compared with the original."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from exporter.formats.model import RunOptions
from exporter.formats.tflite import TfliteModel, open_file
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.modes import MODES
from exporter.trace import trace
from exporter.trace.head import Head


@dataclass(frozen=True)
class Classifier:
    """A file of the zoo, as its README describes it."""

    file: str
    units: int
    activation: str
    precision: str
    kept: tuple[int, ...]

    def __str__(self) -> str:
        return self.file


FLOATS = [
    Classifier("movie_review_float.tflite", 2, "softmax", "fp32", (1,)),
    Classifier("movie_review_float.tflite", 2, "softmax", "fp32", (1, 0)),
    Classifier("mobilenet_v1_025_224_float.tflite", 1001, "softmax", "fp32", (0, 89, 90, 1000)),
    Classifier("mobilenet_v1_025_224_float.tflite", 1001, "softmax", "fp32", (934, 89)),
]
INTEGERS = [
    Classifier("automl_flowers_uint8_metadata.tflite", 5, "softmax", "uint8", (4, 1)),
    Classifier("mobilenet_v1_025_224_uint8_metadata.tflite", 1001, "softmax", "uint8", (7, 934)),
    Classifier("mobilenet_v2_100_224_uint8_logits.tflite", 1001, "linear", "uint8", (0, 89, 1000)),
]


def feeds(model: TfliteModel, seed: int) -> dict[str, Array]:
    """Seeded values for every input: floats in [-1, 1], integers in the range of pixels or ids."""
    random = np.random.default_rng(seed)
    result: dict[str, Array] = {}
    for name in model.graph().inputs:
        tensor = model.graph().tensors[name]
        shape = [n or 1 for n in tensor.shape or ()]
        if tensor.dtype == "float32":
            result[name] = random.uniform(-1, 1, shape).astype(np.float32)
        else:
            result[name] = random.integers(0, 256, shape).astype(tensor.dtype)
    return result


def opened(zoo: Path, case: Classifier) -> tuple[TfliteModel, Head]:
    model = open_file(zoo / case.file)
    return model, trace(model.graph()).head()


def cut(model: TfliteModel, head: Head, mode: str, kept: tuple[int, ...]) -> TfliteModel:
    """The cut file, with z as a second output."""
    result = model.apply(Plan(MODES[mode].edits(head, kept)))
    return result.apply(Plan((AddOutput(head.z, "seen_z"),)))


def runs(model: TfliteModel, seed: int) -> dict[str, Array]:
    return model.runner(RunOptions())(feeds(model, seed))


@pytest.mark.parametrize("case", [*FLOATS, *INTEGERS], ids=str)
def test_the_head_is_found(zoo: Path, case: Classifier) -> None:
    model, head = opened(zoo, case)
    assert (head.units, head.activation, model.precision) == (
        case.units,
        case.activation,
        case.precision,
    )
    assert head.body[0].operator in {"CONV_2D", "FULLY_CONNECTED"}


@pytest.mark.parametrize("case", FLOATS, ids=lambda c: f"{c.file} {c.kept}")
def test_slice_is_the_original_renormalized(zoo: Path, case: Classifier) -> None:
    model, head = opened(zoo, case)
    before = (zoo / case.file).read_bytes()
    small = cut(model, head, "slice", case.kept)
    assert model.content == before
    source = model.apply(Plan((AddOutput(head.z, "seen_z"),)))
    for seed in range(3):
        answer, original = runs(small, seed), runs(source, seed)
        y, z = original[head.output].astype(np.float64), original["seen_z"]
        kept = np.take(y, case.kept, axis=head.axis)
        expected = kept / kept.sum(axis=head.axis, keepdims=True)
        np.testing.assert_allclose(answer[head.output], expected, atol=1e-6)
        limit = 1e-6 * max(1.0, float(np.abs(z).max()))
        np.testing.assert_allclose(answer["seen_z"], z[:, list(case.kept)], atol=limit)


@pytest.mark.parametrize("case", FLOATS[2:], ids=lambda c: f"{c.file} {c.kept}")
def test_zero_is_exact(zoo: Path, case: Classifier) -> None:
    model, head = opened(zoo, case)
    answer = runs(cut(model, head, "zero", case.kept), 0)
    removed = np.delete(np.arange(case.units), case.kept)
    assert not answer["seen_z"][:, removed].any()
    source = runs(model.apply(Plan((AddOutput(head.z, "seen_z"),))), 0)
    kept = list(case.kept)
    np.testing.assert_allclose(answer["seen_z"][:, kept], source["seen_z"][:, kept], atol=1e-6)


@pytest.mark.parametrize("case", INTEGERS, ids=str)
def test_integer_logits_are_bit_identical(zoo: Path, case: Classifier) -> None:
    model, head = opened(zoo, case)
    small = cut(model, head, "slice", case.kept)
    source = model.apply(Plan((AddOutput(head.z, "seen_z"),)))
    for seed in range(2):
        original = runs(source, seed)["seen_z"]
        np.testing.assert_array_equal(runs(small, seed)["seen_z"], original[:, list(case.kept)])


@pytest.mark.parametrize("case", INTEGERS, ids=str)
def test_integer_zero_is_the_zero_point(zoo: Path, case: Classifier) -> None:
    model, head = opened(zoo, case)
    answer = runs(cut(model, head, "zero", case.kept), 0)["seen_z"]
    removed = np.delete(np.arange(case.units), case.kept)
    quantization = model.graph().tensors[head.z].quantization
    assert quantization is not None
    assert np.unique(answer[:, removed]).tolist() == quantization.zero_point.tolist()
    original = runs(model.apply(Plan((AddOutput(head.z, "seen_z"),))), 0)["seen_z"]
    np.testing.assert_array_equal(answer[:, case.kept], original[:, case.kept])


def test_a_cut_file_is_smaller_by_the_removed_rows(zoo: Path) -> None:
    model, head = opened(zoo, FLOATS[2])
    small = model.apply(Plan(MODES["slice"].edits(head, FLOATS[2].kept)))
    removed_bytes = (1001 - 4) * (256 + 1) * 4
    assert abs(len(model.content) - len(small.content) - removed_bytes) < 4096


def test_everything_except_the_head_is_byte_identical(zoo: Path) -> None:
    model, head = opened(zoo, FLOATS[2])
    small = model.apply(Plan(MODES["slice"].edits(head, FLOATS[2].kept))).graph()
    cut_constants = {constant.name for constant in head.constants}
    for name, tensor in model.graph().tensors.items():
        after = small.tensors[name]
        assert tensor.is_constant == after.is_constant
        if tensor.read is not None and after.read is not None and name not in cut_constants:
            np.testing.assert_array_equal(tensor.read(), after.read())


# --- pictures -------------------------------------------------------------------------------------


def picture(path: Path, size: int = 224) -> Array:
    """A BMP file as [1, size, size, 3] in RGB, every pixel the nearest one of the file."""
    content = path.read_bytes()
    (start,) = struct.unpack_from("<I", content, 10)
    width, height = struct.unpack_from("<ii", content, 18)
    row = (3 * width + 3) // 4 * 4
    rows = np.frombuffer(content, np.uint8, row * abs(height), start).reshape(-1, row)
    pixels = rows[:, : 3 * width].reshape(-1, width, 3)[:: -1 if height > 0 else 1, :, ::-1]
    down, right = (np.arange(size) * n // size for n in (abs(height), width))
    return np.ascontiguousarray(pixels[down][:, right])[None]


def seen(model: TfliteModel, image: Array) -> dict[str, Array]:
    (name,) = model.graph().inputs
    return model.runner(RunOptions())({name: image})


def test_a_flower_is_still_recognized(zoo: Path) -> None:
    model, head = opened(zoo, INTEGERS[0])
    image = picture(zoo / "images" / "sunflower.bmp")
    labels = model.graph().labels[head.output]
    assert labels[int(seen(model, image)[head.output].argmax())] == "sunflowers"
    kept = (labels.index("tulips"), labels.index("sunflowers"))
    small = cut(model, head, "slice", kept)
    assert seen(small, image)[head.output].argmax() == 1


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("case", INTEGERS[:2], ids=str)
def test_probabilities_are_within_one_step_of_the_oracle(
    zoo: Path, case: Classifier, mode: str
) -> None:
    model, head = opened(zoo, case)
    small, source = (
        cut(model, head, mode, tuple(sorted(case.kept))),
        model.apply(Plan((AddOutput(head.z, "seen_z"),))),
    )
    quantization = model.graph().tensors[head.output].quantization
    assert quantization is not None
    for name in ("sunflower", "cat", "grace_hopper"):
        image = picture(zoo / "images" / f"{name}.bmp")
        z = model.graph().tensors[head.z].dequantize(seen(source, image)["seen_z"])
        expected = MODES[mode].oracle(head, sorted(case.kept), z).y
        answer = quantization.dequantize(seen(small, image)[head.output])
        assert np.abs(answer - expected).max() <= 1.01 * quantization.scale.item()


@pytest.mark.parametrize("seed", range(6))
def test_random_selections_are_bit_identical(zoo: Path, seed: int) -> None:
    """MobileNet V2's logits, in any order, for a photograph."""
    model, head = opened(zoo, INTEGERS[2])
    random = np.random.default_rng(seed)
    kept = random.permutation(1001)[: random.integers(1, 1001)]
    image = picture(zoo / "images" / "grace_hopper.bmp")
    original = seen(model, image)[head.output]
    small = model.apply(Plan(MODES["slice"].edits(head, kept.tolist())))
    np.testing.assert_array_equal(seen(small, image)[head.output], original[:, kept])


def test_a_photograph_is_recognized(zoo: Path) -> None:
    """Pictures are fed correctly; otherwise the tests above would prove little."""
    model, head = opened(zoo, INTEGERS[2])
    names = (zoo / "labels" / "imagenet_1001.txt").read_text("utf-8").splitlines()
    logits = seen(model, picture(zoo / "images" / "grace_hopper.bmp"))[head.output]
    assert names[int(logits.argmax())] == "military uniform"
