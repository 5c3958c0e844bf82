"""Reports for tests, with their expected Markdown and terminal output (80 columns)."""
# ruff: noqa: E501 - expected texts have long lines

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exporter.records import Artifact, Check, Latency, Memory, Original, Quality, Report
from exporter.remap import HeadRemap, Origin, Remap

SHA = "0123456789abcdef" * 4


def check(metric: str, value: float | None, limit: float | None, **other: Any) -> Check:
    fields: dict[str, Any] = {
        "stage": "cut",
        "artifact": "pruned.fp32.onnx",
        "output": "scores",
        "passed": True,
    }
    return Check(metric=metric, value=value, limit=limit, samples=16, **{**fields, **other})


def head(keep: tuple[int, ...], units: int, **other: Any) -> HeadRemap:
    fields: dict[str, Any] = {
        "name": "scores",
        "output": "scores",
        "axis": 1,
        "activation": "softmax",
        "new_to_old": keep,
        "new_units": len(keep),
        "mode": "slice",
    }
    return HeadRemap(kept=keep, old_units=units, **{**fields, **other})


def remap(*heads: HeadRemap) -> Remap:
    return Remap(Origin("net.keras", SHA), None, heads)


# The keys of a report as JSON, in the documented order.
REPORT_KEYS = [
    *("schema", "ok", "versions", "machine", "command", "inputs", "original", "remap"),
    *("artifacts", "checks", "latency", "memory", "warnings", "quality", "selection"),
    *("date", "options", "settings", "coverage", "worst", "first_differences", "devices"),
    *("timings", "agreement", "trimmed", "worst_samples", "box_pictures", "confusions"),
    *("unit_labels", "precisions"),
]

# --- the records --------------------------------------------------------------------------------

PASSING = Report(
    versions={"python": "3.11.7", "unit-exporter": "0.1.0", "numpy": "2.4.6"},
    machine={"cpu": "Some CPU", "cores": 2, "memory_bytes": 25_276_514_304, "system": "Linux"},
    command="exporter run net.keras -o out --keep 'cat,dog,sea_*'",
    inputs={"source": "synthetic, seed 0", "samples": 16},
    original=Original("net.keras", "keras", "fp32", 14_612_345, SHA),
    remap=remap(head((3, 5, 9), 10, labels=("cat", "dog", "sea_lion"))),
    artifacts=(
        Artifact("pruned.fp32.onnx", "onnx", "fp32", 9_012_345, SHA, "tf2onnx", 14_123_456),
        Artifact("pruned.fp32.tflite", "tflite", "fp32", 999_600, SHA, "", 999_600),
    ),
    checks=(
        check("max_abs", 1.1920929e-07, 1e-6, output="scores (z)"),
        check("rmse", 2.3e-8, None),
        check("max_abs", 6e-8, 1e-6),
        check("top1", 1.0, 1.0),
        check("max_abs", 0.0000421, 1e-4, stage="export"),
        check("max_abs", 0.0, 1e-6, artifact="pruned.fp32.tflite"),
    ),
    latency=(
        Latency(
            artifact="pruned.fp32.onnx",
            engine="onnxruntime",
            threads=1,
            batch=1,
            original_p50_ms=0.8312,
            p50_ms=0.7991,
            p90_ms=0.912,
            original_load_ms=104.2,
            load_ms=12.34,
            samples=200,
            speedup=1.0402,
            speedup_ci95=(0.9981, 1.0617),
            noise_floor=0.0153,
            verdict="no measurable change",
        ),
        Latency(
            artifact="pruned.fp32.tflite",
            engine="LiteRT",
            threads=2,
            batch=8,
            original_p50_ms=23.06,
            p50_ms=0.0123,
            p90_ms=0.0131,
            original_load_ms=9.9951,
            load_ms=1.0,
            samples=200,
            speedup=15.23,
            speedup_ci95=(14.9, 15.6),
            noise_floor=0.004,
            verdict="faster",
            basis="CPU time",
            detectable_change=0.0431,
            original_cpu_ms=21.04,
            cpu_ms=0.0121,
            original_p90_ms=31.2,
            original_p99_ms=44.5,
            p99_ms=0.0222,
            loads=12,
            rounds=200,
            interrupted_rounds=180,
            runs=1000,
        ),
    ),
)

