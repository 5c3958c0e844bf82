"""Activations of Keras 2 that Keras 3 computes differently."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="exporter")  # type: ignore[untyped-decorator]
def hard_sigmoid_of_keras_2(x: Any) -> Any:
    """0.2 x + 0.5, limited to 0 ... 1; in Keras 3 the slope is 1/6. Any shape and dtype."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
