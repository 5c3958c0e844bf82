"""The weights of a product after channels of its input were removed: ridge regression.

Z = Y W0 + b0 are the outputs of the original product, with the original's rows Y. The new product
has the rows X of the trimmed network. Its weights W and bias b minimize

    |X W + b - Z|^2 + ridge * |W - W0 of the columns that are left|^2.

The solution is (X^T X + ridge) W = X^T Y W0 + ridge * W0, in which the rows are centered if the
product has a bias, and b = b0 + mean(Y) W0 - mean(X) W.

The ridge guards against noise. What is left of Z without a ridge shows how much noise there is: if
the channels that are left give Z exactly, the ridge is nearly 0, and so is the error.
"""

from __future__ import annotations

import numpy as np

from exporter.graph import Array
from exporter.trimming.moments import Moments, with_ridge


def refit(
    moments: Moments, weights: Array, left: Array, ridge: float, variance: float, *, has_bias: bool
) -> tuple[Array, Array]:
    """The new weights, and what is added to the bias.

    Args:
        moments: of the trimmed rows, and of the original ones.
        weights: of the original product, (original columns, outputs).
        left: the original columns that are left.
        ridge: see `with_ridge`.
        variance: sum of the squared outputs of the original product, centered if it has a bias.
        has_bias: rows are centered.

    Returns:
        (columns left, outputs) and (outputs,).
    """
    gram, cross = moments.centered(centers=has_bias)
    target = cross @ weights
    free, _ = with_ridge(gram, _LEAST_RIDGE)
    found = np.linalg.solve(free, target)
    missed = float(np.sum(found * (gram @ found - 2.0 * target))) + variance
    noise = max(missed, 0.0) / variance if variance > 0.0 else 0.0
    regular, added = with_ridge(gram, max(_LEAST_RIDGE, ridge * min(1.0, noise / _NOISE)))
    found = np.linalg.solve(regular, target + added * weights[left])
    count = max(moments.count, 1)
    shift = moments.other_sums / count @ weights - moments.sums / count @ found
    return found, shift if has_bias else np.zeros(weights.shape[1])


_LEAST_RIDGE = 1e-12
_NOISE = 1e-3  # share of the variance from which on the whole ridge is used
