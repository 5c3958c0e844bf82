"""FLOORS: the quality that a quantized model must reach against its float model.

`python benchmarks/quantized_floors.py` measures it. The lowest values of good quantization, on
inputs that calibration did not see:

| network, inputs              | precision | SQNR    | top-1  | smallest cosine |
|------------------------------|-----------|---------|--------|-----------------|
| digits, 360 images           | int8      | 45.4 dB | 100 %  | 0.999           |
|                              | int4      | 30.0 dB | 99.4 % | 0.94            |
| MobileNet V1 0.25, 36 images | fp16      | 37.4 dB | 94.4 % | 0.99            |
|                              | dynamic   | 17.0 dB | 83.3 % | 0.93            |
|                              | int8      | 10.6 dB | 88.9 % | 0.49            |
|                              | int16x8   | 10.5 dB | 77.8 % | 0.45            |
| text classifier, 64 texts    | int4      | 48.3 dB | 100 %  | 0.9999          |
| digits, noise                | int8      | 4.6 dB  | 75.0 % | 0.02            |
|                              | int16x8   | 4.6 dB  | 76.6 % | 0.02            |
| MobileNet V1 0.25, noise     | int8      | 4.1 dB  | 43.8 % | 0.63            |

Not good, and below the floors: MobileNet V1 at int4 (TFLite) and dynamic (ONNX), -13 and 0.4 dB.
Networks with random weights come near the floors or fall below: their units nearly tie.

The floors leave a margin for harder networks and for chance in few samples. Noise is far outside
the ranges of calibration and clips, so its floors only ask for more signal than noise. A file whose
units are mixed up has about -3 dB on any inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Floors(NamedTuple):
    """The smallest values of one precision.

    Attributes:
        sqnr_db: signal-to-quantization-noise ratio of an output over all samples, in dB.
        top1: share of samples with the same first unit.
        cosine: of the angle between both vectors of any sample; None if it is not limited.
    """

    sqnr_db: float
    top1: float
    cosine: float | None


class InputFloors(NamedTuple):
    """The floors on the inputs of a user, and on synthetic ones."""

    given: Floors
    synthetic: Floors


_NOISE = Floors(0.0, 0.1, None)

FLOORS: Mapping[str, InputFloors] = {
    "fp16": InputFloors(Floors(20.0, 0.8, 0.9), Floors(15.0, 0.5, 0.5)),
    "dynamic": InputFloors(Floors(5.0, 0.6, 0.2), _NOISE),
    "int8": InputFloors(Floors(5.0, 0.6, 0.2), _NOISE),
    "int16x8": InputFloors(Floors(5.0, 0.6, 0.2), _NOISE),
    "int4": InputFloors(Floors(3.0, 0.5, 0.2), _NOISE),
}


def floors_of(precision: str, *, synthetic: bool, vectors: bool) -> dict[str, float]:
    """Metric -> its smallest value.

    Args:
        precision: key of FLOORS.
        synthetic: the inputs were generated.
        vectors: each sample is one vector of units. Of a map with a vector at each place only the
            noise is limited: at most places no unit is found, and the first is chance.
    """
    row = FLOORS[precision]
    found = (row.synthetic if synthetic else row.given)._asdict()
    names = found if vectors else ("sqnr_db",)
    return {name: found[name] for name in names if found[name] is not None}
