"""The options of a job: inputs, checks, conversion, quantization, limits and output.

The command line reads the fields for its options; heavier modules are imported on use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.conversion.options import LARGE_HEAD_BYTES, ConvertOptions
from exporter.errors import UsageError
from exporter.formats import KINDS
from exporter.lazy_dataclass import dataclass
from exporter.output.c_source import FORMS
from exporter.planning.option import option, options_of
from exporter.quantization import FLOAT, PRECISIONS, QuantizationSpec
from exporter.selection.text_file import refuse_special

if TYPE_CHECKING:
    from exporter.data.options import DataOptions
    from exporter.data.samples import Samples
    from exporter.formats.model import Model, RunOptions
    from exporter.graph.lengths import Lengths
    from exporter.jobs.source import OpenedModel
    from exporter.performance.scenario import BenchOptions
    from exporter.planning.pixels import Images

OPENING_S, CONVERTING_S = 60.0, 1800.0  # --timeout, if the user does not give it

# names of --to -> help
TARGETS = {name: kind.help for name, kind in KINDS.items() if kind.written} | {
    name: form.help for name, form in FORMS.items()
}

# Options of `inspect` that have an effect without a selection; the others are of its forecast.
OPENING = frozenset(
    {
        *("signature", "large_head_bytes", "timeout_s", "memory_limit_bytes", "progress"),
        *("input_shapes", "dims"),
    }
)

_WRITING = ("prune", "convert", "quantize", "run")
_CHECKING = (*_WRITING, "verify")
_RUNNING = (*_CHECKING, "bench", "select")
_FORECASTING = (*_RUNNING, "inspect")  # metadata and conversions depend on these inputs
_TIMING = ("bench", "quantize", "run")
_QUANTIZED = ("quantize", "run", "verify")

_inputs = partial(option, section="Inputs to run on", commands=_RUNNING)
_check = partial(option, section="Checks", commands=_WRITING)
_quality = partial(option, section="Task quality", commands=("prune", "run", "verify"))
_timing = partial(option, section="Timing", commands=_TIMING)
_quantization = partial(option, section="Quantization", commands=("quantize", "run"))
_conversion = partial(option, section="Conversion", commands=("convert", "run", "inspect"))
_limit = partial(option, section="Limits", commands=(*_CHECKING, "inspect", "select", "demo"))
_output = partial(option, section="Output", commands=("run",))


def no_progress(_message: str) -> None:
    """Report nothing."""


def no_samples(_done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Job:
    """How a job is done.

    Raises:
        UsageError: an unknown kind or precision, a number out of range, or options that exclude
            each other.
    """

    to: tuple[str, ...] | None = _output(
        None,
        "Comma list of the files to write.",
        choices=TARGETS,
        accepts="str | Iterable[str] | None",
        commands=(*_WRITING, "inspect"),
    )
    data: Path | None = _inputs(
        None,
        "Folder of images or .wav; .csv or .parquet; .txt for token models; .npz by input name, or "
        ".npy. Default: inputs generated from the seed.",
        parse="path",
        accepts="str | Path | None",
    )
    samples: int | None = _inputs(
        None, "Number of inputs. Default: 16, or all of the file.", minimum=1
    )
    normalize: str | None = _inputs(
        None,
        "Input values of images: imagenet, -1..1, 0..1, 0..255, or MEAN,STD. Default: found in the "
        "model.",
        metavar="RANGE",
        commands=_FORECASTING,
    )
    resize: str | None = _inputs(
        None,
        "How images get the size of the input. Default: that of preprocessor_config.json next to "
        "the model, else stretch.",
        choices={
            "stretch": "ignores the aspect ratio",
            "crop": "fills the input and cuts the rest",
            "pad": "fits the whole image and fills the rest with black",
        },
    )
    skip_bad: bool = _inputs(False, "Leave out images and sounds that cannot be decoded.")
    label_column: str | None = _inputs(
        None,
        "Column of a table with the labels. Default: label, class or target.",
        metavar="NAME",
    )
    sample_rate: int | None = _inputs(
        None, "Sample rate that the model takes, for WAV files, if it does not state it.", minimum=1
    )
    tokenizer: Path | None = _inputs(
        None,
        "tokenizer.json, vocab.txt or SentencePiece .model for text. Default: next to the text or "
        "the model.",
        parse="path",
        accepts="str | Path | None",
    )
    seed: int = _inputs(0, "Seed of generated inputs.", minimum=0)
    input_shapes: Mapping[str, tuple[int, ...]] = _inputs(
        {},
        "Shape of an input whose dimensions the model leaves open, batch included.",
        flag="--input-shape",
        parse="shape",
        metavar="NAME=1,16",
        commands=_FORECASTING,
    )
    dims: Mapping[str, int] = _inputs(
        {},
        "Lengths of open dimensions of inputs, by name. Default: a length for usual names, such as "
        "batch_size and sequence_length.",
        flag="--dim",
        parse="dims",
        metavar="NAME=1,NAME=8",
        commands=_FORECASTING,
    )
    threads: int = _inputs(
        1, "Threads of the runtime, for all models alike.", minimum=1, maximum=256
    )
    tolerance: float | None = _check(
        None,
        "Largest allowed |difference| of a logit or output value, in its own unit, instead of the "
        "built-in limits of differences. With quantization, the limit of the quantization error.",
        minimum=0,
        commands=_CHECKING,
    )
    truth: Path | None = _quality(
        None,
        "True boxes (COCO .json), transcripts (.csv) or masks (a folder of .png, or .npz) of the "
        "samples. Default: annotations.json or transcripts.csv in the folder of --data.",
        parse="path",
        accepts="str | Path | None",
    )
    original_labels: str | Path | Any = _quality(
        None,
        "Label file of the original's units: .csv, .json, or one label on each line. Default: the "
        "labels in the model.",
        flag="--labels",
        parse="path",
        accepts="str | Path | Sequence[str] | None",
        commands=("verify",),
    )
    min_accuracy: float | None = _quality(
        None,
        "Lowest accuracy of each artifact on labeled samples of kept classes; see docs/quality.md.",
        minimum=0,
        maximum=1,
    )
    max_drop: float | None = _quality(
        None,
        "Largest drop of that accuracy from the original restricted to the kept units.",
        minimum=0,
        maximum=1,
    )
    min_top1: float | None = _check(
        None,
        "Smallest share of samples, 0 to 1, with the same first unit after quantization. Default: "
        "by precision, see docs/quantization.md.",
        minimum=0,
        maximum=1,
        commands=_QUANTIZED,
    )
    min_sqnr: float | None = _check(
        None,
        "Smallest signal-to-quantization-noise ratio of an output, in dB. Default: by precision.",
        commands=_QUANTIZED,
    )
    min_cosine: float | None = _check(
        None,
        "Smallest cosine between the outputs before and after quantization. Default: by precision.",
        minimum=-1,
        maximum=1,
        commands=_QUANTIZED,
    )
    max_size_bytes: int | None = _check(
        None,
        "Largest size of each model file, such as 300kB or 20MB.",
        flag="--max-size",
        parse="size",
        commands=(*_CHECKING, "bench"),
    )
    max_latency_ms: float | None = _check(
        None,
        "Longest time of one run of each model file, such as 5ms. The upper end of the 95 % "
        "interval of p50 counts.",
        flag="--max-latency",
        parse="duration",
        minimum=0,
        commands=_TIMING,
    )
    max_memory_bytes: int | None = _check(
        None,
        "Most resident memory that each model file may take, such as 20MB.",
        flag="--max-memory",
        parse="size",
        commands=_TIMING,
    )
    quantized_to: str | None = _check(
        None,
        "Precision that the second file was quantized to; its limits apply. Default: stated by "
        "its remap, else it must match like a cut. How the file looks does not count.",
        flag="--precision",
        choices=dict.fromkeys(PRECISIONS, ""),
        commands=("verify",),
    )
    map_input: Mapping[str, str] = _check(
        {},
        "Input A of the first file is input B of the second. Default: by name, else by position.",
        parse="pair",
        metavar="A=B",
        commands=("verify",),
    )
    map_output: Mapping[str, str] = _check(
        {},
        "Output A of the first file is output B of the second.",
        parse="pair",
        metavar="A=B",
        commands=("verify",),
    )
    bisect: bool = _check(
        False,
        "If a check fails, find the first tensor that differs, and the operation that computes it.",
        commands=("verify",),
    )
    save_worst: Path | None = _check(
        None,
        "If a check fails, save the input that differs most to this .npz file, which is replaced. "
        "`run` saves it in its folder.",
        parse="path",
        accepts="str | Path | None",
        commands=("prune", "convert", "quantize", "verify"),
    )
    verify: bool = _check(True, "Compare the result with the original.")
    check: bool = _check(
        False,
        "Raise CheckError if a check fails; otherwise look at `ok` of the result.",
        flag=None,
        commands=_CHECKING,
    )
    bench: bool = _check(True, "Measure latency and memory.", commands=("quantize", "run"))
    bench_seconds: float = _timing(
        2.0, "Shortest duration of all timed rounds, in seconds.", minimum=0, maximum=3600
    )
    bench_runs: int = _timing(20, "Smallest number of timed runs of each model.", minimum=1)
    precisions: tuple[str, ...] = _quantization(
        (FLOAT,),
        "Comma list of precisions to write:",
        flag="--precision",
        choices=dict.fromkeys(PRECISIONS, ""),
        accepts="str | Iterable[str]",
        commands=("run", "inspect"),
    )
    calibration: Path | None = _quantization(
        None,
        "Inputs to calibrate on, .npz or .npy. Default: the inputs of --data.",
        parse="path",
        accepts="str | Path | None",
    )
    synthetic_calibration: bool = _quantization(
        False, "Calibrate on generated inputs; the ranges of real data differ."
    )
    integer_io: bool | tuple[str, ...] = _quantization(
        False,
        "Quantize these inputs and outputs too, with int8 and int16x8. Without names: all of them.",
        parse="ends",
        metavar="[NAME,...]",
        accepts="bool | str | Iterable[str]",
        commands=("quantize", "run", "inspect"),
    )
    float_io: bool | tuple[str, ...] = _quantization(
        False,
        "Keep these inputs and outputs float, as exceptions to --integer-io. Default: all of them.",
        parse="ends",
        metavar="[NAME,...]",
        accepts="bool | str | Iterable[str]",
        commands=("quantize", "run", "inspect"),
    )
    quantize_first: bool = _quantization(
        False,
        "Quantize the original, then cut it, instead of the reverse.",
        commands=("run",),
    )
    opset: int = _conversion(17, "ONNX opset of converted files.", minimum=13, maximum=21)
    batch: int = _conversion(
        1,
        "Batch size of converted files that need a fixed one (TFLite), if the model has none; and "
        "of the inputs that models are compared and timed on, if the file leaves it open.",
        minimum=1,
        commands=("convert", "run", "bench"),
    )
    signature: str | None = _conversion(
        None,
        "Signature of a SavedModel. Default: serving_default, or the only one.",
        metavar="NAME",
        commands=("convert", "run", "verify", "inspect", "select"),
    )
    large_head_bytes: int = _conversion(
        LARGE_HEAD_BYTES,
        "Heads with a kernel of this size or more get their weights after the conversion. "
        "Default: 256M.",
        flag="--large-head",
        parse="size",
    )
    timeout_s: float | None = _limit(
        None,
        "Seconds for each step in a process of its own. Default: 60 to open a model or to run a "
        "sample, with 5 of processor time for a small model, and 1800 for a conversion.",
        flag="--timeout",
        minimum=0,
        maximum=1_000_000,
        is_open=True,
    )
    memory_limit_bytes: int | None = _limit(
        None,
        "Resident memory that this process may take, such as 4G.",
        flag="--memory-limit",
        parse="size",
    )
    keep_original: bool = _output(False, "Write the uncut models too.")
    force: bool = _output(
        False, "Replace an existing output.", commands=(*_WRITING, "select", "demo")
    )
    progress: Callable[[str], None] = option(
        no_progress,
        "Called with one line at each step.",
        "Output",
        (*_CHECKING, "inspect", "bench", "select"),
        flag=None,
    )
    on_sample: Callable[[int, int], None] = option(
        no_samples,
        "Called with the number of samples done and their total, during each step.",
        "Output",
        (*_CHECKING, "bench", "select"),
        flag=None,
    )
    command: str = ""  # how the job was started, for the report
    options: Mapping[str, Any] = field(default_factory=dict)  # the same as data
    replay: Callable[[Path], str] = lambda _data: ""  # the command that compares one saved input

    def __post_init__(self) -> None:
        for name in ("data", "calibration", "truth", "tokenizer", "save_worst"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(path))
        for name in ("to", "precisions", "integer_io", "float_io"):
            names = getattr(self, name)
            if names is not None and not isinstance(names, bool):
                object.__setattr__(self, name, _as_names(names))
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
        if self.save_worst is not None and self.save_worst.suffix != ".npz":
            raise UsageError(
                f"{self.save_worst.name} does not end in .npz", "use --save-worst NAME.npz"
            )
        if self.save_worst is not None:
            refuse_special(self.save_worst, "use --save-worst NAME.npz")
        if self.save_worst is not None and self.save_worst == self.data:
            raise UsageError("save_worst would replace the data", "choose another name")
        if self.quantized_to is not None:
            QuantizationSpec(self.quantized_to)  # refuses unknown names
        for each in options_of(Job):
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

        return RunOptions(threads=self.threads)

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
        from exporter.formats.isolation import PROCESSOR_S, Limits
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


def _as_names(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