FAILING = replace(
    PASSING,
    inputs={"source": "digits.npz", "samples": 32},
    artifacts=PASSING.artifacts[:1],
    checks=(
        check("max_abs", 0.25, 1e-6, passed=False, output="scores (z)"),
        check("top1", 0.99996, 1.0, passed=False),
        check("max_abs", 6e-8, 1e-6),
        check("shape", None, None, passed=False, stage="export"),
    ),
    latency=(),
    warnings=("1 of 3 kept units was never the first on any of the 32 samples that were given.",),
)

ZERO = replace(
    PASSING,
    command="",
    remap=remap(
        head(
            (1, 2),
            4,
            mode="zero",
            new_units=4,
            new_to_old=(0, 1, 2, 3),
            labels=("a", "b|c", "<d> [e]", "f"),
        )
    ),
    artifacts=PASSING.artifacts[:1],
    checks=PASSING.checks[:1],
    latency=(),
    warnings=("removed units still hold 0.31 of the probability on average",),
)

CONVERTED = replace(
    PASSING,
    command="exporter convert net.keras -o net.onnx",
    remap=None,
    artifacts=(Artifact("net.onnx", "onnx", "fp32", 14_123_456, SHA, "tf2onnx"),),
    checks=PASSING.checks[4:5],
    latency=(),
)

NONES = Report(
    versions={},
    machine={},
    command="",
    inputs={},
    original=Original("live model", "keras", "fp32", None, None),
    remap=remap(head((0,), 2)),
    artifacts=(Artifact("small.onnx", "onnx", "fp32", 512, SHA, ""),),
    checks=(check("sqnr_db", None, None, stage="quantize", output=""),),
    memory=(
        Memory("small.onnx", "onnxruntime", 4_000_000, 1_000_000),
        Memory(
            "same.onnx",
            "onnxruntime",
            4_000_000,
            3_900_000,
            original_anonymous_bytes=3_000_000,
            anonymous_bytes=2_900_000,
            original_mapped_bytes=1_000_000,
            mapped_bytes=1_000_000,
            original_peak_bytes=5_000_000,
            peak_bytes=4_900_000,
            noise_bytes=200_000,
            verdict="no measurable change",
        ),
    ),
)

MEASURED = replace(
    CONVERTED,
    command="exporter verify net.onnx small.onnx --data x.npz --min-accuracy 0.9 --max-drop 0.01",
    inputs={"source": "x.npz", "samples": 60},
    checks=(
        check("accuracy", 0.875, 0.9, stage="quality", passed=False),
        check("drop", 0.025, 0.01, stage="quality", passed=False),
        check("drop", 0.0, 0.01, stage="quality", output="other"),
    ),
    quality=(
        Quality(
            artifact="small.onnx",
            task="classes",
            measure="accuracy",
            classes="kept",
            samples=40,
            original=0.85,
            original_ci95=(0.709, 0.929),
            original_kept=0.9,
            original_kept_ci95=(0.769, 0.96),
            value=0.875,
            ci95=(0.739, 0.945),
            drop=0.025,
            drop_ci95=(-0.025, 0.1),
        ),
        Quality("small.onnx", "classes", "accuracy", "removed", 0),
        Quality("small.onnx", "classes", "macro_f1", "all", 60, 0.8, None, value=0.5, drop=0.3),
    ),
)

RECORDS = {
    "measured": MEASURED,
    "passing": PASSING,
    "failing": FAILING,
    "zero": ZERO,
    "converted": CONVERTED,
    "nones": NONES,
}

# --- expected output ----------------------------------------------------------------------------

MARKDOWN: dict[str, str] = {}
TERMINAL: dict[str, str] = {}

