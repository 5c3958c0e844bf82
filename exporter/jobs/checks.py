"""Compare, time and measure an original and a new model with the options of a job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporter.data.samples import Samples
from exporter.errors import ModelError, interpreting
from exporter.formats import KINDS, size_bytes
from exporter.formats.model import Model
from exporter.jobs.job import Job
from exporter.performance.resources import resource_checks
from exporter.quantization import FLOAT
from exporter.records import (
    Artifact,
    BoxPicture,
    Check,
    Confusion,
    Coverage,
    Device,
    FirstDifference,
    Latency,
    Memory,
    Proof,
    Quality,
    Trimmed,
    UnitAgreement,
    WorstCase,
    WorstSample,
)
from exporter.remap import HeadRemap, Remap

if TYPE_CHECKING:
    from exporter.devices.device import Feeds
    from exporter.devices.fleet import Fleet
    from exporter.performance.memory import ModelFile, Originals
    from exporter.verification.answers import KnownAnswers
    from exporter.verification.roles import Stage

_BENCH_BYTES = 64 << 20  # of inputs to time on
NO_INPUTS = Samples({}, "")  # for a job that runs no model


@dataclass(frozen=True, eq=False)
class CheckResults:
    """The checks, measurements and warnings of one or more comparisons; `+` joins two of them."""

    checks: tuple[Check, ...] = ()
    latency: tuple[Latency, ...] = ()
    memory: tuple[Memory, ...] = ()
    warnings: tuple[str, ...] = ()
    quality: tuple[Quality, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    worst: tuple[WorstCase, ...] = ()
    first_differences: tuple[FirstDifference, ...] = ()
    devices: tuple[Device, ...] = ()
    agreement: tuple[UnitAgreement, ...] = ()
    trimmed: tuple[Trimmed, ...] = ()
    worst_samples: tuple[WorstSample, ...] = ()
    box_pictures: tuple[BoxPicture, ...] = ()
    confusions: tuple[Confusion, ...] = ()

    def __add__(self, other: CheckResults) -> CheckResults:
        return CheckResults(**{name: rows + vars(other)[name] for name, rows in vars(self).items()})

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @classmethod
    def warn(cls, *warnings: str) -> CheckResults:
        """Results that contain only warnings."""
        return cls(warnings=warnings)

    def with_resources(self, job: Job, artifacts: Iterable[Artifact]) -> CheckResults:
        """The same results with the checks of the user's limits on each model file."""
        checks = [
            check
            for artifact in artifacts
            if artifact.kind in KINDS
            for check in resource_checks(job.most, artifact, self.latency, self.memory)
        ]
        return replace(self, checks=(*self.checks, *checks))

    def on_device(self, name: str) -> CheckResults:
        """The same results with every check under the name of the device."""
        return replace(self, checks=tuple(replace(check, device=name) for check in self.checks))

    def for_artifact(self, name: str) -> CheckResults:
        """The same results with every check under the name of the written file."""
        return replace(
            self,
            checks=tuple(replace(check, artifact=name) for check in self.checks),
            quality=tuple(replace(row, artifact=name) for row in self.quality),
            worst=tuple(replace(case, artifact=name) for case in self.worst),
            agreement=tuple(replace(row, artifact=name) for row in self.agreement),
            trimmed=tuple(replace(row, artifact=name) for row in self.trimmed),
            worst_samples=tuple(
                replace(row, case=replace(row.case, artifact=name)) for row in self.worst_samples
            ),
            box_pictures=tuple(replace(row, artifact=name) for row in self.box_pictures),
            confusions=tuple(replace(row, artifact=name) for row in self.confusions),
        )


def compare_models(  # noqa: PLR0917 - two models, how they were cut, and what is known
    job: Job,
    original: Model,
    pruned: Model,
    inputs: Samples,
    tables: tuple[HeadRemap, ...],
    known: KnownAnswers | None = None,
) -> CheckResults:
    """Compare two models; an empty result if the job does not verify.

    Args:
        job: its `quantized_to` is the precision that the pruned model was quantized to, if it was.
        tables: how each head was cut, from the remap of the pruned model.
        known: answers of originals to the same inputs, from other comparisons.
    """
    if not job.verify:
        return CheckResults()
    from exporter.verification.answers import KnownAnswers
    from exporter.verification.batch import batch_check
    from exporter.verification.bisect import first_difference
    from exporter.verification.limits import UserLimits
    from exporter.verification.roles import ModelPair
    from exporter.verification.verify import VerifyOptions, verify_pair

    stage = _stage(job, original, pruned)
    job.progress(f"checking {pruned.name} ({stage})")
    limits = UserLimits(job.tolerance, job.least)
    options = VerifyOptions(
        inputs, job.run_options, limits, job.quantized_to or FLOAT, known or KnownAnswers()
    )
    with interpreting(f"comparing {pruned.name} with {original.name}"):
        verification = verify_pair(stage, original, pruned, tables, options)
        batch = batch_check(stage, original, pruned, tables, options)
    worst = _save_worst(job, _named(verification.worst, inputs), inputs)
    # As for the structure, only a failure is a check of its own: not every file has an open batch.
    checks = (*verification.checks, *([batch] if batch and not batch.passed else ()))
    results = CheckResults(
        checks,
        coverage=verification.coverage,
        worst=worst,
        agreement=verification.agreement,
        confusions=verification.confusions,
        worst_samples=tuple(_with_inputs(job, verification.worst_sample, inputs)),
    )
    if job.bisect and worst:
        job.progress(f"looking for the first tensor that differs in {pruned.name}")
        pair = ModelPair(stage, original, pruned)
        found = first_difference(pair, tables, worst[0].sample, options)
        found = replace(found, sample_name=worst[0].sample_name)
        results += CheckResults(first_differences=(found,))
    if (share := verification.zeroed_share) is None:
        return results
    return results + CheckResults.warn(
        f"the zeroed units still hold {share:.1%} of the probability on these inputs"
    )


