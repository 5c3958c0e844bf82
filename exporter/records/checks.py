"""What a comparison found: checks, and what is reported with them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One metric of one output of one artifact, and its limit.

    Attributes:
        stage: "cut", "export", "quantize", "trim", "quality", "resources" or "history".
        output: the output's name; with " (z)" for the values before the last activation.
        metric: key of METRICS, or "shape", "finite", "remap", "original", "precision",
            "structure", "probe", "batch"; for the rows of a detector "rows", "classes", "boxes";
            of the resources "size", "latency", "memory", in bytes and milliseconds; of the history
            "regression", a relative change.
        value: None if nothing could be measured.
        limit: None if the value is only reported.
        samples: number of inputs it was measured on.
        detail: of a failed check, in words; "" if the values say it all.
        limit_from: "built-in" or "user"; "" without a limit.
        device: name of the device that the files ran on; "" for this machine.
    """

    stage: str
    artifact: str
    output: str
    metric: str
    value: float | None
    limit: float | None
    passed: bool
    samples: int
    detail: str = ""
    limit_from: str = ""
    device: str = ""

    @classmethod
    def of_fact(  # noqa: PLR0917 - in the order of the fields
        cls,
        stage: str,
        artifact: str,
        metric: str,
        passed: bool,
        detail: str = "",
        samples: int = 0,
    ) -> Check:
        """A check of a file that has neither a value nor a limit."""
        return cls(stage, artifact, "", metric, None, None, passed, samples, detail)


@dataclass(frozen=True)
class WorstCase:
    """Where a failed check differs most.

    Attributes:
        stage, artifact, output, metric: of the check.
        sample: index of the input among the samples.
        unit: index of the unit in the artifact; None if the value is of no unit of it.
        original_unit: its index in the first original.
        label: "" without one.
        expected, actual: the values; None if they are not finite.
        file: `.npz` with this input alone; "" if it was not saved.
        command: compares the files on this input again; "" if it was not saved.
        sample_name: the file of the input, in the folder of all; "" if one file has them all.
    """

    stage: str
    artifact: str
    output: str
    metric: str
    sample: int
    unit: int | None
    original_unit: int | None
    label: str
    expected: float | None
    actual: float | None
    file: str = ""
    command: str = ""
    sample_name: str = ""


@dataclass(frozen=True)
class FirstDifference:
    """The first tensor that differs in two files, in the order in which the original computes them.

    Attributes:
        artifact: name of the file.
        tensor: its name; "" if all tensors with the same name in both files are equal.
        operation: that computes it, as "Gemm 'head'".
        sample: index of the input.
        place: index of the largest difference in the tensor.
        expected, actual: the values there; None if they are not finite.
        equal: how many tensors before it are equal.
        sample_name: the file of the input; "" if one file has all inputs.
    """

    artifact: str
    tensor: str
    operation: str
    sample: int
    place: tuple[int, ...]
    expected: float | None
    actual: float | None
    equal: int
    sample_name: str = ""


@dataclass(frozen=True)
class Coverage:
    """Which part of a head the samples reach, in the original.

    Attributes:
        head: name.
        features: how many features the products of the head read.
        active_features: how many of them are not zero in some sample.
        units: of the original.
        first_units: how many of them come first in some sample.
        kept_units: how many units are kept.
        first_kept_units: how many of them come first in some sample.
    """

    head: str
    features: int
    active_features: int
    units: int
    first_units: int
    kept_units: int
    first_kept_units: int

    @property
    def misses_features(self) -> bool:
        """Whether some weights are multiplied by zero in every sample."""
        return self.active_features < self.features


@dataclass(frozen=True)
class UnitAgreement:
    """How often a quantized file has the same first unit as the model before, for one such unit.

    Attributes:
        artifact, output: names.
        unit: that comes first in the model before, as an index of the artifact.
        label: "" without one.
        count: how often it comes first there: in each sample, and at each place of the output.
        same: how often it comes first in the artifact too.
        instead: the unit that comes first in the artifact most often instead.
        instead_label: "" without one.
        instead_count: how often.
    """

    artifact: str
    output: str
    unit: int
    label: str
    count: int
    same: int
    instead: int
    instead_label: str
    instead_count: int

    @property
    def share(self) -> float:
        """The agreement, 0 to 1."""
        return self.same / self.count