MARKDOWN["passing"] = """\
# 3 of 10 units kept: fp32 matches the original on 16 samples (5 checks passed)

## Original

net.keras (keras, fp32, 14.6 MB, SHA-256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef).

## Artifacts

| File | Kind | Precision | Size | Change | Route |
| --- | --- | --- | ---: | ---: | --- |
| `pruned.fp32.onnx` | onnx | fp32 | 14.1 MB -> 9.01 MB | -36.2 % | tf2onnx |
| `pruned.fp32.tflite` | tflite | fp32 | 1.00 MB -> 1.00 MB | 0.0 % | - |

Size before -> after; before: the uncut file of the same kind. 1 kB = 1000 bytes.

## Checks

| File | Stage | Passed | Nearest to its limit | Result |
| --- | --- | ---: | --- | --- |
| `pruned.fp32.onnx` | cut | 3 of 3 | max_abs 1.2e-07 <= 1.0e-06 | passed |
| `pruned.fp32.onnx` | export | 1 of 1 | max_abs 4.2e-05 <= 1.0e-04 | passed |
| `pruned.fp32.tflite` | cut | 1 of 1 | max_abs 0 <= 1.0e-06 | passed |

### pruned.fp32.onnx: cut, against the original, in the same runtime

| Output | Metric | Value | Limit | Samples | Result |
| --- | --- | ---: | ---: | ---: | --- |
| `scores (z)` | max_abs | 1.2e-07 | <= 1.0e-06 | 16 | passed |
| `scores` | rmse | 2.3e-08 | - | 16 | no limit |
| `scores` | max_abs | 6.0e-08 | <= 1.0e-06 | 16 | passed |
| `scores` | top1 | 1 | >= 1 | 16 | passed |

### pruned.fp32.onnx: export, against the model before its conversion

| Output | Metric | Value | Limit | Samples | Result |
| --- | --- | ---: | ---: | ---: | --- |
| `scores` | max_abs | 4.2e-05 | <= 1.0e-04 | 16 | passed |

### pruned.fp32.tflite: cut, against the original, in the same runtime

| Output | Metric | Value | Limit | Samples | Result |
| --- | --- | ---: | ---: | ---: | --- |
| `scores` | max_abs | 0 | <= 1.0e-06 | 16 | passed |

## Latency

| File | Engine | p50 | CPU | p90 | p99 | Load | Speed-up [95 %] | Noise floor | Verdict |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
| `pruned.fp32.onnx` | onnxruntime, 1 thread, batch 1 | 0.83 -> 0.80 ms | - | 0.91 ms | - | 104 -> 12.3 ms | 1.04x \\[1.00, 1.06\\] | +/- 0.0153 | no measurable change |
| `pruned.fp32.tflite` | LiteRT, 2 threads, batch 8 | 23.1 -> 0.012 ms | 21.0 -> 0.012 ms | 31.2 -> 0.013 ms | 44.5 -> 0.022 ms | 10.0 -> 1.00 ms | 15.2x \\[14.9, 15.6\\] | +/- 0.004 | faster |

Changes below 5 % cannot be seen in this run. Other processes interrupted 180 of 200 rounds, so CPU times are compared.

Times of one run, before -> after; p90 and p99 are percentiles of single runs. Speed-up: interquartile mean of 200 paired ratios, original / pruned, with its 95 % bootstrap interval over 12 loads. Noise floor: half-width of that interval when the original is timed against itself.

## Remap of scores

3 of 10 units kept, mode slice, last activation softmax.

| New | Old | Label |
| ---: | ---: | --- |
| 0 | 3 | cat |
| 1 | 5 | dog |
| 2 | 9 | sea_lion |

## Inputs

16 synthetic samples (seed 0), not real data. They show whether outputs changed, not how accurate the model is.

## How to reproduce

```sh
exporter run net.keras -o out --keep 'cat,dog,sea_*'
```

Machine: Some CPU, 2 cores, 25.3 GB memory, Linux.

Versions: python 3.11.7, unit-exporter 0.1.0, numpy 2.4.6.
"""

