"""How a job is done: limits, inputs, checks. What is kept is said by a `cutting.CutOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.conversion.process import Child
from exporter.conversion.remote import LARGE_HEAD_BYTES, ConvertOptions
from exporter.data.samples import (
    DEFAULT_COUNT,
    Samples,
    join_batches,
    read_samples,
    synthetic_samples,
)
from exporter.errors import UsageError
from exporter.formats import KINDS
from exporter.formats.model import Model, RunOptions
from exporter.jobs.source import OpenedModel, Progress, no_progress, open_source
from exporter.output.c_source import FORMS
from exporter.quantization import FLOAT, PRECISIONS, QuantizationSpec


@dataclass(frozen=True)
class Job:
    """How a job is done.

    Attributes:
        to: kinds to write, and forms beside them; None for the source's own kind, or for Keras all
            that run on the edge.
        data: a file of inputs; None for seeded samples.
        samples: how many inputs; None for 16, or all of the file's.
        tolerance: largest |difference| allowed, instead of the built-in limits. Where a job
            quantizes, it gates what that changed, and the limits of what is float stay.
        precisions: keys of PRECISIONS, to write each.
        calibration: a file of inputs to calibrate on, where it is not `data`.
        synthetic_calibration: calibrate on made-up inputs.
        integer_io: inputs and outputs are codes where activations are.
        quantize_first: quantize the whole model and cut the result, not the other way around.
        input_shapes: input name -> whole shape, where the model leaves dimensions open.
        batch: leading dimension of a converted file that needs a fixed one.
        signature: of a SavedModel; None for serving_default, or the only one.
        threads: within one operation, for both sides of every comparison.
        timeout_s, memory_limit_bytes: of the process that holds Keras, converts and quantizes.
        large_head_bytes: see `conversion.remote.ConvertOptions`.
        keep_original: write the uncut files too.
        force: replace what stands in the output's place.
        verify, bench: whether to check, and to time and measure memory.
        command: how the job was started, for the report.
        progress: told what is being done, one short line each.
    """

    to: tuple[str, ...] | None = None
    data: Path | None = None
    samples: int | None = None
    seed: int = 0
    tolerance: float | None = None
    precisions: tuple[str, ...] = (FLOAT,)
    calibration: Path | None = None
    synthetic_calibration: bool = False
    integer_io: bool = False
    quantize_first: bool = False
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    threads: int = 1
    opset: int = 17
    batch: int = 1
    signature: str | None = None
    timeout_s: float = 1800.0
    memory_limit_bytes: int | None = None
    large_head_bytes: int = LARGE_HEAD_BYTES
    keep_original: bool = False
    force: bool = False
    verify: bool = True
    bench: bool = True
    command: str = ""
    progress: Progress = no_progress

    def __post_init__(self) -> None:
        written = [name for name, kind in KINDS.items() if kind.written]
        for name in self.to or ():
            if name not in {*written, *FORMS}:
                known = ", ".join([*written, *FORMS])
                raise UsageError(f"no {name!r} can be written", f"kinds: {known}")
        self._check_precisions()
        for name in ("samples", "threads", "batch"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise UsageError(f"{name} is {count}", "give at least 1")

    def _check_precisions(self) -> None:
        wanted = [QuantizationSpec(name) for name in self.precisions]  # which refuses what is none
        if not wanted:
            raise UsageError(
                "there is no precision to write", f"precisions: {', '.join(PRECISIONS)}"
            )
        calibrated = any(PRECISIONS[wish.precision].calibrated for wish in wanted)
        if self.integer_io and not calibrated:
            QuantizationSpec(wanted[-1].precision, integer_io=True)  # which says why not
        if self.calibration is not None and self.synthetic_calibration:
            raise UsageError(
                "calibration data and synthetic calibration exclude each other", "give one of them"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds to write, those included of which only a form was asked for."""
        wanted = (FORMS[name].kind if name in FORMS else name for name in self.to or ())
        return tuple(dict.fromkeys(wanted))

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms to write beside them."""
        return tuple(name for name in self.to or () if name in FORMS)

    @property
    def run_options(self) -> RunOptions:
        return RunOptions(threads=self.threads)

    def open(self, source: str | Path | Any) -> AbstractContextManager[OpenedModel]:
        """Open a source under this job's limits (see `source.open_source`)."""
        options = ConvertOptions(
            self.opset, self.batch, self.input_shapes, self.signature, self.large_head_bytes
        )
        child = Child(self.timeout_s, self.memory_limit_bytes)
        return open_source(source, child, options, self.progress)

    def inputs(self, model: Model) -> Samples:
        """What models are compared and timed on."""
        graph = model.graph()
        if self.data is not None:
            found = read_samples(self.data, graph, self.samples)
        else:
            count = self.samples or DEFAULT_COUNT
            found = synthetic_samples(graph, count, self.seed, self.input_shapes)
        return join_batches(found, graph, self.batch)
