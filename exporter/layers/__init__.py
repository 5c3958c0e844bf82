"""Keras layers that choose units while the model runs, and the constraint that keeps units dead.

They are saved under the name `exporter`: import this package before a model that holds one of them
is loaded. It needs Keras, and nothing of a file format.
"""

from __future__ import annotations

from exporter.layers.conditional_units import ConditionalUnits
from exporter.layers.unit_mask import UnitMask
from exporter.layers.zeroed_units import ZeroedUnits

__all__ = ["ConditionalUnits", "UnitMask", "ZeroedUnits"]
