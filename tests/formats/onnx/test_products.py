"""Multiply-adds of ONNX operators, compared with arithmetic by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from onnx import NodeProto, TensorProto, helper, save

from exporter.formats import open_model, size_bytes
from exporter.formats.onnx.files import from_proto
from exporter.graph import Array
from exporter.graph.multiply_adds import multiply_adds
from exporter.jobs.inspect import inspect_model
from tests.builders.onnx_models import model, node, numbers, proto

Shapes = Mapping[str, Sequence[int | str]]
ATTENTION: Shapes = {"q": ("b", 7, 12), "k": ("b", 9, 12), "v": ("b", 9, 8)}
MICROSOFT = {"domain": "com.microsoft"}


def count(
    nodes: Sequence[NodeProto], inputs: Shapes, constants: Mapping[str, Array], opset: int = 17
) -> int | None:
    made = proto(nodes, constants, outputs={"y": ("b",)}, opset=opset, domains={"com.microsoft": 1})
    made.graph.ClearField("input")
    made.graph.ClearField("output")
    made.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in inputs.items()
    )
    made.graph.output.add(name="y")
    return multiply_adds(from_proto(made, "network.onnx").graph())


def one(operator: str, inputs: str, **attributes: Any) -> list[NodeProto]:
    return [node(operator, inputs.split(","), ["y"], "it", **attributes)]


@pytest.mark.parametrize(
    ("nodes", "inputs", "constants", "expected"),
    [
        pytest.param(
            one("MatMul", "q,k"), {"q": (1, 8, 7, 4), "k": (1, 8, 4, 9)}, {}, 8 * 7 * 9 * 4
        ),
        pytest.param(one("MatMul", "q,k"), {"q": ("b", 7, 4), "k": ("b", 4, 9)}, {}, 7 * 9 * 4),
        pytest.param(one("MatMul", "q,k"), {"q": (3, 7, 4), "k": (3, 4, 9)}, {}, 7 * 9 * 4),
        pytest.param(one("Gemm", "q,k", transA=1), {"q": (4, 7), "k": (4, 9)}, {}, 7 * 9 * 4),
        pytest.param(
            one("Einsum", "q,k", equation="bqhd,bkhd->bhqk"),
            {"q": (1, 7, 2, 4), "k": (1, 9, 2, 4)},
            {},
            2 * 7 * 9 * 4,
        ),
        pytest.param(one("Einsum", "q,k", equation="ij,jk"), {"q": (7, 4), "k": (4, 9)}, {}, None),
        pytest.param(
            one("ConvTranspose", "x,w", strides=[2, 2]),
            {"x": ("b", 3, 8, 8)},
            {"w": numbers(3, 16, 2, 2)},
            8 * 8 * 3 * 16 * 2 * 2,
        ),
        pytest.param(
            one("ConvTranspose", "x,w", strides=[2], group=2),
            {"x": (1, 6, 10)},
            {"w": numbers(6, 4, 3)},
            10 * 6 * 4 * 3,  # each of 6 input channels goes to 4 output channels
        ),
        pytest.param(
            one("Conv", "x,w"), {"x": ("b", 3, 8, 8), "w": (5, 3, 3, 3)}, {}, 6 * 6 * 5 * 3 * 3 * 3
        ),
        pytest.param(one("MatMulNBits", "x,w", **MICROSOFT), {"x": (1, 8), "w": (8, 2)}, {}, 0),
        pytest.param(one("MatMul", "q,k"), {"q": ("b", "n", 4), "k": ("b", 4, 9)}, {}, None),
        pytest.param(
            one("FusedMatMul", "q,k", transA=1, transBatchA=1, **MICROSOFT),
            {"q": (1, 4, 7), "k": (1, 4, 9)},
            {},
            None,
        ),
        pytest.param(
            one("MultiHeadAttention", "q,k,v", num_heads=4, **MICROSOFT),
            ATTENTION,
            {},
            7 * 9 * 12 + 7 * 9 * 8,
        ),
        pytest.param(
            one("MultiHeadAttention", "q,k,v", num_heads=4, **MICROSOFT),
            {"q": (1, 7, 12), "k": (1, 4, 9, 3), "v": (1, 4, 9, 2)},
            {},
            7 * 9 * 12 + 7 * 9 * 8,
        ),
        pytest.param(
            one("MultiHeadAttention", "q,k,v,,,,p,p", num_heads=4, **MICROSOFT),
            {**ATTENTION, "p": ("b", 4, "past", 3)},
            {},
            None,
        ),
        pytest.param(
            one("Attention", "x,w,c", num_heads=2, **MICROSOFT),
            {"x": ("b", 7, 6)},
            {"w": numbers(6, 24), "c": numbers(24)},
            7 * 6 * 24 + 2 * 7 * 7 * 8,
        ),
        pytest.param(
            one("Attention", "x,w,c", num_heads=2, qkv_hidden_sizes=[8, 8, 4], **MICROSOFT),
            {"x": ("b", 7, 6)},
            {"w": numbers(6, 20), "c": numbers(20)},
            None,
        ),
        pytest.param(
            one("GroupQueryAttention", "q,k,v", **MICROSOFT), ATTENTION, {}, None, id="no row"
        ),
        pytest.param(one("FusedMatMul", "q,k", **MICROSOFT), {"q": (1, 2), "k": ()}, {}, None),
    ],
)
def test_products(
    nodes: list[NodeProto], inputs: Shapes, constants: Mapping[str, Array], expected: int | None
) -> None:
    assert count(nodes, inputs, constants) == expected


@pytest.mark.parametrize(
    ("inputs", "heads", "expected"),
    [
        ({"q": (1, 4, 7, 3), "k": (1, 4, 9, 3), "v": (1, 4, 9, 2)}, {}, 4 * 7 * 9 * (3 + 2)),
        (ATTENTION, {"q_num_heads": 4, "kv_num_heads": 4}, 7 * 9 * (12 + 8)),
    ],
)
def test_attention_of_opset_23(inputs: Shapes, heads: dict[str, int], expected: int) -> None:
    assert count(one("Attention", "q,k,v", **heads), inputs, {}, opset=23) == expected


def test_loop_is_unknown() -> None:
    """Nobody knows how often its body runs."""
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("MatMul", ["s", "s"], ["t"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("c", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, (6, 6)),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, (6, 6)),
        ],
    )
    loop = node("Loop", ["", "", "x"], ["y"], "loop", body=body)
    assert count([loop], {"x": (6, 6)}, {}) is None


def test_share_of_a_head_after_attention() -> None:
    """64 tokens of 32 features: two projections, scores, weighted values, then 10 units."""
    made = model(
        [
            node("MatMul", ["x", "wq"], ["q"], "q"),
            node("MatMul", ["x", "wk"], ["k"], "k"),
            node("Transpose", ["k"], ["kt"], "kt", perm=[0, 2, 1]),
            node("MatMul", ["q", "kt"], ["s"], "s"),
            node("Softmax", ["s"], ["p"], "p", axis=-1),
            node("MatMul", ["p", "x"], ["a"], "a"),
            node("MatMul", ["a", "w"], ["y"], "y"),
        ],
        {"wq": numbers(32, 32), "wk": numbers(32, 32), "w": numbers(32, 10)},
        x=(1, 64, 32),
        outputs={"y": (1, 64, 10)},
    )
    (facts,) = inspect_model(made).heads
    head = 64 * 32 * 10
    assert facts.multiply_adds == head
    others = 2 * 64 * 32 * 32 + 2 * 64 * 64 * 32
    assert facts.share_of_multiply_adds == pytest.approx(head / (head + others))


def test_share_of_bytes_is_unknown_if_the_file_stores_constants_in_one_place(
    tmp_path: Path,
) -> None:
    """A kernel and a bias that share their bytes are larger together than the files."""
    kernel = numbers(100, 100)
    made = proto(
        [node("MatMul", ["x", "a"], ["h"], "h"), node("Add", ["h", "b"], ["y"], "y")],
        {"a": kernel, "b": kernel},
        x=(100, 100),
        outputs={"y": (100, 100)},
    )
    path = tmp_path / "net.onnx"
    save(made, path, save_as_external_data=True, location="net.data", size_threshold=0)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = "0"
    path.write_bytes(made.SerializeToString())
    (tmp_path / "net.data").write_bytes(kernel.tobytes())
    (facts,) = inspect_model(open_model(path), size_bytes(path)).heads
    assert facts.bytes == 2 * kernel.nbytes
    assert facts.share_of_bytes is None