MARKDOWN["failing"] = """\
# 3 of 4 checks failed. Do not use pruned.fp32.onnx.

## Failed checks

- pruned.fp32.onnx, cut, scores (z): max_abs is 0.25, limit 1.0e-06 (16 samples)
- pruned.fp32.onnx, cut, scores: top1 is 0.99996, limit 1 (16 samples)
- pruned.fp32.onnx, export, scores: the shape is not the expected one

## Original

net.keras (keras, fp32, 14.6 MB, SHA-256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef).

## Artifacts

| File | Kind | Precision | Size | Change | Route |
| --- | --- | --- | ---: | ---: | --- |
| `pruned.fp32.onnx` | onnx | fp32 | 14.1 MB -> 9.01 MB | -36.2 % | tf2onnx |

Size before -> after; before: the uncut file of the same kind. 1 kB = 1000 bytes.

## Checks

| File | Stage | Passed | Nearest to its limit | Result |
| --- | --- | ---: | --- | --- |
| `pruned.fp32.onnx` | cut | 1 of 3 | max_abs 0.25 <= 1.0e-06 | **FAILED** |
| `pruned.fp32.onnx` | export | 0 of 1 | shape | **FAILED** |

### pruned.fp32.onnx: cut, against the original, in the same runtime

| Output | Metric | Value | Limit | Samples | Result |
| --- | --- | ---: | ---: | ---: | --- |
| `scores (z)` | max_abs | 0.25 | <= 1.0e-06 | 16 | **FAILED** |
| `scores` | top1 | 0.99996 | >= 1 | 16 | **FAILED** |
| `scores` | max_abs | 6.0e-08 | <= 1.0e-06 | 16 | passed |

### pruned.fp32.onnx: export, against the model before its conversion

| Output | Metric | Value | Limit | Samples | Result |
| --- | --- | ---: | ---: | ---: | --- |
| `scores` | shape | - | - | 16 | **FAILED** |

## Remap of scores

3 of 10 units kept, mode slice, last activation softmax.

| New | Old | Label |
| ---: | ---: | --- |
| 0 | 3 | cat |
| 1 | 5 | dog |
| 2 | 9 | sea_lion |

## Inputs

32 samples from digits.npz.

## Warnings

- 1 of 3 kept units was never the first on any of the 32 samples that were given.

## How to reproduce

```sh
exporter run net.keras -o out --keep 'cat,dog,sea_*'
```

Machine: Some CPU, 2 cores, 25.3 GB memory, Linux.

Versions: python 3.11.7, unit-exporter 0.1.0, numpy 2.4.6.
"""

MARKDOWN["zero"] = """\
# 2 of 4 units kept: fp32 matches the output that mode zero defines on 16 samples (1 check passed)

## Original

net.keras (keras, fp32, 14.6 MB, SHA-256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef).

## Artifacts

| File | Kind | Precision | Size | Change | Route |
| --- | --- | --- | ---: | ---: | --- |
| `pruned.fp32.onnx` | onnx | fp32 | 14.1 MB -> 9.01 MB | -36.2 % | tf2onnx |

Size before -> after; before: the uncut file of the same kind. 1 kB = 1000 bytes.

## Checks

| File | Stage | Passed | Nearest to its limit | Result |
| --- | --- | ---: | --- | --- |
| `pruned.fp32.onnx` | cut | 1 of 1 | max_abs 1.2e-07 <= 1.0e-06 | passed |

### pruned.fp32.onnx: cut, against the original, in the same runtime

| Output | Metric | Value | Limit | Samples | Result |
| --- | --- | ---: | ---: | ---: | --- |
| `scores (z)` | max_abs | 1.2e-07 | <= 1.0e-06 | 16 | passed |

## Remap of scores

2 of 4 units kept, mode zero, last activation softmax.

| New | Old | Label |
| ---: | ---: | --- |
| 1 | 1 | b\\|c |
| 2 | 2 | \\<d> \\[e\\] |

Every unit keeps its index; the output of the 2 removed units is as mode zero defines.

## Inputs

16 synthetic samples (seed 0), not real data. They show whether outputs changed, not how accurate the model is.

## Warnings

- removed units still hold 0.31 of the probability on average

## How to reproduce

The job was started from Python.

Machine: Some CPU, 2 cores, 25.3 GB memory, Linux.

Versions: python 3.11.7, unit-exporter 0.1.0, numpy 2.4.6.
"""

