"""The keywords of the functions of `exporter.api`, for type checkers, which read source code only.

`make keywords` writes them from the fields of the option records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from exporter.selection import Units

# --- written by tools/api_keywords.py -----------------------------------------------------------


class CutKeywords(TypedDict, total=False):
    """Options of `CutOptions`."""

    keep: Units | None
    remove: Units | None
    cuts: Mapping[str, Units]
    labels: str | Path | Sequence[str] | None
    keep_order: bool
    head: str | None
    units: str | tuple[int, int] | None
    allow_nonfinite: bool
    allow_gather: bool
    drop_outputs: str | Iterable[str]
    group: int | None
    group_blocks: bool
    protect: Units | None
    allow_remove_special: bool
    vocabulary: str
    keep_ids: bool
    unknown_id: int | None
    mode: str
    probabilities: str
    merge: Mapping[str, Units]
    gate: str | None
    restore_width: bool
    for_quantization: bool
    restore_ids: bool
    new_ids: bool
    emit: str | None


class JobKeywords(TypedDict, total=False):
    """Options of `Job`."""

    to: str | Iterable[str] | None
    data: str | Path | None
    samples: int | None
    normalize: str | None
    resize: str | None
    skip_bad: bool
    label_column: str | None
    sample_rate: int | None
    tokenizer: str | Path | None
    seed: int
    input_shapes: Mapping[str, tuple[int, ...]]
    dims: Mapping[str, int]
    threads: int
    provider: str
    on: str | Iterable[str]
    bench_on: str | Iterable[str]
    save: str | Path | None
    fail_on_regression: float | None
    benchmark_model: str | Path | None
    tolerance: float | None
    truth: str | Path | None
    original_labels: str | Path | Sequence[str] | None
    min_accuracy: float | None
    max_drop: float | None
    min_top1: float | None
    min_sqnr: float | None
    min_cosine: float | None
    max_size_bytes: int | None
    max_latency_ms: float | None
    max_memory_bytes: int | None
    quantized_to: str | None
    map_input: Mapping[str, str]
    map_output: Mapping[str, str]
    bisect: bool
    save_worst: str | Path | None
    verify: bool
    check: bool
    bench: bool
    bench_seconds: float
    bench_runs: int
    precisions: str | Iterable[str]
    calibration: str | Path | None
    synthetic_calibration: bool
    integer_io: bool | str | Iterable[str]
    float_io: bool | str | Iterable[str]
    quantize_first: bool
    opset: int
    batch: int
    signature: str | None
    large_head_bytes: int
    timeout_s: float | None
    memory_limit_bytes: int | None
    plots: bool
    share_body: bool
    keep_original: bool
    force: bool
    progress: Callable[[str], None]
    on_file: Callable[[int, int], None]
    on_sample: Callable[[int, int], None]


class SelectKeywords(TypedDict, total=False):
    """Options of `SelectOptions`."""

    min_f1: float | None
    min_precision: float | None
    min_recall: float | None
    min_average_precision: float | None
    min_support: int | None
    min_count: int | None
    min_active: float | None
    min_norm: float | None
    top: int | None
    by: str | None
    coverage: float | None
    max_correlation: float | None
    counts: str | Path | None
    occurs_in: str | Path | None
    labels: str | Path | Sequence[str] | None
    head: str | None


class TrimKeywords(TypedDict, total=False):
    """Options of `TrimOptions`."""

    trim: bool
    target: float | None
    min_agreement: float | None
    by: str
    multiple: int
    held_out: float
    pareto: str | Path | None


# --- end of the keywords ------------------------------------------------------------------------


class Keywords(CutKeywords, JobKeywords, total=False):
    """The keywords of functions that cut."""


class SelectingKeywords(SelectKeywords, JobKeywords, total=False):
    """The keywords of `select`."""


class TrimmingKeywords(TrimKeywords, CutKeywords, JobKeywords, total=False):
    """The keywords of `trim` and `run`."""
