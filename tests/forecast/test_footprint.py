"""Parameters and memory of small graphs, compared with numbers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.forecast.footprint import MemoryEstimate, count_parameters, estimate_memory
from exporter.formats.tflite import from_bytes
from exporter.graph import Graph, Node, Tensor
from exporter.graph.operations import Elementwise, Linear, Opaque, Operation, PerChannel, Reshape
from tests.builders.onnx_models import model, node, numbers
from tests.builders.tflite_builder import Builder


def tensor(name: str, *shape: int | None, dtype: str = "float32", constant: bool = False) -> Tensor:
    return Tensor(name, shape, dtype, (lambda: np.zeros(0)) if constant else None)


def graph(*nodes: tuple[Operation, str, str], tensors: list[Tensor], outputs: str = "y") -> Graph:
    """Each node: its operation, its inputs and its outputs, with spaces between names."""
    made = (
        Node(f"node {i}", "Op", operation, tuple(read.split()), tuple(written.split()))
        for i, (operation, read, written) in enumerate(nodes)
    )
    return Graph(tuple(made), {t.name: t for t in tensors}, ("x",), tuple(outputs.split()))


DENSE = Linear(kernel=1, kernel_axis=1, output_axis=-1)
RELU = Elementwise(function="relu")
QUANTIZE, DEQUANTIZE = Elementwise(function="quantize"), Elementwise(function="dequantize")

# --- parameters ---------------------------------------------------------------------------------


def test_weights_are_counted_and_shapes_are_not() -> None:
    made = model(
        [
            node("Gemm", ["x", "kernel", "bias"], ["h"], "head"),
            node("Reshape", ["h", "shape"], ["y"], "reshape"),
        ],
        {"kernel": numbers(6, 5), "bias": numbers(5), "shape": np.array([-1, 5, 1])},
    )
    assert count_parameters(made.graph()) == 6 * 5 + 5


def test_a_kernel_of_two_layers_is_counted_once() -> None:
    made = model(
        [node("MatMul", ["x", "k"], ["h"], "first"), node("MatMul", ["h", "k"], ["y"], "second")],
        {"k": numbers(6, 6)},
    )
    assert count_parameters(made.graph()) == 36


def test_a_quantized_network_has_as_many_as_the_float_one() -> None:
    """Scales and zero points are no weights."""
    made = model(
        [
            node("DequantizeLinear", ["q", "scale", "zero"], ["kernel"], "dequantize", axis=1),
            node("MatMul", ["x", "kernel"], ["y"], "matmul"),
        ],
        {
            "q": np.zeros((6, 5), np.int8),
            "scale": np.ones(5, np.float32),
            "zero": np.zeros(5, np.int8),
        },
    )
    assert count_parameters(made.graph()) == 6 * 5


def test_tflite_counts_quantized_values() -> None:
    builder = Builder()
    x = builder.quantize(builder.feed("x", 1, 6, dtype="int8"), 0.1, 0)
    kernel = builder.quantize(builder.constant("kernel", np.ones((5, 6), np.int8)), 0.1, 0)
    bias = builder.quantize(builder.constant("bias", np.ones(5, np.int32)), 0.01, 0)
    y = builder.op(
        "FULLY_CONNECTED", [x, kernel, bias], (1, 5), "y", "FullyConnectedOptions", dtype="int8"
    )
    builder.quantize(y, 0.1, 0)
    assert count_parameters(from_bytes(builder.content("y"), "net").graph()) == 6 * 5 + 5


def test_a_packed_kernel_has_several_values_in_an_entry() -> None:
    packed = Linear(1, 0, -1, along=(PerChannel(2),), packed_bits=4)
    made = graph(
        (packed, "x k scale", "y"),
        tensors=[
            tensor("x", None, 32),
            tensor("k", 5, 1, 16, dtype="uint8", constant=True),
            tensor("scale", 5, constant=True),
            tensor("y", None, 5),
        ],
    )
    assert count_parameters(made) == 5 * 32


# --- memory -------------------------------------------------------------------------------------


def test_two_tensors_exist_at_a_time_in_a_chain() -> None:
    """x[6] -> 9 -> relu -> 5, batch 1: the relu reads 9 values and writes 9 values."""
    made = graph(
        (DENSE, "x k", "h"),
        (RELU, "h", "r"),
        (DENSE, "r m", "y"),
        tensors=[
            tensor("x", None, 6),
            *(tensor(name, None, 9) for name in ("h", "r")),
            tensor("y", None, 5),
            tensor("k", 6, 9, constant=True),
            tensor("m", 9, 5, constant=True),
            tensor("unread", 99, constant=True),
        ],
    )
    assert estimate_memory(made) == MemoryEstimate((6 * 9 + 9 * 5) * 4, (9 + 9) * 4)
    assert estimate_memory(made).bytes == (6 * 9 + 9 * 5 + 18) * 4


def test_a_skip_connection_keeps_its_tensor_alive() -> None:
    """While the second relu runs, x is alive as well: 10 + 10 + 10 values."""
    made = graph(
        (RELU, "x", "a"),
        (RELU, "a", "b"),
        (Elementwise(), "b x", "y"),
        tensors=[tensor(name, 1, 10) for name in ("x", "a", "b", "y")],
    )
    assert estimate_memory(made).activation_bytes == 30 * 4


def test_an_output_is_kept_to_the_end() -> None:
    made = graph(
        (RELU, "x", "first"),
        (RELU, "x", "a"),
        (RELU, "a", "y"),
        tensors=[tensor("x", 1, 1), tensor("first", 1, 50), tensor("a", 1, 4), tensor("y", 1, 4)],
        outputs="first y",
    )
    assert estimate_memory(made).activation_bytes == (50 + 4 + 4) * 4


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        pytest.param(RELU, (10 + 10) * 4, id="an operation writes a new tensor"),
        pytest.param(Reshape(), 10 * 4 + 1 * 4, id="a reshape does not"),
    ],
)
def test_a_reshape_takes_no_memory(between: Operation, expected: int) -> None:
    made = graph(
        (between, "x", "a"),
        (DENSE, "a k", "y"),
        tensors=[
            tensor("x", 1, 10),
            tensor("a", 10),
            tensor("y", 1, 1),
            tensor("k", 10, 1, constant=True),
        ],
    )
    assert estimate_memory(made).activation_bytes == expected


def test_quantized_activations_are_counted_as_stored() -> None:
    """x -> uint8 -> float -> relu -> uint8 -> float: a runtime computes on the quantized values."""
    floats = [tensor(name, 1, 100) for name in ("x", "d", "r", "y")]
    integers = [tensor(name, 1, 100, dtype="uint8") for name in ("q", "s")]
    made = graph(
        (QUANTIZE, "x", "q"),
        (DEQUANTIZE, "q", "d"),
        (RELU, "d", "r"),
        (QUANTIZE, "r", "s"),
        (DEQUANTIZE, "s", "y"),
        tensors=[*floats, *integers],
    )
    assert estimate_memory(made).activation_bytes == 100 + 100


def test_a_dequantized_weight_is_counted_as_stored() -> None:
    made = graph(
        (DEQUANTIZE, "q", "k"),
        (DENSE, "x k", "y"),
        tensors=[
            tensor("q", 6, 5, dtype="int8", constant=True),
            tensor("k", 6, 5),
            tensor("x", None, 6),
            tensor("y", None, 5),
        ],
    )
    assert estimate_memory(made) == MemoryEstimate(30, (6 + 5) * 4)


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param(Tensor("a", None, "float32"), id="unknown rank"),
        pytest.param(tensor("a", 1, None), id="open dimension"),
        pytest.param(tensor("a", 1, 7, dtype="string"), id="dtype without a size"),
    ],
)
def test_an_unknown_size_makes_a_lower_bound(unknown: Tensor) -> None:
    made = graph(
        (RELU, "x", "a"),
        (Opaque(), "a ", "y"),
        tensors=[tensor("x", None, 7), unknown, tensor("y", 1, 2)],
    )
    assert estimate_memory(made) == MemoryEstimate(0, 7 * 4, is_complete=False)
