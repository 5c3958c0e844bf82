"""Compare and time two models as a job asks for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from exporter.data.samples import Samples
from exporter.errors import ModelError
from exporter.formats.model import Model
from exporter.jobs.options import Job
from exporter.performance.latency import BenchOptions, bench_models
from exporter.performance.memory import Sides, measure_memory
from exporter.quantization.quantize import is_coarser
from exporter.records import Check, Latency, Memory
from exporter.remap import HeadRemap
from exporter.verification import Stage, VerifyOptions, verify_pair
from exporter.verification.gate_masks import with_masks

NO_INPUTS = Samples({}, "")  # where nothing is run


@dataclass(frozen=True, eq=False)
class CheckResults:
    """What one or more comparisons found."""

    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()

    def __add__(self, other: CheckResults) -> CheckResults:
        return CheckResults(self.checks + other.checks, self.warnings + other.warnings)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def compare_models(
    job: Job, original: Model, pruned: Model, inputs: Samples, tables: tuple[HeadRemap, ...]
) -> CheckResults:
    """Compare at the stage that the two models tell.

    Args:
        tables: how each head was cut, in the pruned model's remap.
    """
    stage = _stage(original, pruned)
    job.progress(f"checking {pruned.name} ({stage})")
    options = VerifyOptions(inputs, job.run_options, job.tolerance)
    done = verify_pair(stage, original, pruned, tables, options)
    warnings: tuple[str, ...] = ()
    if done.zeroed_share is not None:
        share = f"{done.zeroed_share:.1%}"
        warnings = (f"the zeroed units still hold {share} of the probability on these inputs",)
    return CheckResults(done.checks, warnings)


def _stage(original: Model, pruned: Model) -> Stage:
    """*Quantize* from float to what is coarser; else *cut* within a kind, and *export* beyond."""
    if is_coarser(pruned, original):
        return "quantize"
    return "cut" if original.kind == pruned.kind else "export"


@dataclass(frozen=True, eq=False)
class Measures:
    """What a model costs beside its original."""

    latency: tuple[Latency, ...] = ()
    memory: tuple[Memory, ...] = ()
    warnings: tuple[str, ...] = ()


def measure_models(job: Job, sides: Sides, inputs: Samples) -> Measures:
    """Time two models of one kind, and measure their memory; files that run are not in doubt here.

    Args:
        sides: the original, and the pruned model, each with its file.
    """
    (original, _), (pruned, _) = sides
    job.progress(f"timing {pruned.name}")
    tables = pruned.remap.heads if pruned.remap else ()
    feeds = list(with_masks(inputs, pruned.graph(), tables)[0].feeds())
    row = bench_models(original, pruned, feeds, BenchOptions(job.run_options, seed=job.seed))
    job.progress(f"measuring the memory of {pruned.name}")
    try:
        memory = measure_memory(sides, feeds[0], job.threads, row.engine)
    except ModelError as error:  # such as a machine that has no room for it: the rest is not lost
        return Measures((row,), (), (error.message,))
    return Measures((row,), (memory,))


def _named(results: CheckResults, out: Path) -> tuple[Check, ...]:
    """The checks under the name that the file gets."""
    return tuple(replace(check, artifact=out.name) for check in results.checks)
