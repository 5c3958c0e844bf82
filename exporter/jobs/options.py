"""The options of a job: inputs, checks, conversion, quantization, limits and output.

The command line reads the fields for its options. `exporter.jobs.job` uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from exporter.conversion.options import LARGE_HEAD_BYTES
from exporter.formats import KINDS
from exporter.output.c_source import FORMS
from exporter.planning.option import ADVANCED, option
from exporter.quantization import FLOAT, PRECISIONS

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
_RUNNING = (*_CHECKING, "bench", "select", "trim")
_FORECASTING = (*_RUNNING, "inspect")  # metadata and conversions depend on these inputs
_TIMING = ("bench", "quantize", "run", "trim")
_QUANTIZED = ("quantize", "run", "verify")

_inputs = partial(option, section="Inputs to run on", commands=_RUNNING)
_check = partial(option, section="Checks", commands=_WRITING)
_quality = partial(option, section="Task quality", commands=("prune", "run", "verify", "trim"))
_timing = partial(option, section=ADVANCED, commands=_TIMING)
_quantization = partial(option, section="Quantization", commands=("quantize", "run"))
_conversion = partial(option, section=ADVANCED, commands=("convert", "run", "inspect"))
_limit = partial(
    option, section=ADVANCED, commands=(*_CHECKING, "inspect", "select", "demo", "trim")
)
_output = partial(option, section="Output", commands=("run",))


def no_progress(_message: str) -> None:
    """Report nothing."""


def no_samples(_done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class JobOptions:
    """How a job is done, as the user says it."""

    to: tuple[str, ...] | None = _output(
        None,
        "Comma list of the files to write.",
        choices=TARGETS,
        commands=(*_WRITING, "inspect"),
        metavar="KIND,...",
    )
    data: Path | None = _inputs(
        None,
        "Folder of images or .wav; .csv or .parquet; .txt for token models; .npz by input name, or "
        ".npy. Default: inputs generated from the seed.",
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
    skip_bad: bool = _inputs(
        False, "Leave out images and sounds that cannot be decoded.", section=ADVANCED
    )
    label_column: str | None = _inputs(
        None,
        "Column of a table with the labels. Default: label, class or target.",
        metavar="NAME",
        section=ADVANCED,
    )
    sample_rate: int | None = _inputs(
        None,
        "Sample rate that the model takes, for WAV files, if it does not state it.",
        minimum=1,
        metavar="HERTZ",
        section=ADVANCED,
    )
    tokenizer: Path | None = _inputs(
        None,
        "tokenizer.json, vocab.txt or SentencePiece .model for text. Default: next to the text or "
        "the model.",
        section=ADVANCED,
    )
    seed: int = _inputs(0, "Seed of generated inputs.", minimum=0, metavar="NUMBER")
    input_shapes: Mapping[str, tuple[int, ...]] = _inputs(
        {},
        "Shape of an input whose dimensions the model leaves open, batch included.",
        flag="--input-shape",
        parse="shape",
        metavar="NAME=1,16",
        commands=_FORECASTING,
        section=ADVANCED,
    )
    dims: Mapping[str, int] = _inputs(
        {},
        "Lengths of open dimensions of inputs, by name. Default: a length for usual names, such as "
        "batch_size and sequence_length.",
        flag="--dim",
        parse="dims",
        metavar="NAME=1,NAME=8",
        commands=_FORECASTING,
        section=ADVANCED,
    )
    threads: int = _inputs(
        1, "Threads of the runtime, for all models alike.", minimum=1, maximum=256, section=ADVANCED
    )
    provider: str = _inputs(
        "",
        "Execution provider of onnxruntime (xnnpack, cuda, openvino, qnn, ...), or delegate of "
        "LiteRT (xnnpack, builtin, reference, or a library), for all models alike. Default: the "
        "processor.",
        metavar="NAME[:KEY=VALUE,...]",
        commands=(*_TIMING, "verify"),
        section="Device",
    )
    on: tuple[str, ...] = option(
        (),
        "Run both files on this device, such as ssh://pi@greenhouse; see docs/devices.md.",
        "Device",
        ("bench", "verify"),
        parse="name",
        metavar="ADDRESS",
    )
    bench_on: tuple[str, ...] = option(
        (),
        "Measure latency and memory on this device, such as ssh://pi@greenhouse.",
        "Device",
        ("run",),
        parse="name",
        metavar="ADDRESS",
    )
    save: Path | None = option(
        None,
        "Add the timing to this SQLite file, which `exporter history` shows.",
        "History",
        ("bench",),
        metavar="FILE",
    )
    fail_on_regression: float | None = option(
        None,
        "With --save: fail if the whole interval of the change from earlier runs is above this, "
        "such as 5%.",
        "History",
        ("bench",),
        parse="percent",
        metavar="PERCENT",
        minimum=0,
    )
    benchmark_model: Path | None = option(
        None,
        "The program benchmark_model of LiteRT, which is sent to devices with an adb:// address.",
        "Device",
        ("bench", "run"),
    )
    tolerance: float | None = _check(
        None,
        "Largest allowed |difference| of a logit or output value, in its own unit, instead of the "
        "built-in limits of differences. With quantization, the limit of the quantization error.",
        minimum=0,
        commands=_CHECKING,
        section=ADVANCED,
    )
    truth: Path | None = _quality(
        None,
        "True boxes (COCO .json), transcripts (.csv) or masks (a folder of .png, or .npz) of the "
        "samples. Default: annotations.json or transcripts.csv in the folder of --data.",
    )
    original_labels: str | Path | Sequence[str] | None = _quality(
        None,
        "Label file of the original's units: .csv, .json, or one label on each line. Default: the "
        "labels in the model.",
        flag="--labels",
        parse="path",
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
        metavar="DB",
    )
    min_cosine: float | None = _check(
        None,
        "Smallest cosine between the outputs before and after quantization. Default: by precision.",
        minimum=-1,
        maximum=1,
        commands=_QUANTIZED,
        section=ADVANCED,
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
        section=ADVANCED,
    )
    map_output: Mapping[str, str] = _check(
        {},
        "Output A of the first file is output B of the second.",
        parse="pair",
        metavar="A=B",
        commands=("verify",),
        section=ADVANCED,
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
        commands=("prune", "convert", "quantize", "verify"),
    )
    verify: bool = _check(True, "Compare the result with the original.")
    check: bool = _check(
        False,
        "Raise CheckError if a check fails; otherwise look at `ok` of the result.",
        flag=None,
        commands=_CHECKING,
    )
    bench: bool = _check(True, "Measure latency and memory.", commands=("quantize", "run", "trim"))
    bench_seconds: float = _timing(
        2.0, "Shortest duration of all timed rounds, in seconds.", minimum=0, maximum=3600
    )
    bench_runs: int = _timing(20, "Smallest number of timed runs of each model.", minimum=1)
    precisions: tuple[str, ...] = _quantization(
        (FLOAT,),
        "Comma list of precisions to write:",
        flag="--precision",
        choices=dict.fromkeys(PRECISIONS, ""),
        commands=("run", "inspect"),
        metavar="PRECISION,...",
    )
    calibration: Path | None = _quantization(
        None,
        "Inputs to calibrate on, .npz or .npy. Default: the inputs of --data.",
    )
    synthetic_calibration: bool = _quantization(
        False, "Calibrate on generated inputs; the ranges of real data differ."
    )
    integer_io: bool | tuple[str, ...] = _quantization(
        False,
        "Quantize these inputs and outputs too, with int8 and int16x8. Without names: all of them.",
        parse="ends",
        metavar="[NAME,...]",
        commands=("quantize", "run", "inspect"),
    )
    float_io: bool | tuple[str, ...] = _quantization(
        False,
        "Keep these inputs and outputs float, as exceptions to --integer-io. Default: all of them.",
        parse="ends",
        metavar="[NAME,...]",
        commands=("quantize", "run", "inspect"),
        section=ADVANCED,
    )
    quantize_first: bool = _quantization(
        False,
        "Quantize the original, then cut it, instead of the reverse.",
        commands=("run",),
        section=ADVANCED,
    )
    opset: int = _conversion(
        17, "ONNX opset of converted files.", minimum=13, maximum=21, metavar="VERSION"
    )
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
    plots: bool = _output(
        True,
        "Draw plots and show samples in report.html. They take most of the time of a cut that is "
        "not timed.",
    )
    share_body: bool = _output(
        False,
        "Write the constants that a cut of an ONNX model leaves as they are into a second file, "
        "which all variants in the folder share.",
        commands=("prune", "run"),
    )
    keep_original: bool = _output(False, "Write the uncut models too.")
    force: bool = _output(
        False, "Replace an existing output.", commands=(*_WRITING, "select", "demo", "trim")
    )
    progress: Callable[[str], None] = option(
        no_progress,
        "Called with one line at each step.",
        "Output",
        (*_CHECKING, "inspect", "bench", "select", "trim"),
        flag=None,
    )
    on_file: Callable[[int, int], None] = option(
        no_samples,
        "Called with the number of the model file that is made next, from 1, and their total.",
        "Output",
        ("run",),
        flag=None,
    )
    on_sample: Callable[[int, int], None] = option(
        no_samples,
        "Called with the number of samples done and their total, during each step.",
        "Output",
        (*_CHECKING, "bench", "select", "trim"),
        flag=None,
    )
