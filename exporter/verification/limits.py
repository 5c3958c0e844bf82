"""How far apart the values of two models may be at each stage and precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from exporter.errors import ModelError
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.graph.operations import Linear
from exporter.quantization import PRECISIONS
from exporter.verification.metrics import METRICS
from exporter.verification.roles import ModelPair


@dataclass(frozen=True)
class Limits:
    """How far apart the values of two models may be at one stage and precision.

    Attributes:
        z: largest |difference| of the logits.
        y: largest |difference| of the outputs.
        scaled: multiply both by max(1, largest |expected|), except for probabilities; False if they
            are in quantized values.
        agreement: smallest top-1 and top-5 agreement.
        per_unit: added to y for each unit that the activation adds up.
    """

    z: float
    y: float
    scaled: bool = True
    agreement: float = 1.0
    per_unit: float = 0.0


# A kernel that adds up n exponentials in float32, in 8 lanes, may lose half of the last bit at each
# of n / 8 steps. Both runtimes stay below that, and come near it if many units are equal, as zeroed
# units are: `benchmarks/softmax_rounding.py`.
LOST_IN_ADDING = 2.0**-24 / 8

# Measured on ai-edge-litert 2.3.0 and onnxruntime 1.31.1:
# - Quantized values are equal up to z. LiteRT's softmax of int16 adds up exponentials of 16 bits:
#   for each unit up to 2 of 32,768 steps from float64 (1.9 at 1,001 units).
# - Models with integer weights add up in float32, within the limits of float32. MatMulNBits adds up
#   in another order at another width: up to 8.3e-7 of the largest |z|, 1.5e-6 after a sigmoid. If
#   its blocks have zero points, at accuracy level 4, which level 0 may choose, up to 6.1e-6 and
#   9e-6 (4 and 8 bits alike): `benchmarks/cut_limits.py`.
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
    ("cut", "blocks"): Limits(1e-6, 2e-6, per_unit=LOST_IN_ADDING),
    ("cut", "blocks with zero points"): Limits(1e-5, 2e-5, per_unit=LOST_IN_ADDING),
    ("export", "fp32"): Limits(1e-4, 1e-4, per_unit=LOST_IN_ADDING),
    ("export", "fp16"): Limits(4e-3, 8e-3),
    ("export", "bf16"): Limits(4e-2, 6e-2),
}

UNGATED = frozenset({"quantize"})  # stages that report values, and fail only with a tolerance


def limits(
    stage: str,
    precision: str,
    expected: Array,
    column: Literal["z", "y", "probability"],
    *,
    tolerance: float | None = None,
    units: int = 0,
) -> dict[str, float]:
    """Metric name -> limit, for one output; empty if the stage only reports.

    At a stage that only reports, a tolerance limits the difference alone: the ranking follows from
    it, except for units that are closer than the tolerance.

    Args:
        stage: "cut", "export" or "quantize".
        precision: "fp32", "fp16", ...; "int8" or "int16x8" for quantized values.
        expected: the expected values, which set the scale.
        column: logits, outputs, or outputs that are probabilities.
        tolerance: replaces the value of the table.
        units: how many units the activation adds up; 0 if it does not.

    Raises:
        ModelError: the table has no row for this stage and precision.
    """
    if tolerance is not None:
        row = Limits(tolerance, tolerance)
    elif stage in UNGATED:
        return {}
    elif (stage, precision) in LIMITS:
        row = LIMITS[stage, precision]
    else:
        raise ModelError(
            f"no limit is set for the {stage} check at precision {precision}",
            "set one with --tolerance",
        )
    difference = row.z if column == "z" else row.y
    if row.scaled and column != "probability":
        values = np.abs(np.asarray(expected, np.float64))
        difference *= max(1.0, float(np.max(values, initial=0.0, where=np.isfinite(values))))
    if column != "z":
        difference += row.per_unit * units
    allowed = {"difference": difference}
    if stage not in UNGATED:
        allowed["agreement"] = row.agreement
    found = ((name, metric.limit) for name, metric in METRICS.items())
    return {name: allowed[limit] for name, limit in found if limit in allowed}


def precision_of_limits(pair: ModelPair) -> str:
    """The row of LIMITS for real values, dequantized values among them.

    1. After a cut, PRECISIONS names the row.
    2. Other integer files and float64 use the row "fp32".
    3. At export, a Keras model that computes in half precision sets the row: its file is
       more precise.
    """
    stage, original = pair.stage, pair.original.precision
    if stage == "export" and original in {"fp16", "bf16"}:
        return original
    precision = cut_precision(pair.pruned) if stage == "cut" else pair.pruned.precision
    if stage == "cut" and precision in PRECISIONS:
        return PRECISIONS[precision].limits
    integer = stage == "cut" and precision.startswith(("uint8", "int16"))
    return "fp32" if integer or precision == "fp64" else precision


def cut_precision(model: Model) -> str:
    """The precision in LIMITS for a cut of the model.

    Kernels in packed blocks are added up in another order at another width, whatever their bits.
    """
    operations = (node.operation for node in model.graph().nodes)
    packed = [each for each in operations if isinstance(each, Linear) and each.packed_bits]
    if not packed:
        return model.precision
    has_zero_points = any(along.zero is None for each in packed for along in each.along)
    return "blocks with zero points" if has_zero_points else "blocks"
