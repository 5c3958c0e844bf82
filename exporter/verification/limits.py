"""How far apart the values of two models may be at each stage and precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from exporter.errors import ModelError
from exporter.formats.model import Model
from exporter.graph import Array, Graph
from exporter.graph.operations import Elementwise, Linear
from exporter.quantization import PRECISIONS
from exporter.verification.floors import floors_of
from exporter.verification.judge import Allowed
from exporter.verification.metrics import METRICS
from exporter.verification.roles import ModelPair


@dataclass(frozen=True)
class Limits:
    """How far apart the values of two models may be at one stage and precision.

    Attributes:
        z: largest |difference| of the logits.
        y: largest |difference| of the outputs.
        scaled: multiply both by max(1, largest |expected| of the sample), except for probabilities;
            False if they are in quantized values.
        agreement: smallest top-1 and top-5 agreement.
        per_unit: added to y for each unit that the activation adds up.
    """

    z: float
    y: float
    scaled: bool = True
    agreement: float = 1.0
    per_unit: float = 0.0


RANKED = tuple(name for name, metric in METRICS.items() if metric.ranks)

# A kernel that adds up n exponentials in float32, in 8 lanes, may lose half of the last bit at each
# of n / 8 steps. Both runtimes stay below that, and come near it if many units are equal, as zeroed
# units are: `benchmarks/softmax_rounding.py`.
LOST_IN_ADDING = 2.0**-24 / 8

# Measured on ai-edge-litert 2.3.0 and onnxruntime 1.31.1:
# - Quantized values are equal up to z. LiteRT's softmax of int16 adds up exponentials of 16 bits:
#   for each unit up to 2 of 32,768 steps from float64 (1.9 at 1,001 units).
# - Models with integer weights add up in float32, within the limits of float32. MatMulNBits adds up
#   in another order at another width: with zero points, at accuracy level 4, up to 6.1e-6 of the
#   largest |z|, and 9e-6 after a sigmoid: `benchmarks/cut_limits.py`. If two to ten units are kept
#   whose logits are smaller than the terms of their sums, up to 1.5e-5 and 9e-6 after a softmax
#   (400 heads of 64 to 256 features, 4 bits, without zero points).
# - No CPU computes products of bfloat16: weights and results are stored in it, in steps of 2^-7
#   from 1 on.
# - Keras with a half-precision policy, compared with its file, which computes in float32: the
#   largest |difference| of z is up to 1.5e-3 of the largest |z| in float16, 1.4e-2 in bfloat16; of
#   probabilities 2.9e-3 and 2.0e-2 (MobileNetV2, EfficientNetB0).
LIMITS: Mapping[tuple[str, str], Limits] = {
    ("cut", "fp32"): Limits(1e-6, 1e-6, per_unit=LOST_IN_ADDING),
    ("cut", "fp16"): Limits(2e-3, 2e-3),
    ("cut", "bf16"): Limits(8e-3, 8e-3),
    ("cut", "int8"): Limits(0.0, 1.0, scaled=False),
    ("cut", "int16x8"): Limits(0.0, 1.0, scaled=False, per_unit=2.0),
    ("cut", "int4"): Limits(1e-6, 1e-6, per_unit=LOST_IN_ADDING),
    ("cut", "dynamic"): Limits(1e-6, 1e-6, per_unit=LOST_IN_ADDING),
    ("cut", "blocks"): Limits(3e-5, 3e-5, per_unit=LOST_IN_ADDING),
    ("export", "fp32"): Limits(1e-4, 1e-4, per_unit=LOST_IN_ADDING),
    ("export", "fp16"): Limits(4e-3, 8e-3),
    ("export", "bf16"): Limits(4e-2, 6e-2),
}


@dataclass(frozen=True)
class UserLimits:
    """Limits that the user gives instead of the built-in ones.

    Attributes:
        tolerance: largest |difference| of every value, in the unit of the output; not scaled.
        least: metric -> smallest value, at the stage "quantize".
    """

    tolerance: float | None = None
    least: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Basis:
    """Which rows of the tables apply to a comparison.

    Attributes:
        stage: "cut", "export" or "quantize".
        precision: "fp32", "fp16", ...; "int8" or "int16x8" for quantized values. At the stage
            "quantize", the precision that the model was quantized to.
        column: logits, outputs, or outputs that are probabilities.
        units: how many units the activation adds up; 0 if it does not.
        synthetic: the inputs were generated, at the stage "quantize".
        vectors: each sample is one vector of units, so that its first unit and its direction count;
            not a map with a vector at each place.
    """

    stage: str
    precision: str
    column: Literal["z", "y", "probability"] = "y"
    units: int = 0
    synthetic: bool = False
    vectors: bool = True


def limits(basis: Basis, expected: Array, user: UserLimits | None = None) -> Allowed:
    """What a comparison allows.

    Each sample has its own limit: its own largest value sets the scale. Units rank as tied within
    that limit. A tolerance limits the difference and changes nothing else. At the stage "quantize",
    no difference is allowed for in a ranking, as a device allows for none.

    Args:
        expected: (samples, ...) the expected values, which set the scale.

    Raises:
        ModelError: the table has no row for this stage and precision.
    """
    user = user or UserLimits()
    expected = np.asarray(expected, np.float64)
    given = None if user.tolerance is None else np.full(len(expected), user.tolerance)
    by_user = frozenset() if given is None else frozenset({"max_abs"})
    if basis.stage == "quantize":
        floors = floors_of(basis.precision, synthetic=basis.synthetic, vectors=basis.vectors)
        least = {**floors, **user.least}
        return Allowed(given, 0.0, least, by_user | frozenset(user.least))
    row = LIMITS.get((basis.stage, basis.precision))
    if row is None and given is None:
        raise ModelError(
            f"no limit is set for the {basis.stage} check at precision {basis.precision}",
            "set one with --tolerance",
        )
    built_in = _built_in(row or LIMITS[basis.stage, "fp32"], basis, expected)
    least = dict.fromkeys(RANKED, (row or Limits(0.0, 0.0)).agreement)
    return Allowed(built_in if given is None else given, built_in, least, by_user)


def _built_in(row: Limits, basis: Basis, expected: Array) -> Array:
    """(samples,) the largest |difference| of each sample, by a row of LIMITS."""
    difference = np.full(len(expected), row.z if basis.column == "z" else row.y)
    if row.scaled and basis.column != "probability":
        values = np.where(np.isfinite(expected), np.abs(expected), 0.0)
        largest = values.max(axis=tuple(range(1, values.ndim)), initial=0.0)
        difference *= np.maximum(1.0, largest)
    if basis.column != "z":
        difference += row.per_unit * basis.units
    return np.asarray(difference)


def precision_of_limits(pair: ModelPair) -> str:
    """The row of LIMITS for real values, dequantized values among them.

    The original decides: a tested file must not widen its limits by its looks.

    1. After a cut, PRECISIONS names the row.
    2. Other integer files, 8-bit and 4-bit floats and float64 use the row "fp32".
    3. At export, a Keras model that computes in half precision has a row of its own: its file is
       more precise.
    """
    if pair.stage == "export":
        precision = pair.original.precision
        return "fp32" if precision == "fp64" else precision
    precision = cut_precision(pair.original)
    if precision in PRECISIONS:
        return PRECISIONS[precision].limits
    others = ("uint8", "int16", "fp8", "fp4", "fp64")
    return "fp32" if precision.startswith(others) else precision


def cut_precision(model: Model) -> str:
    """The precision in LIMITS for a cut of the model.

    Kernels in blocks are added up in another order at another width, whatever their bits:

    1. in packed blocks (MatMulNBits);
    2. dequantized in blocks before a product: onnxruntime makes a MatMulNBits of the two.
    """
    graph = model.graph()
    for node in graph.nodes:
        operation = node.operation
        if isinstance(operation, Linear) and (
            operation.packed_bits or _dequantized_in_blocks(graph, node.inputs[operation.kernel])
        ):
            return "blocks"
    return model.precision


def _dequantized_in_blocks(graph: Graph, kernel: str) -> bool:
    """Does a dequantization in blocks compute a kernel?"""
    node = graph.producers[kernel][0] if kernel in graph.producers else None
    operation = node and node.operation
    return isinstance(operation, Elementwise) and operation.block_axis is not None