MARKDOWN["converted"] = """\
# net.keras, no units removed: matches the original on 16 samples (1 check passed)

## Original

net.keras (keras, fp32, 14.6 MB, SHA-256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef).

## Artifacts

| File | Kind | Precision | Size | Route |
| --- | --- | --- | ---: | --- |
| `net.onnx` | onnx | fp32 | 14.1 MB | tf2onnx |

Size before -> after; before: the uncut file of the same kind. 1 kB = 1000 bytes.

## Checks

| File | Stage | Passed | Nearest to its limit | Result |
| --- | --- | ---: | --- | --- |
| `pruned.fp32.onnx` | export | 1 of 1 | max_abs 4.2e-05 <= 1.0e-04 | passed |

### pruned.fp32.onnx: export, against the model before its conversion

| Output | Metric | Value | Limit | Samples | Result |
| --- | --- | ---: | ---: | ---: | --- |
| `scores` | max_abs | 4.2e-05 | <= 1.0e-04 | 16 | passed |

## Inputs

16 synthetic samples (seed 0), not real data. They show whether outputs changed, not how accurate the model is.

## How to reproduce

```sh
exporter convert net.keras -o net.onnx
```

Machine: Some CPU, 2 cores, 25.3 GB memory, Linux.

Versions: python 3.11.7, unit-exporter 0.1.0, numpy 2.4.6.
"""

MARKDOWN["nones"] = """\
# 1 of 2 units kept: not verified

## Original

live model (keras, fp32).

## Artifacts

| File | Kind | Precision | Size |
| --- | --- | --- | ---: |
| `small.onnx` | onnx | fp32 | 512 B |

Size before -> after; before: the uncut file of the same kind. 1 kB = 1000 bytes.

## Checks

| File | Stage | Result |
| --- | --- | --- |
| `pruned.fp32.onnx` | quantize | no limit |

### pruned.fp32.onnx: quantize, against the model before it was quantized

| Output | Metric | Value | Limit | Samples | Result |
| --- | --- | ---: | ---: | ---: | --- |
| - | sqnr_db | - | - | 16 | no limit |

## Memory when loaded

| File | Engine | Resident | Change | Anonymous | Mapped | Peak | Noise |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
| `small.onnx` | onnxruntime | 4.00 MB -> 1.00 MB | -75.0 % | - | - | - | - |
| `same.onnx` | onnxruntime | 4.00 MB -> 3.90 MB | no measurable change | 3.00 MB -> 2.90 MB | 1.00 MB -> 1.00 MB | 5.00 MB -> 4.90 MB | 200 kB |

Resident: how many bytes a process grows by when it loads the file into its runtime and runs it once, before -> after; the median of a few processes. Anonymous: the part that it allocates. Mapped: the part that it maps from files. Peak: the most while loading and running. Noise: the largest difference between processes with the same file; a smaller change is not measurable.

## Remap of scores

1 of 2 units kept, mode slice, last activation softmax.

| New | Old |
| ---: | ---: |
| 0 | 0 |

## Inputs

No model was run.

## How to reproduce

The job was started from Python.

Machine: unknown.

Versions: unknown.
"""

TERMINAL["passing"] = """\
3 of 10 units kept: fp32 matches the original on 16 samples (5 checks passed)

Artifacts           Precision                Size   Change  Route
pruned.fp32.onnx    fp32       14.1 MB -> 9.01 MB  -36.2 %  tf2onnx
pruned.fp32.tflite  fp32       1.00 MB -> 1.00 MB    0.0 %  -

Checks              Stage   Passed  Nearest to its limit        Result
pruned.fp32.onnx    cut     3 of 3  max_abs 1.2e-07 <= 1.0e-06  passed
pruned.fp32.onnx    export  1 of 1  max_abs 4.2e-05 <= 1.0e-04  passed
pruned.fp32.tflite  cut     1 of 1  max_abs 0 <= 1.0e-06        passed

Latency                          p50     Speed-up [95 %]  Verdict
pruned.fp32.onnx     0.83 -> 0.80 ms  1.04x [1.00, 1.06]  no measurable change
pruned.fp32.tflite  23.1 -> 0.012 ms  15.2x [14.9, 15.6]  faster
Changes below 5 % cannot be seen in this run. CPU time: 21.0 -> 0.012 ms. Other
processes interrupted 180 of 200 rounds, so CPU times are compared.

Remap of scores
New  Old  Label
  0    3  cat
  1    5  dog
  2    9  sea_lion

Inputs  16 synthetic samples (seed 0), not real data. They show whether outputs
        changed, not how accurate the model is.
"""

