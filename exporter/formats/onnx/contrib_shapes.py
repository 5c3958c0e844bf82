"""Standard operators that stand for those of other domains while shapes are inferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto, TensorProto, helper

from exporter.formats.onnx.protos import element_type
from exporter.graph import Tensor


@dataclass(frozen=True)
class StandIn:
    """A standard operator whose result has the same shape.

    Attributes:
        operator: its name.
        inputs: the slots of the inputs that its own inputs are.
        like: the slot of the constant whose type the result has; None for that of the first input.
        attributes: those that both have.
        otherwise: the element type of the result where that constant is absent.
    """

    operator: str
    inputs: Sequence[int]
    like: int | None = None
    attributes: tuple[str, ...] = ()
    otherwise: int = TensorProto.FLOAT


def replace_with_standard_ops(node: NodeProto, constants: Mapping[str, Tensor]) -> list[NodeProto]:
    """The nodes to infer shapes of: the node itself where nothing stands for it."""
    if node.domain != "com.microsoft":
        return [node]
    if node.op_type == "MatMulNBits":
        return _product(node)
    entry = STAND_INS.get(node.op_type)
    if entry is None or any(a.name == "channels_last" and a.i for a in node.attribute):
        return [node]
    inputs = [node.input[slot] for slot in entry.inputs if slot < len(node.input)]
    same = NodeProto(name=node.name, op_type=entry.operator, input=inputs, output=node.output[:1])
    same.attribute.extend(a for a in node.attribute if a.name in entry.attributes)
    if entry.like is None:
        return [same]
    like = node.input[entry.like] if entry.like < len(node.input) else ""
    dtype = element_type(constants[like].dtype) if like in constants else entry.otherwise
    same.output[0] = f"{node.output[0]}/before its type"
    return [same, helper.make_node("Cast", same.output, node.output[:1], to=dtype)]


def _product(node: NodeProto) -> list[NodeProto]:
    """Of a kernel that is packed: a matrix of the size that the attributes state."""
    sizes = {a.name: a.i for a in node.attribute}
    if not {"K", "N"} <= set(sizes):
        return [node]
    shape, kernel = f"{node.output[0]}/shape", f"{node.output[0]}/kernel"
    return [
        helper.make_node("Constant", [], [shape], value_ints=[sizes["K"], sizes["N"]]),
        helper.make_node("ConstantOfShape", [shape], [kernel]),
        helper.make_node("MatMul", [node.input[0], kernel], node.output[:1], node.name),
    ]


_MOST_INPUTS = 300
_WINDOW = (
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "kernel_shape",
    "pads",
    "strides",
)

STAND_INS: Mapping[str, StandIn] = {
    "DequantizeLinear": StandIn("Identity", (0,), like=1),
    "DynamicQuantizeMatMul": StandIn("MatMul", (0, 1), like=2),
    "MatMulIntegerToFloat": StandIn("MatMul", (0, 1), like=2),
    "QGemm": StandIn("Gemm", (0, 3), like=8, attributes=("transA", "transB")),
    "QLinearAdd": StandIn("Add", (0, 3)),
    "QLinearAveragePool": StandIn("AveragePool", (0,), attributes=_WINDOW),
    "QLinearConcat": StandIn("Concat", range(2, _MOST_INPUTS, 3), like=1, attributes=("axis",)),
    "QLinearGlobalAveragePool": StandIn("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": StandIn("Identity", (0,)),
    "QLinearMul": StandIn("Mul", (0, 3)),
    "QLinearSigmoid": StandIn("Identity", (0,)),
    "QLinearSoftmax": StandIn("Identity", (0,)),
    "QuantizeLinear": StandIn("Identity", (0,), like=2, otherwise=TensorProto.UINT8),
}
