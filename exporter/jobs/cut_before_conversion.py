"""Cut a head in the source model if it cannot be cut in the converted file.

A converter may break a layer into operations that no rule follows. If the layer can be cut in the
source, this module cuts it there and converts the cut model. Two comparisons check the result: the
cut model against the source, in the runtime of the source, and the converted file against the cut
model.
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
from exporter.jobs.job import Job
from exporter.jobs.source import OpenedModel, UncutModel
from exporter.planning.cut import Cut, CutOptions, plan_cut


@dataclass(frozen=True, eq=False)
class CutSource:
    """A source model that was cut before the conversion.

    Attributes:
        model: the cut model, of the source's kind.
        reason: why the converted file could not be cut.
    """

    source: OpenedModel
    model: Model
    cut: Cut
    reason: ExporterError

    def as_kind(self, kind: str, folder: Path, job: Job) -> UncutModel:
        """The cut model converted to another kind, with its remap (see `OpenedModel.as_kind`)."""
        source = replace(self.source, model=self.model)
        converted = source.as_kind(kind, folder, job.progress, "cut")
        images = job.image_inputs(converted.model)
        model = converted.model.apply(Plan((), self.cut.remap.without_logits(), images))
        route = f"cut in {KINDS[self.model.kind].title}, then {converted.route}"
        return replace(converted, model=model, route=route)

    def check(self, job: Job, pruned: Model, inputs: Samples) -> CheckResults:
        """Compare the cut model with the source, and the converted file with the cut model."""
        heads = self.cut.remap.heads
        cut = compare_models(job, self.source.model, self.model, inputs, heads)
        return cut.for_artifact(pruned.name) + compare_models(job, self.model, pruned, inputs, ())

    def warning(self, name: str) -> str:
        """The warning of the report for a file that was made in this way."""
        title = KINDS[self.model.kind].title
        return f"{name} was cut in {title} and converted again: {self.reason.message}"


def cut_source(
    source: OpenedModel, uncut: UncutModel, options: CutOptions, reason: ExporterError
) -> CutSource:
    """Cut the source because the converted model cannot be cut.

    Args:
        reason: the error for the converted model.

    Raises:
        ExporterError: the reason, if the source cannot be cut either. Its hint then names the
            layer, because the source knows layer names and a converted file does not.
    """
    if uncut.original is None or not KINDS[source.model.kind].written:
        raise reason
    try:
        cut = plan_cut(source.model, options)
        model = source.model.apply(cut.plan)
    except ModelError as error:
        hint = f"in {KINDS[source.model.kind].title}: {error.message}"
        raise type(reason)(reason.message, hint) from error
    except ExporterError:
        raise reason from None
    return CutSource(source, model, cut, reason)
