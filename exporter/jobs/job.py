"""A job: its options, and what follows from them. Heavier modules are imported on use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.conversion.options import ConvertOptions
from exporter.errors import UsageError
from exporter.jobs.options import TARGETS, JobOptions
from exporter.jobs.timings import Timings
from exporter.output.c_source import FORMS
from exporter.planning.option import limited, names_of_type
from exporter.quantization import FLOAT, PRECISIONS, QuantizationSpec
from exporter.selection.text_file import refuse_special
from exporter.storage.urls import local_path, redact, scheme_of

if TYPE_CHECKING:
    from exporter.data.options import DataOptions
    from exporter.data.samples import Samples
    from exporter.devices.fleet import Fleet
    from exporter.formats.model import Model, RunOptions
    from exporter.graph.lengths import Lengths
    from exporter.jobs.source import OpenedModel
    from exporter.jobs.trim_options import TrimOptions
    from exporter.performance.scenario import BenchOptions
    from exporter.planning.pixels import Images


def _refuse_storage(name: str, value: Any) -> None:
    """Refuse a URL for a file that is written: its local copy is not uploaded."""
    url = getattr(value, "url", "") or (value if scheme_of(value) not in {"", "file"} else "")
    if name in {"save", "save_worst"} and url:
        raise UsageError(
            f"{name} is {redact(url)}, but it is written on this machine only",
            "give a path, and copy the file afterwards",
        )


OPENING_S, CONVERTING_S = 60.0, 1800.0  # --timeout, if the user does not give it


@dataclass(frozen=True)
class Job(JobOptions):
    """How a job is done.

    Raises:
        UsageError: an unknown kind or precision, a number out of range, or options that exclude
            each other.
    """

    dated: bool = True  # False: equal jobs make equal reports, without date and load
    command: str = ""  # how the job was started, for the report
    options: Mapping[str, Any] = field(default_factory=dict)  # the same as data
    replay: Callable[[Path], str] = lambda _data: ""  # the command that compares one saved input
    timings: Timings = field(default_factory=Timings, compare=False)
    trimming: TrimOptions | None = None  # `run` writes trimmed files too

    def __post_init__(self) -> None:
        for name in names_of_type(Job, "Path"):
            if (value := getattr(self, name)) is not None:
                _refuse_storage(name, value)
                object.__setattr__(self, name, local_path(value))
        for name in names_of_type(Job, "tuple[str, ...]", "bool | tuple[str, ...]"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool):
                names = (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))
                object.__setattr__(self, name, names)
        for name in self.to or ():
            if name not in TARGETS:
                raise UsageError(f"no {name!r} can be written", f"kinds: {', '.join(TARGETS)}")
        self._check_precisions()
        self._check_quality()
        self._check_ranges()
        if not self.bench and {"latency", "memory"} & self.most.keys():
            raise UsageError(
                "max_latency and max_memory need the measurements that no-bench leaves out",
                "leave out one of the two",
            )

    def _check_ranges(self) -> None:
        if self.fail_on_regression is not None and self.save is None:
            raise UsageError("fail_on_regression compares with a history", "give --save FILE too")
        if self.save_worst is not None:
            hint = "use --save-worst NAME.npz"
            if self.save_worst.suffix != ".npz":
                raise UsageError(f"{self.save_worst.name} does not end in .npz", hint)
            refuse_special(self.save_worst, hint)
            if self.save_worst == self.data:
                raise UsageError("save_worst would replace the data", "choose another name")
        if self.quantized_to is not None:
            QuantizationSpec(self.quantized_to)  # refuses unknown names
        for each in limited(Job):
            number = getattr(self, each.name)
            if not isinstance(number, int | float) or isinstance(number, bool):
                continue
            if each.minimum is not None and number < each.minimum:
                raise UsageError(f"{each.name} is {number}", f"give at least {each.minimum}")
            if each.maximum is not None and number > each.maximum:
                raise UsageError(f"{each.name} is {number}", f"give at most {each.maximum}")

    def _check_precisions(self) -> None:
        specs = [QuantizationSpec(name) for name in self.precisions]  # refuses unknown names
        if not specs:
            raise UsageError(
                "there is no precision to write", f"precisions: {', '.join(PRECISIONS)}"
            )
        calibrated = [s.precision for s in specs if PRECISIONS[s.precision].calibrated]
        # raises with the reason, also if no precision has integer activations
        precision = next(iter(calibrated), specs[-1].precision)
        QuantizationSpec(precision, self.integer_io, self.float_io)
        if self.share_body and not self.quantize_first and set(self.precisions) != {FLOAT}:
            raise UsageError(
                "a file that is quantized after its cut shares no body with others",
                "add --quantize-first, or leave out --share-body",
            )
        if self.calibration is not None and self.synthetic_calibration:
            raise UsageError(
                "calibration data and synthetic calibration exclude each other", "give one of them"
            )

    def _check_quality(self) -> None:
        for name in ("min_accuracy", "max_drop"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise UsageError(f"{name} is {share}", "give a share between 0 and 1, such as 0.9")
        if (self.has_quality_gate or self.truth) and self.data is None:
            raise UsageError(
                "the task quality can only be measured on labeled data",
                "give --data: a folder with one sub-folder per class, or an .npz with labels",
            )

    @property
    def has_quality_gate(self) -> bool:
        """Whether the job has a gate on the task quality."""
        return self.min_accuracy is not None or self.max_drop is not None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds to write, with the kinds of the forms."""
        kinds = (FORMS[name].kind if name in FORMS else name for name in self.to or ())
        return tuple(dict.fromkeys(kinds))

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms to write next to the model files, such as C source."""
        return tuple(name for name in self.to or () if name in FORMS)

    @property
    def least(self) -> Mapping[str, float]:
        """The user's smallest values of quantized models: metric -> value."""
        given = {"top1": self.min_top1, "sqnr_db": self.min_sqnr, "cosine": self.min_cosine}
        return {metric: value for metric, value in given.items() if value is not None}

    @property
    def most(self) -> Mapping[str, float]:
        """The user's largest values of files: "size", "latency", "memory" -> bytes or ms."""
        given = {
            "size": self.max_size_bytes,
            "latency": self.max_latency_ms,
            "memory": self.max_memory_bytes,
        }
        return {metric: value for metric, value in given.items() if value is not None}

    @property
    def lengths(self) -> Lengths:
        """Lengths of open dimensions of inputs."""
        from exporter.graph.lengths import Lengths

        return Lengths(self.input_shapes, self.dims)

    @property
    def run_options(self) -> RunOptions:
        from exporter.formats.model import RunOptions

        return RunOptions(threads=self.threads, provider=self.provider)

    def fleet(self) -> Fleet:
        """The devices that models run on; without any, it is this machine."""
        from exporter.devices.fleet import Fleet

        return Fleet(self.on or self.bench_on, self.benchmark_model)

    @property
    def bench_options(self) -> BenchOptions:
        """The scenario of the timing."""
        from exporter.performance.scenario import MAX_SECONDS, BenchOptions

        return BenchOptions(
            self.run_options,
            self.bench_seconds,
            self.bench_runs,
            max_seconds=max(MAX_SECONDS, 3 * self.bench_seconds),
            seed=self.seed,
        )

    def open(self, source: str | Path | Any) -> AbstractContextManager[OpenedModel]:
        """Open a source under this job's limits (see `source.open_source`)."""
        from exporter.conversion.process import Child
        from exporter.formats.isolated_process import Limits
        from exporter.formats.isolation import PROCESSOR_S
        from exporter.jobs.source import open_source

        options = ConvertOptions(
            self.opset,
            self.batch,
            self.input_shapes,
            self.signature,
            self.large_head_bytes,
            self.dims,
        )
        processor_s = None if self.timeout_s else PROCESSOR_S
        limits = Limits(self.timeout_s or OPENING_S, self.memory_limit_bytes, processor_s)
        child = Child(self.timeout_s or CONVERTING_S, self.memory_limit_bytes, limits.timeout_s)
        return open_source(source, child, options, self.progress, limits)

    def data_options(self, path: Path | None) -> DataOptions:
        """How the user's data becomes inputs (raises UsageError for an unknown normalization).

        Args:
            path: of the model; files next to it may say how to prepare data. None if it has none.
        """
        from exporter.data.options import DataOptions, parse_normalize, parse_resize

        return DataOptions(
            normalize=parse_normalize(self.normalize),
            resize=parse_resize(self.resize),
            skip_bad=self.skip_bad,
            label_column=self.label_column,
            sample_rate=self.sample_rate,
            tokenizer=self.tokenizer,
            lengths=self.lengths,
            model=path,
        )

    def image_inputs(self, model: Model) -> Images:
        """How inputs expect pixels, for the metadata of a cut file."""
        from exporter.planning.pixels import image_inputs

        return image_inputs(model, self.normalize)

    def inputs(self, model: Model, path: Path | None = None) -> Samples:
        """The samples that models are compared and timed on.

        Args:
            path: of the model's file; see `data_options`.
        """
        from exporter.data.read import read_samples
        from exporter.data.samples import DEFAULT_COUNT, join_batches, synthetic_samples

        graph = model.graph()
        if self.data is not None:
            found = read_samples(self.data, graph, self.samples, self.data_options(path))
        else:
            count = self.samples or DEFAULT_COUNT
            found = synthetic_samples(graph, count, self.seed, self.lengths)
        return replace(join_batches(found, graph, self.batch), on_sample=self.on_sample)
