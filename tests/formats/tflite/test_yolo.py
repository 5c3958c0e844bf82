"""YOLO-shaped TFLite detectors, as TensorFlow's converter writes them, float and quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from exporter.formats.model import Model, RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.trace import trace
from tests.builders import yolo_reference as reference
from tests.builders.commands import exporter
from tests.builders.yolo_reference import ANCHORS, CLASSES, SIDE, picture

pytestmark = [
    # The converter warns about every file with integer inputs and outputs.
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected"),
    pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors"),  # to calibrate
]

KEPT = (4, 0, 3)
# family -> axis, position of the first class, rows of the convolutions that make them, the formulas
FAMILIES: Mapping[str, tuple[int, int, int, Callable[..., dict[str, Array]]]] = {
    "v5": (2, 5, ANCHORS, reference.v5),
    "v7": (2, 5, ANCHORS, reference.v5),
    "v8": (1, 4, 1, reference.v8),
    "v11": (1, 4, 1, reference.v11),
    "YOLOX": (2, 5, 1, reference.yolox),
}
WAYS = ["float", "int8", "int8 by litert-quantizer"]
RAW = "v7 raw maps"

Written = Callable[[str, str], bytes]


@pytest.fixture(scope="module")
def written() -> Written:
    """Each file is converted once."""

    @cache
    def get(family: str, way: str) -> bytes:
        from tests.builders.yolo_tflite import converted, quantized  # noqa: PLC0415 - starts TensorFlow

        if way == WAYS[2]:
            return quantized(get(family, "float"))
        return converted(family, int8=way == "int8")

    return get


def opened(content: bytes) -> TfliteModel:
    return from_bytes(content, "detector.tflite")


def answer(model: Model, shown: Sequence[str] = ()) -> dict[str, Array]:
    """The outputs and these tensors; quantized values as they are."""
    more = Plan(tuple(AddOutput(name, name) for name in shown))
    graph = model.graph()
    fed = graph.tensors[graph.inputs[0]]
    x = picture().transpose(0, 2, 3, 1)
    if fed.dtype == "int8":
        assert fed.quantization is not None
        x = x / fed.quantization.scale + fed.quantization.zero_point
        x = np.clip(np.rint(x), -128, 127).astype(np.int8)
    return dict((model.apply(more) if shown else model).runner(RunOptions())({fed.name: x}))


def real(model: Model, output: str, values: Array) -> Array:
    how = model.graph().tensors[output].quantization
    return (values.astype(np.float64) - how.zero_point) * how.scale if how else values


def logits(model: Model, width: int) -> list[str]:
    """The results of the class convolutions."""
    graph = model.graph()
    made = [node.outputs[0] for node in graph.nodes if node.operator == "CONV_2D"]
    return [name for name in made if graph.shape(name)[-1] == width]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_classes_are_found_and_cut(family: str, way: str, written: Written) -> None:
    """Quantized values, logits too, are bit-identical; real values match the formulas."""
    model = opened(written(family, way))
    axis, first, anchors, formulas = FAMILIES[family]
    (head,) = trace(model.graph()).heads
    objects = ", object 4:5" if first > 4 else ""
    assert ", ".join(map(str, head.axis_parts)) == f"box 0:4{objects}, classes {first}:{first + 6}"
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed

    others = first if anchors > 1 else 0  # channels before the classes in one convolution
    row = [*range(others), *(others + unit for unit in KEPT)]
    channels = [anchor * (others + CLASSES) + place for anchor in range(anchors) for place in row]
    shown = logits(model, anchors * (others + CLASSES))
    assert len(shown) == 2
    before, after = answer(model, shown), answer(done.model, shown)
    for name in shown:
        np.testing.assert_array_equal(after[name], before[name][..., channels])
    columns = [*range(first), *(first + unit for unit in KEPT)]
    np.testing.assert_array_equal(after["y"], np.take(before["y"], columns, axis=axis))

    scores = slice(first, None)
    for each, values, classes in ((model, before, range(CLASSES)), (done.model, after, KEPT)):
        found = np.moveaxis(real(each, "y", values["y"]), axis, -1)
        expected = np.moveaxis(formulas(picture(), classes, SIDE)["y"], axis, -1)
        near, nearer = (1e-5, 1e-5) if way == "float" else (0.2, 0.06)
        np.testing.assert_allclose(found, expected, rtol=0, atol=near * expected.max())
        np.testing.assert_allclose(found[..., scores], expected[..., scores], rtol=0, atol=nearer)


@pytest.mark.parametrize("way", WAYS)
def test_raw_maps_are_cut_together(way: str, written: Written) -> None:
    """The graph does not separate classes and boxes; `units` does, for all maps."""
    model: Model = opened(written(RAW, way))
    found = trace(model.graph())
    assert not found.heads
    assert all("--units A:B" in str(refusal) for refusal in found.refusals)
    before = answer(model)
    options = CutOptions(keep=KEPT, keep_order=True, head="raw0", units=(5, 11))
    done = prune_model(model, options, Job(samples=2))
    assert done.results.passed
    model = done.model
    after, expected = answer(model), reference.v5(picture(), KEPT)
    for name in ("raw0", "raw1"):
        np.testing.assert_array_equal(after[name], before[name][..., [0, 1, 2, 3, 4, 9, 5, 8]])
        near = 1e-5 if way == "float" else 0.3
        np.testing.assert_allclose(
            real(model, name, after[name]), expected[name], rtol=0, atol=near
        )


@pytest.mark.parametrize(("family", "way"), [("v7", "float"), ("v8", "int8"), ("v11", WAYS[2])])
def test_on_the_command_line(family: str, way: str, written: Written, tmp_path: Path) -> None:
    axis, first, *_ = FAMILIES[family]
    (tmp_path / "large.tflite").write_bytes(written(family, way))
    done = exporter("prune large.tflite -o small.tflite --keep 4,0,3 --keep-order --json", tmp_path)
    assert done.code == 0, done.err
    checks = done.record["checks"]
    assert checks
    assert all(check["passed"] for check in checks)
    large, small = (opened((tmp_path / f"{n}.tflite").read_bytes()) for n in ("large", "small"))
    columns = [*range(first), *(first + unit for unit in KEPT)]
    expected = np.take(answer(large)["y"], columns, axis=axis)
    np.testing.assert_array_equal(answer(small)["y"], expected)
