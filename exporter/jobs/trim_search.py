"""Find the trimmed network that the options ask for, and say how good it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import ModelError, UsageError
from exporter.formats.model import Model, unit_labels
from exporter.graph import Array, Graph
from exporter.graph.multiply_adds import multiply_adds
from exporter.jobs.checks import CheckResults
from exporter.jobs.job import Job
from exporter.jobs.trim_options import TrimOptions
from exporter.records import TRIM_STAGE, Check, Interval, Trimmed
from exporter.trimming.allocate import Step
from exporter.trimming.network import with_measured_shapes
from exporter.trimming.outputs import Difference, Reference
from exporter.trimming.split import split_samples
from exporter.trimming.trimmer import FitOptions, Trimmer

_LEAST_SAMPLES = 8  # of each part
_RARE = 5  # samples
_SEARCHED = 32  # networks of the path that are tried at most, by bisection
_NAMED = 10  # units in one sentence
_RESAMPLES = 1000  # of an interval
_TIMED_BYTES = 1 << 24  # of the samples to time on
_NOTHING_REMOVED = "0 channels were removed: this is the network before trimming, unchanged"


@dataclass(frozen=True, eq=False)
class Measured:
    """One network of the path, and how it differs from the untrimmed one on held-out samples."""

    index: int
    step: Step
    difference: Difference

    @property
    def agreement(self) -> float:
        return self.difference.agreement or 0.0


@dataclass(eq=False)
class Search:
    """The networks of one path. Each is measured once; two of them at most are in memory.

    Args:
        base: with its head cut.
        samples: divided into those to calibrate on and those to measure on.

    Raises:
        UsageError: too few samples.
        ModelError: no channels can be removed, or outputs cannot be compared.
    """

    base: Model
    samples: Samples
    options: TrimOptions
    job: Job
    _known: dict[int, Measured] = field(default_factory=dict)
    _models: dict[str, tuple[int, Model]] = field(default_factory=dict)  # "last" and "best"

    def __post_init__(self) -> None:
        self.calibration, self.held_out = split_samples(self.samples, self.options.held_out)
        _check_counts(self.calibration, self.held_out)
        job, fit = self.job, FitOptions(self.options.multiple)
        self.trimmer = Trimmer(
            self.base, self.calibration, job.run_options, fit, job.progress, sized=self._whole
        )
        if not self.trimmer.channels.groups:
            raise ModelError(
                f"{self.base.name} has no channels that can be removed",
                "`exporter inspect MODEL --channels` shows why",
            )
        observed = self.trimmer.observed
        self.reference = Reference(self.base, observed, self.held_out, job.run_options)
        if not self.reference.is_finite:
            raise ModelError(
                f"{self.base.name} returns NaN or infinite values for some samples, with which "
                "no trimmed network can be compared",
                "leave those samples out, or correct the model",
            )

    # --- networks ---------------------------------------------------------------------------------

    @cached_property
    def steps(self) -> list[Step]:
        by = "parameters" if self.options.by == "parameters" else "multiply-adds"
        return self.trimmer.path(by)

    def at(self, index: int) -> Measured:
        """The network at a place of the path."""
        if index not in self._known:
            difference = self.reference.compare(self.model(index))
            self._known[index] = Measured(index, self.steps[index], difference)
        return self._known[index]

    def model(self, index: int) -> Model:
        """The last network that was built, the best one, or one that is built now."""
        for known, model in self._models.values():
            if known == index:
                return model
        step = self.steps[index]
        self.job.progress(f"trimming to {step.cost:.1%}")
        model = self.trimmer.build(step.widths)
        self._models["last"] = index, model
        return model

    def sized(self, model: Model) -> Graph:
        """The graph of a model, with the lengths that --input-shape gives to open dimensions."""
        if not self.job.lengths:
            return model.graph()
        return with_measured_shapes(model, self.calibration, self.job.run_options)

    @cached_property
    def _whole(self) -> Graph:
        return self.sized(self.base)

    # --- search -----------------------------------------------------------------------------------

    def find(self) -> Measured:
        """The network that the options ask for.

        Raises:
            UsageError: no network reaches the target, or the model shows no first unit.
            ModelError: the network returns NaN or infinite values.
        """
        options = self.options
        if options.min_agreement is not None:
            found = self._with_agreement(options.min_agreement)
        elif options.by == "latency":
            found = self._with_latency(options.target or 0.0)
        else:
            found = self.at(self.index_of(options.target or 0.0))
            if found.step.cost > (options.target or 0.0):
                raise _unreachable(f"{found.step.cost:.1%}", options.by)
        if not found.difference.is_finite:
            raise ModelError(
                f"{self.base.name} returns NaN or infinite values when it is trimmed so far",
                "trim it less: a larger --target",
            )
        return found

    def index_of(self, share: float) -> int:
        """The first network that costs no more; the last one if none does."""
        found = (i for i, step in enumerate(self.steps) if step.cost <= share)
        return next(found, len(self.steps) - 1)

    def _with_agreement(self, limit: float) -> Measured:
        """The smallest network with that agreement, if those before it have it."""
        if not self.trimmer.observed.firsts:
            raise UsageError("the model has no head whose first unit can agree", "give --target")
        low, _ = self._divide(lambda each: each.agreement >= limit)
        return self.at(low)

    def _with_latency(self, share: float) -> Measured:
        """The first network of the path that is fast enough."""
        from exporter.performance.latency import bench_models

        feeds = list(self.held_out.within(_TIMED_BYTES).feeds())
        shares: dict[int, float] = {0: 1.0}

        def is_slow(each: Measured) -> bool:
            model, job = self.model(each.index), self.job
            row = bench_models(self.base, model, feeds, job.bench_options, progress=job.progress)
            shares[each.index] = 1.0 / row.speedup
            return shares[each.index] > share

        if share >= 1.0:
            return self.at(0)
        low, high = self._divide(is_slow)
        if high is None:
            raise _unreachable(f"{shares[low]:.1%}", self.options.by)
        return self.at(high)

    def _divide(self, accepts: Callable[[Measured], bool]) -> tuple[int, int | None]:
        """Bisection: the last network that is accepted, and the next one, which is not.

        The whole network counts as accepted. None if the last network is accepted.
        """
        every = np.linspace(0, len(self.steps) - 1, min(_SEARCHED, len(self.steps)))
        indices = sorted(set(every.astype(int).tolist()))
        low, high = 0, len(indices)
        while high - low > 1:
            middle = (low + high) // 2
            index = indices[middle]
            if accepts(self.at(index)):
                low = middle
                self._models["best"] = index, self.model(index)
            else:
                high = middle
        return indices[low], indices[high] if high < len(indices) else None

    # --- the record -------------------------------------------------------------------------------

    def _row(self, found: Measured) -> Trimmed:
        """What the report says about a network."""
        trimmer, difference = self.trimmer, found.difference
        before, after = self._whole, self.sized(self.model(found.index))
        return Trimmed(
            artifact="",
            agreement=difference.agreement,
            agreement_ci95=_interval(difference),
            sqnr_db=difference.worst_sqnr_db,
            calibration_samples=self.calibration.count,
            held_out_samples=self.held_out.count,
            original_multiply_adds=multiply_adds(before),
            multiply_adds=multiply_adds(after),
            original_parameters=_parameters(before),
            parameters=_parameters(after),
            channels={
                group.name: f"{group.units} -> {found.step.widths[group.name]}"
                for group in trimmer.channels.groups
            },
            rarely_seen=self.rarely_seen,
            places=difference.places,
            not_limited=trimmer.observed.others,
        )

    def results(self, found: Measured) -> CheckResults:
        """The record, the checks and the warnings of a network."""
        checks, row = self._checks(found), self._row(found)
        return CheckResults(trimmed=(row,), checks=checks, warnings=self._warnings(found))

    def _checks(self, found: Measured) -> tuple[Check, ...]:
        """The agreement of each head, against the user's limit, and the SQNR of each output."""
        limit, samples = self.options.min_agreement, self.held_out.count
        source = "user" if limit is not None else ""
        difference, checks = found.difference, []
        for first in self.trimmer.observed.firsts:
            share = float(difference.shares[first.name].mean())
            passed = limit is None or share >= limit
            given = (TRIM_STAGE, "", first.tensor, "top1", share, limit, passed, samples)
            checks.append(Check(*given, limit_from=source))
        outputs = self.base.graph().outputs
        for name, value in difference.sqnr_db.items():
            shown = name if name in outputs else f"{name} (z)"
            checks.append(Check(TRIM_STAGE, "", shown, "sqnr_db", value, None, True, samples))
        return tuple(checks)

    def _warnings(self, found: Measured) -> tuple[str, ...]:
        units = _about_units(self.rarely_seen)
        whole = (_NOTHING_REMOVED,) if not found.index else ()
        return (*whole, *self._about_rows(), *units, *self._about_outputs(found))

    def _about_rows(self) -> list[str]:
        """The products that read more columns than the samples give rows."""
        rows = self.trimmer.rows
        fitted = (each for each in self.trimmer.products if each.node.name in rows)
        few = [each for each in fitted if rows[each.node.name] < each.design.columns]
        if not few:
            return []
        few.sort(key=lambda each: rows[each.node.name] / each.design.columns)
        named = [
            f"{rows[e.node.name]} rows for {e.design.columns} inputs of {e.node.name!r}"
            for e in few[:3]
        ]
        more = f" and as few for {len(few) - 3} other products" if len(few) > 3 else ""  # noqa: PLR2004
        samples = f"{self.calibration.count} calibration samples give {', '.join(named)}{more}"
        return [f"{samples}, so that these fits depend on their ridge: give more samples"]

    def _about_outputs(self, found: Measured) -> list[str]:
        others = [
            f"{name} ({found.difference.sqnr_db[name]:.1f} dB SQNR)"
            for name in self.trimmer.observed.others
        ]
        if not others or not self.trimmer.observed.firsts:
            return []
        return [
            "the agreement does not count outputs without units, and no limit is set for them: "
            + ", ".join(others)
        ]

    @cached_property
    def rarely_seen(self) -> tuple[str, ...]:
        """The units that come first in few calibration samples, by label if there is one."""
        trimmer = self.trimmer
        seen = Reference(self.base, trimmer.observed, self.calibration, self.job.run_options)
        if not trimmer.observed.firsts:
            return ()
        head = trimmer.observed.firsts[0].head
        labels = unit_labels(self.base, head)
        rare = np.flatnonzero(seen.counts[head.name] < _RARE)
        return tuple(labels[unit] if labels else str(unit) for unit in rare)


