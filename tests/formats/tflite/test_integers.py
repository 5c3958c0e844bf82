"""Every precision of TFLite files: a slice keeps the logits, and a zeroed unit is exactly 0.

Expected values are those of the original in the same runtime. `tflite_precisions` builds the files,
and NumPy dequantizes their values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array, Use
from exporter.graph.edits import AddOutput, Fill, Plan
from exporter.modes import MODES
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace
from tests.builders import tflite_precisions as precisions
from tests.builders.tflite_builder import Builder, read

KEPT, GONE = [4, 0, 2], [1, 3]
DENSE = [name for name in precisions.PRECISIONS if name != "sparse"]
EACH = [
    pytest.param(kind, precision, id=f"{kind}-{precision}")
    for kind in precisions.FUNCTIONS
    for precision in DENSE
]


def built(kind: str, precision: str) -> TfliteModel:
    opened = precisions.built(kind, precision)
    assert opened is not None
    return opened


def cut(model: TfliteModel, kept: list[int], mode: str = "slice") -> TfliteModel:
    return model.apply(Plan(MODES[mode].edits(trace(model.graph()).head(), kept)))


def answers(model: TfliteModel, z: str, kind: str) -> Array:
    shown = model.apply(Plan((AddOutput(z, "_z"),))) if z not in model.graph().outputs else model
    x = precisions.IMAGE if kind.startswith("convolution") else precisions.DENSE
    return shown.runner(RunOptions())({"x": x})[z if shown is model else "_z"]


@pytest.mark.parametrize(("kind", "precision"), EACH)
def test_a_slice_keeps_the_values_of_the_original(kind: str, precision: str) -> None:
    opened = built(kind, precision)
    z = trace(opened.graph()).head().z
    before, after = (answers(each, z, kind) for each in (opened, cut(opened, KEPT)))
    np.testing.assert_array_equal(after, before[:, KEPT])


@pytest.mark.parametrize(("kind", "precision"), EACH)
def test_a_zeroed_unit_is_exactly_0(kind: str, precision: str) -> None:
    opened = built(kind, precision)
    z = trace(opened.graph()).head().z
    before, after = (answers(each, z, kind) for each in (opened, cut(opened, KEPT, "zero")))
    assert not opened.graph().tensors[z].dequantize(after)[:, GONE].any()
    np.testing.assert_array_equal(after[:, KEPT], before[:, KEPT])


@pytest.mark.parametrize("precision", DENSE)
def test_dequantized_values_are_close_to_the_float_network(precision: str) -> None:
    """Every file is close to its float network; otherwise the tests above would prove little."""
    opened = built("dense, logits", precision)
    (output,) = opened.graph().outputs
    z = opened.runner(RunOptions())({"x": precisions.DENSE})[output]
    wanted = precisions.DENSE @ precisions.WEIGHTS.T + precisions.BIAS
    np.testing.assert_allclose(z, wanted, atol=2.5 if "int4" in precision else 0.4)


NAMES = {
    "float32": "fp32",
    "float16 before Dequantize": "fp16",
    "int8 weights before Dequantize": "dynamic",
    "dynamic int8 (hybrid)": "dynamic",
    "dynamic int4 (hybrid)": "int4",
    "int8": "int8",
    "uint8": "uint8",
    "int16x8": "int16x8",
    "int4 weights, int8 values": "int4",
    "sparse": "fp32",
}


@pytest.mark.parametrize("precision", precisions.PRECISIONS)
def test_names_of_precisions(precision: str) -> None:
    assert built("dense, softmax", precision).precision == NAMES[precision]


# --- four bits ------------------------------------------------------------------------------------


def codes4(model: TfliteModel) -> tuple[Array, Array]:
    """The quantized values of the kernel and its scales, unpacked in NumPy."""
    file = read(model.content)
    (kernel,) = [t for t in file.subgraphs[0].tensors if t.name == b"w"]
    data = file.buffers[kernel.buffer].data
    count = int(np.prod(kernel.shape))
    assert len(data) == (count + 1) // 2
    halves = [half for byte in data.tolist() for half in (byte & 15, byte >> 4)]
    signed = [half - 16 if half > 7 else half for half in halves]
    assert not any(halves[count:])
    return np.array(signed[:count]).reshape(kernel.shape), kernel.quantization.scale


@pytest.mark.parametrize("kept", [[4, 0, 2], [1, 3], [2]], ids=["odd", "even", "one"])
def test_int4_rows_of_odd_length(kept: list[int]) -> None:
    opened = built("dense, logits", "dynamic int4 (hybrid)")
    (old, scales), (new, kept_scales) = codes4(opened), codes4(cut(opened, kept))
    np.testing.assert_array_equal(old, precisions.per_channel(4)[0])
    np.testing.assert_array_equal(new, old[kept])
    np.testing.assert_array_equal(kept_scales, scales[kept])


def test_int4_size_is_that_in_the_file() -> None:
    opened = built("dense, logits", "dynamic int4 (hybrid)")
    size = precisions.UNITS * precisions.FEATURES
    assert opened.graph().tensors["w"].size_bytes == (size + 1) // 2


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        pytest.param(1, r"int4 tensor of shape \[5, 33\] has 82 bytes", id="too few"),
        pytest.param(-1, r"int4 tensor of shape \[5, 33\] has 84 bytes", id="too many"),
    ],
)
def test_int4_of_the_wrong_size_is_damaged(missing: int, message: str) -> None:
    network = precisions.PRECISIONS["dynamic int4 (hybrid)"]("dense, logits")
    assert network is not None
    builder = network.builder
    buffer = builder.model.buffers[builder.at("w").buffer]
    buffer.data = np.resize(buffer.data, len(buffer.data) - missing)
    with pytest.raises(ModelError, match=message) as e:
        network.finished()
    assert e.value.exit_code == 3


def test_a_value_that_int4_cannot_hold_is_refused() -> None:
    opened = built("dense, logits", "dynamic int4 (hybrid)")
    edit = Fill("w", 0, np.array([1]), 1e3, (Use("z", 1),))
    with pytest.raises(ModelError, match="'w' cannot hold 1000 as int4"):
        opened.apply(Plan((edit,)))


# --- weights that cannot be cut -------------------------------------------------------------------


def _two_bits(builder: Builder, kernel: Any) -> None:
    kernel.type = schema.TensorType.INT2
    builder.model.buffers[kernel.buffer].data = np.zeros(40, np.uint8)
    builder.quantize("z/kernel", np.full(5, 0.1), np.zeros(5))


def _in_blocks(builder: Builder, kernel: Any) -> None:
    kernel.type = schema.TensorType.INT8
    builder.model.buffers[kernel.buffer].data = np.zeros(160, np.uint8)
    builder.constant("scales", np.ones((5, 2), np.float16))
    blocks = schema.BlockwiseQuantizationT()
    blocks.scales, blocks.zeroPoints, blocks.blockSize = builder.names["scales"], -1, 16
    kernel.quantization = schema.QuantizationParametersT()
    kernel.quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    kernel.quantization.details = blocks


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        pytest.param(_two_bits, "is int2, which cannot be cut", id="int2"),
        pytest.param(_in_blocks, "is quantized in blocks, which cannot be cut", id="in blocks"),
    ],
)
@pytest.mark.parametrize("mode", ["slice", "zero"])  # a mask does not change the kernel
def test_weights_that_cannot_be_cut_are_refused_by_name(
    stored: Any, message: str, mode: str
) -> None:
    builder = Builder()
    builder.dense(builder.feed("x", 1, 32), 5, "z")
    stored(builder, builder.at("z/kernel"))
    opened = from_bytes(builder.content("z"), "odd.tflite")
    with pytest.raises(ModelError, match=f"'z/kernel' {message}"):
        opened.apply(plan_cut(opened, CutOptions(keep=[1, 3], mode=mode)).plan)


# --- sparse ---------------------------------------------------------------------------------------


def test_sparse_weights_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="FULLY_CONNECTED 'z': its constants are stored sparsely"):
        plan_cut(built("dense, logits", "sparse"), CutOptions(keep=[0]))


def test_a_head_after_sparse_weights_is_cut() -> None:
    network = precisions.PRECISIONS["sparse"]("dense, logits")
    assert network is not None
    builder: Builder = network.builder
    builder.dense("z", 7, "head")
    opened = from_bytes(builder.content("head"), "sparse.tflite")
    narrow = opened.apply(plan_cut(opened, CutOptions(keep=[1, 5])).plan)
    x: dict[str, Any] = {"x": precisions.DENSE}
    before, after = (each.runner(RunOptions())(x)["head"] for each in (opened, narrow))
    np.testing.assert_array_equal(after, before[:, [1, 5]])
