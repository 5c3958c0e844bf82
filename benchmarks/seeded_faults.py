"""How many seeded faults the structural proof finds, and how many good files it refuses.

    PYTHONPATH=. python benchmarks/seeded_faults.py [--write]

Every model of `tests.builders.proof_models` is cut in several ways. Each kind of fault changes one
thing in each cut, with a few seeds. A fault counts as found if the file is refused when it is
opened, or if the proof says "different". Good cuts, and the same cuts rewritten by other
serializers, must be proved. With --write, the table goes into docs/proof.md.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator

from document import write_between

from exporter.errors import ExporterError
from exporter.formats.model import Model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.prove import prove
from tests.builders import mode_cells
from tests.builders.cut_faults import OF_REMAPS, Kind
from tests.builders.faults_onnx import FAULTS as OF_ONNX
from tests.builders.faults_tflite import FAULTS as OF_TFLITE
from tests.builders.proof_models import (
    CUTS,
    FEATURES,
    MODELS,
    RANDOM,
    content_of,
    head_of,
    opened,
)
from tests.builders.rewriters import REWRITERS

SEEDS = range(2)

KINDS = {
    **{name: Kind(OF_ONNX.get(name), OF_TFLITE.get(name)) for name in (*OF_ONNX, *OF_TFLITE)},
    **OF_REMAPS,
}


def cuts() -> Iterator[tuple[str, Model, bytes]]:
    """Name, original and content of every cut."""
    for name, (kind, build) in MODELS.items():
        original = opened(kind, build(), name)
        for title, options in CUTS.items():
            try:
                cut = plan_cut(original, CutOptions(**options, **head_of(name)))
                yield f"{name}, {title}", original, content_of(original.apply(cut.plan))
            except ExporterError:
                continue  # this model cannot be cut in this way
    for name, (kind, build, options) in FEATURES.items():
        original = opened(kind, build(), name)
        cut = plan_cut(original, CutOptions(**options))
        yield name, original, content_of(original.apply(cut.plan))


def matrix() -> Iterator[tuple[str, Model, bytes]]:
    """The same for every cell of the matrix of modes."""
    for cell in mode_cells.cells():
        original = mode_cells.built(cell.head, cell.kind, cell.precision)
        try:
            cut = plan_cut(original, CutOptions(**mode_cells.options_of(cell)))
        except ExporterError:
            continue
        yield str(cell), original, content_of(original.apply(cut.plan))


def result(original: Model, content: bytes) -> str:
    """The result of the proof; "refused" if the file does not open."""
    try:
        file = opened(original.kind, content)
        return prove(original, file, file.remap).result
    except ExporterError:
        return "refused"


def faults() -> tuple[Counter[str], Counter[str], list[str]]:
    """The number of files with each kind of fault, of those that were found, and the others."""
    made: Counter[str] = Counter()
    found: Counter[str] = Counter()
    missed: list[str] = []
    for name, original, content in cuts():
        for title, kind in KINDS.items():
            fault = kind.of(original.kind)
            for seed in SEEDS if fault else ():
                changed = fault and fault(content, RANDOM(seed))
                if changed is None:
                    continue
                made[title] += 1
                if result(original, changed) in {"different", "refused"}:
                    found[title] += 1
                else:
                    missed.append(f"{title}: {name}, seed {seed}")
    return made, found, missed


def good() -> tuple[int, list[str]]:
    """The number of good files, and those that were not proved."""
    count, alarms = 0, []
    for name, original, content in (*cuts(), *matrix()):
        for title, write in {"": bytes, **REWRITERS[original.kind]}.items():
            count += 1
            if (found := result(original, write(content))) != "proved":
                alarms.append(f"{name}, {title}: {found}")
    return count, alarms


def main() -> None:
    start = time.perf_counter()
    made, found, missed = faults()
    count, alarms = good()
    lines = ["| Fault | Files | Found |", "|---|---:|---:|"]
    lines += [f"| {title} | {made[title]} | {found[title]} |" for title in KINDS if made[title]]
    lines += [f"| **all** | {sum(made.values())} | {sum(found.values())} |", ""]
    lines += [f"{count} good files: {len(alarms)} false alarms."]
    print("\n".join(lines))
    print(*missed, *alarms, sep="\n")
    print(f"{time.perf_counter() - start:.0f} s")
    if "--write" in sys.argv:
        write_between("proof.md", "faults", "\n".join(lines))


if __name__ == "__main__":
    main()