TERMINAL["failing"] = """\
3 of 4 checks failed. Do not use pruned.fp32.onnx.

Artifacts         Precision                Size   Change  Route
pruned.fp32.onnx  fp32       14.1 MB -> 9.01 MB  -36.2 %  tf2onnx

Checks            Stage   Passed  Nearest to its limit     Result
pruned.fp32.onnx  cut     1 of 3  max_abs 0.25 <= 1.0e-06  FAILED
pruned.fp32.onnx  export  0 of 1  shape                    FAILED

Remap of scores
New  Old  Label
  0    3  cat
  1    5  dog
  2    9  sea_lion

Inputs         32 samples from digits.npz.
Warnings       1 of 3 kept units was never the first on any of the 32 samples
               that were given.
Failed checks  pruned.fp32.onnx, cut, scores (z): max_abs is 0.25, limit 1.0e-06
               (16 samples)
               pruned.fp32.onnx, cut, scores: top1 is 0.99996, limit 1 (16
               samples)
               pruned.fp32.onnx, export, scores: the shape is not the expected
               one
"""

TERMINAL["zero"] = """\
2 of 4 units kept: fp32 matches the output that mode zero defines on 16 samples
(1 check passed)

Artifacts         Precision                Size   Change  Route
pruned.fp32.onnx  fp32       14.1 MB -> 9.01 MB  -36.2 %  tf2onnx

Checks            Stage  Passed  Nearest to its limit        Result
pruned.fp32.onnx  cut    1 of 1  max_abs 1.2e-07 <= 1.0e-06  passed

Remap of scores
New  Old  Label
  1    1  b|c
  2    2  <d> [e]
Every unit keeps its index; the output of the 2 removed units is as mode zero
defines.

Inputs    16 synthetic samples (seed 0), not real data. They show whether
          outputs changed, not how accurate the model is.
Warnings  removed units still hold 0.31 of the probability on average
"""

TERMINAL["converted"] = """\
net.keras, no units removed: matches the original on 16 samples (1 check passed)

Artifacts  Precision     Size  Route
net.onnx   fp32       14.1 MB  tf2onnx

Checks            Stage   Passed  Nearest to its limit        Result
pruned.fp32.onnx  export  1 of 1  max_abs 4.2e-05 <= 1.0e-04  passed

Inputs  16 synthetic samples (seed 0), not real data. They show whether outputs
        changed, not how accurate the model is.
"""

TERMINAL["nones"] = """\
1 of 2 units kept: not verified

Artifacts   Precision   Size
small.onnx  fp32       512 B

Checks            Stage     Result
pruned.fp32.onnx  quantize  no limit

Memory when loaded            Resident                Change
small.onnx          4.00 MB -> 1.00 MB               -75.0 %
same.onnx           4.00 MB -> 3.90 MB  no measurable change

Remap of scores
New  Old
  0    0

Inputs  No model was run.
"""