def _check_counts(calibration: Samples, held_out: Samples) -> None:
    if min(calibration.count, held_out.count) < _LEAST_SAMPLES:
        raise UsageError(
            f"{calibration.count} samples to calibrate on, and {held_out.count} held out, are too "
            "few",
            f"give at least {_LEAST_SAMPLES} different ones for each; some hundreds are usual",
        )


def _unreachable(share: str, by: str) -> UsageError:
    return UsageError(
        f"the narrowest network has {share} of the {by}",
        "give a larger --target, or a smaller --multiple",
    )


def _parameters(graph: Graph) -> int:
    return sum(
        prod(n or 0 for n in tensor.shape or ())
        for tensor in graph.tensors.values()
        if tensor.is_constant and tensor.dtype.startswith("float")
    )


def _interval(difference: Difference) -> Interval | None:
    """Of the agreement; the places of one sample count as one case. None without SciPy."""
    shares = difference.worst
    if shares is None:
        return None
    from exporter.evaluation import intervals

    def mean(drawn: Array) -> list[float]:
        return [float(shares[drawn].mean())]

    try:
        if difference.places == 1:
            return intervals.of_share(int(shares.sum()), len(shares))
        return intervals.bootstrap(mean, np.arange(len(shares)), _RESAMPLES)[0]
    except ImportError:
        return None


def _about_units(rare: tuple[str, ...]) -> list[str]:
    if not rare:
        return []
    names = ", ".join(rare[:_NAMED])
    more = f" and {len(rare) - _NAMED} more" if len(rare) > _NAMED else ""
    shown = f"fewer than {_RARE} calibration samples show each of {names}{more}"
    return [f"{shown}: what these units need may be removed"]
