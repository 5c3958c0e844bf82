"""Differences of structure that a known rewriter makes, and that samples have to judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from exporter.formats.structure import Structure
from exporter.proof.digests import COPY

# Operations that an optimizer adds to the constants of the operation next to them.
ABSORBED = frozenset({"Add", "BatchNormalization", "Div", "Mul", "Pad", "Sub"})

# Operations that do nothing when a network is not trained.
NO_OPERATION = frozenset({"Dropout"})

# Operations that it joins with others to a fused one.
JOINED = frozenset({
    "AveragePool", "Clip", "Conv", "Erf", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool",
    "HardSigmoid", "LayerNormalization", "LeakyRelu", "MatMul", "MaxPool", "Pow",
    "QuantizeLinear", "ReduceMean", "Relu", "Resize", "Sigmoid", "Softmax", "Sqrt", "Tanh",
    "Upsample", "Where",
})  # fmt: skip

# Operations that it adds or drops where a fused one needs another layout or type.
MOVING = frozenset(
    {"Cast", "DequantizeLinear", "Flatten", "QuantizeLinear", "Reshape", "Slice", "Transpose"}
)

# Operations that onnxruntime's optimizer writes. Each replaces several others.
FUSED = frozenset({
    "Conv", "Gelu", "Gemm", "LayerNormalization", "QLinearConv", "QLinearMatMul",
    "com.microsoft.Attention", "com.microsoft.BiasGelu", "com.microsoft.BiasSoftmax",
    "com.microsoft.DynamicQuantizeMatMul", "com.microsoft.EmbedLayerNormalization",
    "com.microsoft.FastGelu", "com.microsoft.FusedConv", "com.microsoft.FusedGemm",
    "com.microsoft.FusedMatMul", "com.microsoft.Gelu", "com.microsoft.MatMulIntegerToFloat",
    "com.microsoft.MatMulNBits", "com.microsoft.QGemm", "com.microsoft.QLinearAdd",
    "com.microsoft.QLinearAveragePool", "com.microsoft.QLinearConcat",
    "com.microsoft.QLinearConv", "com.microsoft.QLinearGlobalAveragePool",
    "com.microsoft.QLinearLeakyRelu", "com.microsoft.QLinearMul",
    "com.microsoft.QLinearSigmoid", "com.microsoft.QLinearSoftmax", "com.microsoft.QuickGelu",
    "com.microsoft.SkipLayerNormalization", "com.microsoft.TransposeMatMul",
    "com.microsoft.nchwc.AveragePool", "com.microsoft.nchwc.Conv",
    "com.microsoft.nchwc.GlobalAveragePool", "com.microsoft.nchwc.GlobalMaxPool",
    "com.microsoft.nchwc.MaxPool", "com.microsoft.nchwc.ReorderInput",
    "com.microsoft.nchwc.ReorderOutput", "com.microsoft.nchwc.Upsample",
})  # fmt: skip


def explain(expected: Structure, found: Structure) -> str:
    """Why the structure differs, if a known optimizer explains it; "" otherwise.

    1. It computes operations on constants in advance, and drops those that do nothing.
    2. It adds factors and offsets to the constants of the operation next to them, which change.
    3. It replaces several operations by a fused one, and changes layouts around it.

    A file with the same operations, or with others, was changed by something else. No optimizer
    writes TFLite files: converters fuse operations when they write them.
    """
    if not expected.operator_sets:
        return ""
    before, after = _operators(expected), _operators(found)
    del before[COPY], after[COPY]  # they are not compared
    gone, new = before - after, after - before
    fused = sorted(set(new) & FUSED)
    unexplained, allowed = gone, set(NO_OPERATION)
    if _has_other_constants(expected, found):
        unexplained = gone - Counter(_computed_in_advance(expected))
        allowed |= ABSORBED
    if fused:
        allowed |= ABSORBED | JOINED | MOVING
    if _has_other_constants(expected, found) and not (fused or _changes_constants(expected, gone)):
        return ""
    if not gone or set(unexplained) - allowed or set(new) - FUSED - (MOVING if fused else set()):
        return ""
    instead = f" and contains {', '.join(fused)} instead" if fused else ""
    lacks = f"lacks {sum(gone.values())} operations of the cut{instead}"
    return f"an optimizer rewrote it: it {lacks}"


def _changes_constants(expected: Structure, gone: Counter[str]) -> bool:
    """Can an optimizer that drops these operations change constants?"""
    return bool(gone & Counter(_computed_in_advance(expected))) or not ABSORBED.isdisjoint(gone)


def _computed_in_advance(structure: Structure) -> Iterator[str]:
    """The operations whose result depends on constants and shapes only."""
    known = {"", *structure.constants}
    for step in structure.steps:
        if step.operator == "Shape" or known.issuperset(step.inputs):
            known.update(step.outputs)
            yield step.operator


def _has_other_constants(expected: Structure, found: Structure) -> bool:
    known = {constant.digest for constant in expected.constants.values()}
    return any(constant.digest not in known for constant in found.constants.values())


def _operators(structure: Structure) -> Counter[str]:
    return Counter(_all_operators(structure))


def _all_operators(structure: Structure) -> Iterator[str]:
    for step in structure.steps:
        yield step.operator
        for value in step.attributes.values():
            if isinstance(value, Structure):
                yield from _all_operators(value)