MARKDOWN["measured"] = """\
# 2 of 3 checks failed. Do not use pruned.fp32.onnx.

## Failed checks

- pruned.fp32.onnx, quality, scores: accuracy is 0.875, limit 0.9 (16 samples)
- pruned.fp32.onnx, quality, scores: drop is 0.025, limit 0.01 (16 samples)

## Original

net.keras (keras, fp32, 14.6 MB, SHA-256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef).

## Artifacts

| File | Kind | Precision | Size | Route |
| --- | --- | --- | ---: | --- |
| `net.onnx` | onnx | fp32 | 14.1 MB | tf2onnx |

Size before -> after; before: the uncut file of the same kind. 1 kB = 1000 bytes.

## Task quality

| File | Measure | Classes | Samples | Original [95 %] | Original, kept units only [95 %] | Before -> after | After [95 %] | Drop [95 %] |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
| `small.onnx` | accuracy | kept | 40 | 85.0 % \\[70.9, 92.9\\] | 90.0 % \\[76.9, 96.0\\] | 90.0 % -> 87.5 % | 87.5 % \\[73.9, 94.5\\] | 2.5 \\[-2.5, 10.0\\] |
| `small.onnx` | accuracy | removed | 0 | - | - | - -> - | - | - |
| `small.onnx` | macro F1 | all | 60 | 80.0 % | - | 80.0 % -> 50.0 % | 50.0 % | 30.0 |

Before -> after: on samples of kept classes, the original restricted to the kept units; on other samples, the original over all its units. A file cannot name a removed class. Drop: in percentage points, with the interval of a paired comparison. All intervals are 95 %.

## Checks

| File | Stage | Passed | Nearest to its limit | Result |
| --- | --- | ---: | --- | --- |
| `pruned.fp32.onnx` | quality | 1 of 3 | drop 0.025 <= 0.01 | **FAILED** |

### pruned.fp32.onnx: task quality, on labeled samples of kept classes

| Output | Metric | Value | Limit | Samples | Result |
| --- | --- | ---: | ---: | ---: | --- |
| `scores` | accuracy | 0.875 | >= 0.9 | 16 | **FAILED** |
| `scores` | drop | 0.025 | <= 0.01 | 16 | **FAILED** |
| `other` | drop | 0 | <= 0.01 | 16 | passed |

## Inputs

60 samples from x.npz.

## How to reproduce

```sh
exporter verify net.onnx small.onnx --data x.npz --min-accuracy 0.9 --max-drop 0.01
```

Machine: Some CPU, 2 cores, 25.3 GB memory, Linux.

Versions: python 3.11.7, unit-exporter 0.1.0, numpy 2.4.6.
"""

TERMINAL["measured"] = """\
2 of 3 checks failed. Do not use pruned.fp32.onnx.

Artifacts  Precision     Size  Route
net.onnx   fp32       14.1 MB  tf2onnx

Task quality  Measure   Classes  Samples   Before -> after       Drop [95 %]
small.onnx    accuracy  kept          40  90.0 % -> 87.5 %  2.5 [-2.5, 10.0]
small.onnx    accuracy  removed        0            - -> -                 -

Checks            Stage    Passed  Nearest to its limit  Result
pruned.fp32.onnx  quality  1 of 3  drop 0.025 <= 0.01    FAILED

Inputs         60 samples from x.npz.
Failed checks  pruned.fp32.onnx, quality, scores: accuracy is 0.875, limit 0.9
               (16 samples)
               pruned.fp32.onnx, quality, scores: drop is 0.025, limit 0.01 (16
               samples)
"""

VARIANTS = """\
1 of 2 variants failed a check. Do not use: none

Variant     Kept  Checks        onnx fp32    tflite fp32
pets     3 of 10  5 of 5  9.01 MB -36.2 %  1.00 MB 0.0 %
none     3 of 10  1 of 4  9.01 MB -36.2 %              -

Warnings       none: 1 of 3 kept units was never the first on any of the 32
               samples that were given.
Failed checks  none: pruned.fp32.onnx, cut, scores (z): max_abs is 0.25, limit
               1.0e-06 (16 samples)
               none: pruned.fp32.onnx, cut, scores: top1 is 0.99996, limit 1 (16
               samples)
               none: pruned.fp32.onnx, export, scores: the shape is not the
               expected one
"""

UNVERIFIED = """\
1 of 2 variants not verified: [bold]all

Variant       Kept  Checks  onnx fp32  tflite fp32  onnx fp16
pets       3 of 10  5 of 5    9.01 MB      1.00 MB    9.01 MB
[bold]all        -    none    9.01 MB      1.00 MB          -
"""
