"""Keras layers that choose units while the model runs, and a constraint that keeps weights at 0.

They are registered with Keras under the name `exporter`: import this package before you load a
model that contains one of them. It needs only Keras.
"""

from __future__ import annotations

from exporter.layers.conditional_units import ConditionalUnits
from exporter.layers.keras2_activations import hard_sigmoid_of_keras_2
from exporter.layers.unit_mask import UnitMask
from exporter.layers.zeroed_units import ZeroedUnits

__all__ = ["ConditionalUnits", "UnitMask", "ZeroedUnits", "hard_sigmoid_of_keras_2"]
