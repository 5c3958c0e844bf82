"""A head that cannot be cut in the file that a converter wrote is cut in the source, before.

Converters take some layers apart in ways that no rule follows. Where the source still shows the
layer it is cut there, and converted once more. That is proved in two steps: the cut in the source's
own runtime, and the file beside the cut source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from exporter.data.samples import Samples
from exporter.errors import ExporterError, ModelError
from exporter.formats import KINDS
from exporter.formats.model import Model
from exporter.graph.edits import Plan
from exporter.jobs.checks import CheckResults, compare_models
from exporter.jobs.options import Job
from exporter.jobs.source import Source, Target
from exporter.planning.cut import Cut, CutOptions, plan_cut


@dataclass(frozen=True, eq=False)
class Precut:
    """A source that was cut before it is converted.

    Attributes:
        model: the cut one, of the source's kind.
        reason: why it could not be cut in the converted file.
    """

    source: Source
    model: Model
    cut: Cut
    reason: ExporterError

    def target(self, kind: str, folder: Path, job: Job) -> Target:
        """The cut model as another kind, with its remap inside (raises as `Source.target`)."""
        made = replace(self.source, model=self.model).target(kind, folder, job.progress, "cut")
        model = made.model.apply(Plan((), self.cut.remap))
        told = f"cut in {KINDS[self.model.kind].title}, then {made.route}"
        return replace(made, model=model, route=told)

    def results(self, job: Job, pruned: Model, inputs: Samples) -> CheckResults:
        """The checks of the cut, and of the file beside what was cut."""
        cut = compare_models(job, self.source.model, self.model, inputs, self.cut.remap.heads)
        named = tuple(replace(check, artifact=pruned.name) for check in cut.checks)
        return replace(cut, checks=named) + compare_models(job, self.model, pruned, inputs, ())

    def told(self, name: str) -> str:
        """For the report."""
        title = KINDS[self.model.kind].title
        return f"{name} was cut in {title} and converted again: {self.reason.message}"


def cut_before(source: Source, target: Target, choice: CutOptions, reason: ExporterError) -> Precut:
    """Cut the source where what it was converted to cannot be cut.

    Args:
        reason: why not.

    Raises:
        ExporterError: the reason, where the source cannot be cut either; its hint names the layer.
    """
    if target.original is None or not KINDS[source.model.kind].written:
        raise reason
    try:
        cut = plan_cut(source.model, choice)
        model = source.model.apply(cut.plan)
    except ModelError as own:  # it knows the layers by their names, of which converters leave none
        hint = f"in {KINDS[source.model.kind].title}: {own.message}"
        raise type(reason)(reason.message, hint) from own
    except ExporterError:
        raise reason from None
    return Precut(source, model, cut, reason)
