"""Replace operators of other domains by standard ones for shape inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto, TensorProto, helper

from exporter.formats.onnx.classical.attributes import DOMAIN, ML_DOMAIN
from exporter.formats.onnx.classical.split import SOFTMAX_NORMALIZER
from exporter.formats.onnx.protos import element_type
from exporter.graph import Tensor


@dataclass(frozen=True)
class StandardOperator:
    """A standard operator with a result of the same shape.

    Attributes:
        operator: its name.
        inputs: slots of the original that become the inputs.
        like: slot of the constant whose element type the result has; None for the first input's.
        attributes: names of those that both have.
        default: element type of the result where that constant is absent.
    """

    operator: str
    inputs: Sequence[int]
    like: int | None = None
    attributes: tuple[str, ...] = ()
    default: int = TensorProto.FLOAT


def replace_with_standard_ops(node: NodeProto, constants: Mapping[str, Tensor]) -> list[NodeProto]:
    """Nodes with an output of the same name, shape and type; the node itself if it has no row."""
    keeps_shape = node.op_type in _KEEP_SHAPE and node.domain in {ML_DOMAIN, DOMAIN}
    if keeps_shape or node.domain == _QONNX:
        return [helper.make_node("Cast", node.input[:1], node.output[:1], to=TensorProto.FLOAT)]
    if node.domain != "com.microsoft":
        return [node]
    if node.op_type in _FUNCTIONS:
        return _FUNCTIONS[node.op_type](node, constants)
    entry = STANDARD_OPERATORS.get(node.op_type)
    if entry is None or any(a.name == "channels_last" and a.i for a in node.attribute):
        return [node]
    inputs = [node.input[slot] for slot in entry.inputs if slot < len(node.input)]
    same = NodeProto(name=node.name, op_type=entry.operator, input=inputs, output=node.output[:1])
    same.attribute.extend(a for a in node.attribute if a.name in entry.attributes)
    if entry.like is None:
        return [same]
    like = node.input[entry.like] if entry.like < len(node.input) else ""
    dtype = element_type(constants[like].dtype) if like in constants else entry.default
    same.output[0] = f"{node.output[0]}/before cast"
    return [same, helper.make_node("Cast", same.output, node.output[:1], to=dtype)]


def _matmul_nbits(node: NodeProto, _: Mapping[str, Tensor]) -> list[NodeProto]:
    """A MatMul with a kernel of the size [K, N] that the attributes state."""
    sizes = {a.name: a.i for a in node.attribute}
    if not {"K", "N"} <= set(sizes):
        return [node]
    shape, kernel = f"{node.output[0]}/shape", f"{node.output[0]}/kernel"
    return [
        helper.make_node("Constant", [], [shape], value_ints=[sizes["K"], sizes["N"]]),
        helper.make_node("ConstantOfShape", [shape], [kernel]),
        helper.make_node("MatMul", [node.input[0], kernel], node.output[:1], node.name),
    ]


def _gather_block_quantized(node: NodeProto, constants: Mapping[str, Tensor]) -> list[NodeProto]:
    """A Gather with the element type of the scales. A uint8 contains as many values as it can."""
    if len(node.input) <= _SCALES:
        return [node]
    numbers = {a.name: a.i for a in node.attribute}
    table, ids, scales = node.input[:3]
    rows, raw = f"{node.output[0]}/rows", f"{node.output[0]}/before cast"
    packed = table in constants and constants[table].dtype == "uint8"
    copies = 8 // numbers.get("bits", 4) if packed else 1
    known = constants[scales].dtype if scales in constants else "float32"
    return [
        helper.make_node("Concat", [table] * copies, [rows], axis=-1),
        helper.make_node(
            "Gather", [rows, ids], [raw], node.name, axis=numbers.get("gather_axis", 0)
        ),
        helper.make_node("Cast", [raw], node.output[:1], to=element_type(known)),
    ]


_FUNCTIONS = {"GatherBlockQuantized": _gather_block_quantized, "MatMulNBits": _matmul_nbits}
_SCALES = 2  # slot
_KEEP_SHAPE = {"Binarizer", "Imputer", "Normalizer", SOFTMAX_NORMALIZER, "Scaler", "ZipMap"}
_QONNX = "qonnx.custom_op.general"
_MOST_INPUTS = 300
_WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_GEMM = ("transA", "transB")
_SAME = StandardOperator("Identity", (0,))

STANDARD_OPERATORS: Mapping[str, StandardOperator] = {
    "DequantizeLinear": StandardOperator("Identity", (0,), like=1),
    "DynamicQuantizeMatMul": StandardOperator("MatMul", (0, 1), like=2),
    "MatMulIntegerToFloat": StandardOperator("MatMul", (0, 1), like=2),
    "QGemm": StandardOperator("Gemm", (0, 3), 8, _GEMM),
    "QLinearAdd": StandardOperator("Add", (0, 3)),
    "QLinearAveragePool": StandardOperator("AveragePool", (0,), attributes=_WINDOW),
    "QLinearConcat": StandardOperator("Concat", range(2, _MOST_INPUTS, 3), 1, ("axis",)),
    "QLinearGlobalAveragePool": StandardOperator("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": _SAME,
    "QLinearMul": StandardOperator("Mul", (0, 3)),
    "QLinearSigmoid": _SAME,
    "QLinearSoftmax": _SAME,
    "QuantizeLinear": StandardOperator("Identity", (0,), like=2, default=TensorProto.UINT8),
}
