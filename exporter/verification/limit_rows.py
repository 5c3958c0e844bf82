"""Which limits the sums of a model keep to, where its precision alone does not tell."""

from __future__ import annotations

from exporter.formats.model import Model
from exporter.graph.operations import Linear

BLOCKS, OFFSET_BLOCKS = "blocks", "blocks with zero points"


def row_of(model: Model) -> str:
    """The precision under which `parity.LIMITS` has a cut of the model.

    Kernels in packed blocks are added up in another order at another width, whatever their bits.
    """
    operations = (node.operation for node in model.graph().nodes)
    packed = [o for o in operations if isinstance(o, Linear) and o.packed_bits]
    if not packed:
        return model.precision
    offset = any(along.zero is None for o in packed for along in o.along)
    return OFFSET_BLOCKS if offset else BLOCKS
