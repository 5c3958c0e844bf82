"""What a report shows of single samples and classes."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.records.checks import WorstCase


@dataclass(frozen=True)
class InputPreview:
    """One input of a sample.

    Attributes:
        shape: of the sample, with its batch.
        low, mean, high: of its values; None if they are texts, or not finite.
        values: the first ones, as text.
        picture: a data URI of a small PNG or JPEG; "" if the input is no image.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None
    mean: float | None
    high: float | None
    values: tuple[str, ...] = ()
    picture: str = ""


@dataclass(frozen=True)
class UnitValue:
    """The value of one unit in both models.

    Attributes:
        unit: its index in the artifact; None if the value is of no unit of it.
        original_unit: its index in the first original.
        label: "" without one.
        expected, actual: None if they are not finite.
    """

    unit: int | None
    original_unit: int | None
    label: str
    expected: float | None
    actual: float | None


@dataclass(frozen=True)
class WorstSample:
    """The sample with the largest difference in one comparison, passed or failed.

    Attributes:
        case: where it differs most. Its metric is the first that failed, else "max_abs".
        passed: no metric of the output failed.
        limit: of the largest difference in this sample; None if it has none.
        samples: how many were compared.
        values: of some units, the largest expected ones first.
        inputs: of the sample; empty if it was not read again.
        quantized: the values are quantized ones.
    """

    case: WorstCase
    passed: bool
    limit: float | None
    samples: int
    values: tuple[UnitValue, ...] = ()
    inputs: tuple[InputPreview, ...] = ()
    quantized: bool = False


@dataclass(frozen=True)
class DrawnBox:
    """One box of a detector.

    Attributes:
        corners: left, top, right, bottom, as shares of the picture.
        original_unit: of its class, in the original that was cut.
        label: "" without one.
        is_kept: the class was kept.
    """

    corners: tuple[float, float, float, float]
    original_unit: int
    label: str
    score: float
    is_kept: bool


@dataclass(frozen=True)
class BoxPicture:
    """The boxes that a detector returns for one sample, before and after.

    Attributes:
        artifact: name of the file.
        sample: index of the input.
        picture: a data URI of a PNG or JPEG of the input.
        width, height: of the input, in pixels.
        lowest_score: boxes with a lower score are left out.
        before, after: of the original and of the artifact, the highest scores first.
        sample_name: the file of the input; "" if one file has all inputs.
    """

    artifact: str
    sample: int
    picture: str
    width: int
    height: int
    lowest_score: float
    before: tuple[DrawnBox, ...]
    after: tuple[DrawnBox, ...]
    sample_name: str = ""


@dataclass(frozen=True)
class Confusion:
    """Which units come first in a quantized file, and in the model before.

    Attributes:
        artifact, output: names.
        units: that are confused most, as indices of the artifact, in their order; all if few.
        labels: of these units; "" without one.
        counts: [first in the model before][first in the artifact] how often. Nearly equal values
            that change places count as the same unit.
    """

    artifact: str
    output: str
    units: tuple[int, ...]
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