def _with_inputs(job: Job, found: WorstSample | None, inputs: Samples) -> Iterator[WorstSample]:
    """The sample with previews of its inputs, for the page."""
    if found is None:
        return
    (case,) = _named([found.case], inputs)
    if job.plots:
        from exporter.data.preview import preview_inputs

        found = replace(found, inputs=preview_inputs(inputs, case.sample))
    yield replace(found, case=case)


def _named(cases: Iterable[WorstCase], inputs: Samples) -> tuple[WorstCase, ...]:
    """The cases with the files of their samples."""
    return tuple(replace(each, sample_name=inputs.name_of(each.sample)) for each in cases)


def _save_worst(job: Job, cases: tuple[WorstCase, ...], inputs: Samples) -> tuple[WorstCase, ...]:
    """The cases of failed checks; the input of the first is saved if the job says where."""
    if not cases or job.save_worst is None:
        return cases
    from exporter.jobs.save_worst import save_input

    save_input(inputs, cases[0].sample, job.save_worst)
    file, command = str(job.save_worst), job.replay(job.save_worst)
    return tuple(
        replace(case, file=file, command=command) if case.sample == cases[0].sample else case
        for case in cases
    )


def prove_cut(
    job: Job,
    original: Model,
    pruned: Model,
    remap: Remap | None,
    recovered: Remap | None = None,
) -> tuple[Proof | None, CheckResults]:
    """Compare the structure of a file with the cut of its original; None if the job verifies not.

    Args:
        remap: in the pruned file, or next to it; None if it was not cut.
        recovered: what the weights show if there is no remap.

    Returns:
        The proof, and a failed check if the file is different.
    """
    if not job.verify:
        return None, CheckResults()
    from exporter.proof.prove import prove

    with interpreting(f"comparing the structure of {pruned.name}"):
        proof = prove(original, pruned, remap, quantized=_is_quantized(job), recovered=recovered)
    if proof.result != "different":
        return proof, CheckResults()
    different = Check.of_fact("cut", pruned.name, "structure", False, proof.reason)
    return proof, CheckResults((different,))


def probe_head(
    job: Job, original: Model, pruned: Model, remap: Remap | None, proof: Proof | None
) -> tuple[Proof | None, CheckResults]:
    """The proof, with the result of a probe of the head if the file is a cut of this original.

    Args:
        proof: of the structure.
    """
    if proof is None or remap is None or original.kind != pruned.kind:
        return proof, CheckResults()
    if _is_quantized(job):
        return replace(proof, probe="not possible: it was quantized after the cut"), CheckResults()
    from exporter.proof.probe import probe

    job.progress(f"probing the head of {pruned.name}")
    with interpreting(f"probing the head of {pruned.name}"):
        found = probe(original, pruned, remap.heads)
    checks = [Check.of_fact("cut", pruned.name, "probe", False, text) for text in found.failures]
    return replace(proof, probe=found.text), CheckResults(tuple(checks))


def _is_quantized(job: Job) -> bool:
    """The job states whether the model was quantized: how it looks must not choose its limits."""
    return job.quantized_to not in {None, FLOAT}


def _stage(job: Job, original: Model, pruned: Model) -> Stage:
    if _is_quantized(job):
        return "quantize"
    return "cut" if original.kind == pruned.kind else "export"


def measure_models(  # noqa: PLR0917 - two files, and what is known
    job: Job,
    original: ModelFile,
    pruned: ModelFile,
    inputs: Samples,
    known: Originals | None = None,
    fleet: Fleet | None = None,
) -> CheckResults:
    """Time two model files of one kind and measure their memory; empty if the job does not bench.

    Args:
        known: see `measure_memory`.
        fleet: measure on its devices instead of this machine, if it has any.

    A runtime that has no room for the memory measurement gives a warning, not an error: the
    timings are kept.
    """
    if not job.bench:
        return CheckResults()
    from exporter.performance.latency import bench_models
    from exporter.performance.memory import measure_memory
    from exporter.verification.token_ids import pair_inputs

    model = pruned.model
    tables = model.remap.heads if model.remap else ()
    few = inputs.within(_BENCH_BYTES)  # they are held in memory
    # The original takes the ids of a cut vocabulary too: they are lower than its own.
    feeds = list(pair_inputs(few, original.model, model, tables).cut.feeds())
    if fleet:
        return _measure_on(fleet, job, original, pruned, feeds)
    job.progress(f"timing {model.name}")
    latency = bench_models(original.model, model, feeds, job.bench_options, progress=job.progress)
    job.progress(f"measuring the memory of {model.name}")
    try:
        memory = measure_memory(
            original, pruned, feeds[0], job.run_options, latency.engine, known=known
        )
    except ModelError as error:
        return CheckResults(latency=(latency,), warnings=(error.message,))
    return CheckResults(latency=(latency,), memory=(memory,))


def _measure_on(
    fleet: Fleet, job: Job, original: ModelFile, pruned: ModelFile, feeds: Feeds
) -> CheckResults:
    """`measure_models` on each device."""
    kind, files = pruned.model.kind, (original, pruned)
    needed = sum(size_bytes(file.path) for file in files)
    results = CheckResults()
    for device in fleet.devices((kind,), needed):
        found = device.measure(files, feeds, job.bench_options, job.progress)
        memory = () if found.memory is None else (found.memory,)
        results += CheckResults(
            latency=(found.latency,),
            memory=memory,
            warnings=found.warnings,
            devices=(device.facts(),),
        )
    return results
