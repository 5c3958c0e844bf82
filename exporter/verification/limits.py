"""The limits that a check applies: how far apart two answers may be at each stage and precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from exporter.errors import ModelError
from exporter.graph import Array

# --- the limits ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """How far apart two answers may be at one stage and precision.

    Attributes:
        z: largest |difference| of the values before the last activation.
        y: largest |difference| of what the model returns.
        scaled: the two are multiplied by max(1, largest |expected|), except for probabilities;
            False where they count codes.
        agreement: smallest top-1 and top-5 agreement.
        per_unit: for each unit that y is shared out over, it may be this much further.
    """

    z: float
    y: float
    scaled: bool = True
    agreement: float = 1.0
    per_unit: float = 0.0


# A kernel that adds up n exponentials in float32, in 8 lanes, may lose half a last place at each
# of n / 8 steps. Both runtimes keep to that, and come near it where many units are alike, as
# zeroed ones are: `benchmarks/softmax_rounding.py`.
LOST_IN_ADDING = 2.0**-24 / 8

# Measured on ai-edge-litert 2.3.0 and onnxruntime 1.31.1:
# - Codes are equal up to z. LiteRT's softmax of int16 codes adds up exponentials of 16 bits: up to
#   2 codes of 32,768 from float64 for each unit (1.9 at 1,001 units).
# - Behind integer weights sums are made in float32, and keep to its limits. Those of MatMulNBits
#   are made in another order at another width: up to 8.3e-7 of the largest |z|, 1.5e-6 behind a
#   sigmoid; where its blocks have zero points, at accuracy level 4, which level 0 may choose, up to
#   6.1e-6 and 9e-6 (4 and 8 bits alike): `benchmarks/cut_limits.py`.
# - Nothing on a CPU computes products of bfloat16: weights and results are stored in it, in steps
#   of 2^-7 from 1 on.
# - Keras under a policy of half precision beside its file, which computes in float32: the largest
#   |difference| of z is up to 1.5e-3 of the largest |z| in float16, 1.4e-2 in bfloat16, that of
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

UNGATED = frozenset({"quantize"})  # stages whose values are reported, and fail only on request


def limits(
    stage: str,
    precision: str,
    expected: Array,
    what: Literal["z", "y", "probability"],
    *,
    tolerance: float | None = None,
    units: int = 0,
) -> dict[str, float]:
    """Metric name -> limit, for one output; empty where the stage only reports.

    Of a stage that only reports, a tolerance gates the difference alone: which unit comes first
    follows from that, but where two are closer than it.

    Args:
        stage: "cut", "export" or "quantize".
        precision: "fp32", "fp16", ...; for codes "int8" or, where they are wider, "int16x8".
        expected: the expected values, which set the scale.
        what: values before the last activation, after it, or after it and probabilities.
        tolerance: what the user gave instead of the table's value.
        units: how many y is shared out over; 0 where each unit answers for itself.

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
            "give one with --tolerance",
        )
    allowed = row.z if what == "z" else row.y
    if row.scaled and what != "probability":
        values = np.abs(np.asarray(expected, np.float64))
        allowed *= max(1.0, float(np.max(values, initial=0.0, where=np.isfinite(values))))
    if what != "z":
        allowed += row.per_unit * units
    if stage in UNGATED:
        return {"max_abs": allowed}
    return {"max_abs": allowed, "top1": row.agreement, "top5": row.agreement}
