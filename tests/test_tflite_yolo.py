"""YOLO-shaped TFLite detectors, as TensorFlow's converter writes them, float and int8."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from exporter.cutting import Choice
from exporter.job import Job
from exporter.models.model import Model, RunOptions
from exporter.models.tflite import TfliteModel, from_bytes
from exporter.tasks import prune_model
from exporter.trace import trace

# The converter says so of every file whose ends are integers.
pytestmark = pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected")

KEPT = (4, 0, 3)
FIRST = {"v5": (2, 5), "v8": (1, 4), "YOLOX": (2, 5)}  # axis, and position of the first class


@pytest.fixture(scope="module")
def written() -> Callable[[str, bool], TfliteModel]:
    """Each file is converted once."""
    made: dict[tuple[str, bool], bytes] = {}

    def get(family: str, int8: bool) -> TfliteModel:
        from tests.yolo_tflite import converted  # noqa: PLC0415 - starts TensorFlow

        if (family, int8) not in made:
            made[family, int8] = converted(family, int8=int8)
        return from_bytes(made[family, int8], f"{family}.tflite")

    return get


@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("family", FIRST)
def test_classes_are_found_and_cut(
    family: str, *, int8: bool, written: Callable[[str, bool], TfliteModel]
) -> None:
    model = written(family, int8)
    axis, first = FIRST[family]
    (head,) = trace(model.graph()).heads
    objects = ", object 4:5" if first > 4 else ""
    assert ", ".join(map(str, head.parts)) == f"box 0:4{objects}, classes {first}:{first + 6}"
    done = prune_model(model, Choice(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.findings.passed
    columns = [*range(first), *(first + unit for unit in KEPT)]
    before, after = answer(model, int8=int8), answer(done.model, int8=int8)
    np.testing.assert_array_equal(after, np.take(before, columns, axis=axis))
    assert np.ptp(np.take(before, columns[first:], axis=axis).astype(np.float64)) > 0


def answer(model: Model, *, int8: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    x = np.random.default_rng(3).normal(size=(1, 4, 4, 5)).astype(np.float32)
    fed = np.clip(np.rint(20 * x), -128, 127).astype(np.int8) if int8 else x
    graph = model.graph()
    result = model.runner(RunOptions())({graph.inputs[0]: fed})[graph.outputs[0]]
    return result.astype(np.float64)
