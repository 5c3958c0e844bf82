"""Cut output units that a device does not need out of a trained network, and prove the result.

    import exporter
    pruned = exporter.prune("net.onnx", keep=["macaw", "owl"], labels="labels.txt")
    pruned.save("small.onnx")
    pruned.remap.to_original([0, 1])

`import exporter` loads no library; a name loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.api import (
        batch,
        bench,
        convert,
        inspect,
        prune,
        quantize,
        run,
        select,
        trim,
        unshare,
        verify,
    )
    from exporter.batches.index import Batch
    from exporter.formats import open_model
    from exporter.formats.keras.freeze_pruned import freeze_pruned
    from exporter.jobs.inspect import Inspection
    from exporter.jobs.prune import Pruned
    from exporter.jobs.select import UnitChoice
    from exporter.layers import ConditionalUnits, UnitMask, ZeroedUnits
    from exporter.records import Report
    from exporter.remap import Remap
    from exporter.selection import Selection

__all__ = [
    "Batch",
    "ConditionalUnits",
    "Inspection",
    "Pruned",
    "Remap",
    "Report",
    "Selection",
    "UnitChoice",
    "UnitMask",
    "ZeroedUnits",
    "batch",
    "bench",
    "convert",
    "freeze_pruned",
    "inspect",
    "open_model",
    "prune",
    "quantize",
    "run",
    "select",
    "trim",
    "unshare",
    "verify",
]

_HOMES = {
    "Batch": "exporter.batches.index",
    "ConditionalUnits": "exporter.layers",
    "Inspection": "exporter.jobs.inspect",
    "Pruned": "exporter.jobs.prune",
    "Remap": "exporter.remap",
    "Report": "exporter.records",
    "Selection": "exporter.selection",
    "UnitChoice": "exporter.jobs.select",
    "UnitMask": "exporter.layers",
    "ZeroedUnits": "exporter.layers",
    "freeze_pruned": "exporter.formats.keras.freeze_pruned",
    "open_model": "exporter.formats",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'exporter' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "exporter.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
