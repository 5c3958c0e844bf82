"""The uncut models of a job, one for each kind, and the cut of a quantized one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from exporter.errors import ModelError
from exporter.formats.model import Model
from exporter.jobs.options import Job
from exporter.jobs.source import OpenedModel, UncutModel
from exporter.planning.cut import Cut, CutOptions, plan_cut


def uncut_models(
    opened: OpenedModel, variants: Mapping[str, CutOptions], job: Job, folder: Path
) -> tuple[UncutModel, ...]:
    """The model as each kind that is written, converted into the folder once for all variants.

    Raises:
        ExporterError: wrong options of a variant, before the conversion; or it failed.
    """
    for options in variants.values():
        with suppress(ModelError):  # the converted file may have a head that the source lacks
            plan_cut(opened.model, options)
    kinds = job.kinds or opened.default_kinds()
    return tuple(opened.as_kind(kind, folder, job.progress) for kind in kinds)


def cut_quantized(
    made: Model, uncut: UncutModel, cut: Cut, options: CutOptions, precision: str
) -> Cut:
    """The cut of a model that was quantized before it.

    Args:
        made: the quantized model; gets the hash of the user's file, which the remap names.
        cut: of the float model, which shows how its first layers take pixels.
    """
    made.sha256 = uncut.model.sha256
    return plan_cut(made, options, uncut.original, cut.plan.images).quantized_to(precision)
