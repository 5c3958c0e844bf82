"""The activations and reductions in NumPy, for the oracles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.graph.graph import Array


@dataclass(frozen=True)
class Function:
    """One activation.

    Attributes:
        compute: values (float64, any shape), axis, parameters -> values of the same shape.
        mixes: each result depends on all positions along the axis.
        keeps_zero: f(0) = 0 exactly.
        probability: results are probabilities, in [0, 1].
    """

    compute: Callable[[Array, int, Mapping[str, float]], Array]
    mixes: bool = False
    keeps_zero: bool = False
    probability: bool = False


def _softmax(x: Array, axis: int, parameters: Mapping[str, float]) -> Array:
    shifted = np.exp(parameters.get("beta", 1.0) * (x - x.max(axis=axis, keepdims=True)))
    result: Array = shifted / shifted.sum(axis=axis, keepdims=True)
    return result


def _log_softmax(x: Array, axis: int, parameters: Mapping[str, float]) -> Array:
    """With the parameter `least`, the logarithm of shares: smaller ones than that are 0."""
    if "least" in parameters:
        shares = _softmax(x, axis, parameters)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.where(shares < parameters["least"], 0.0, shares)))
    shifted = x - x.max(axis=axis, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return result


def _sigmoid(x: Array, _axis: int, _: Mapping[str, float]) -> Array:
    result: Array = np.exp(-np.logaddexp(0.0, -x))  # no overflow at either end
    return result


def _gelu(x: Array, _axis: int, parameters: Mapping[str, float]) -> Array:
    if parameters.get("approximate", 0.0):
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
        return np.asarray(0.5 * x * (1.0 + np.tanh(inner)))
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return np.asarray(0.5 * x * (1.0 + erf(x / math.sqrt(2.0))))


def _elu(x: Array, _axis: int, parameters: Mapping[str, float]) -> Array:
    return np.where(x > 0, x, parameters.get("alpha", 1.0) * np.expm1(np.minimum(x, 0)))


def _selu(x: Array, _axis: int, parameters: Mapping[str, float]) -> Array:
    alpha = parameters.get("alpha", 1.6732632423543772)
    gamma = parameters.get("gamma", 1.0507009873554805)
    return np.asarray(gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))


def _leaky_relu(x: Array, _axis: int, parameters: Mapping[str, float]) -> Array:
    return np.where(x > 0, x, parameters.get("alpha", 0.01) * x)


def _hard_sigmoid(x: Array, _axis: int, parameters: Mapping[str, float]) -> Array:
    return np.clip(parameters.get("alpha", 0.2) * x + parameters.get("beta", 0.5), 0.0, 1.0)


def _clip(x: Array, _axis: int, parameters: Mapping[str, float]) -> Array:
    return np.clip(x, parameters.get("min", -np.inf), parameters.get("max", np.inf))


def _celu(x: Array, _axis: int, parameters: Mapping[str, float]) -> Array:
    alpha = parameters.get("alpha", 1.0)
    return np.maximum(x, 0.0) + np.minimum(0.0, alpha * np.expm1(np.minimum(x, 0.0) / alpha))


def _thresholded_relu(x: Array, _axis: int, parameters: Mapping[str, float]) -> Array:
    return np.where(x > parameters.get("alpha", 1.0), x, 0.0)


def _hard_swish(x: Array) -> Array:
    return np.asarray(x * np.clip(x / 6.0 + 0.5, 0.0, 1.0))


def _mish(x: Array) -> Array:
    return np.asarray(x * np.tanh(np.logaddexp(0.0, x)))


def _plain(
    function: Callable[[Array], Array],
) -> Callable[[Array, int, Mapping[str, float]], Array]:
    return lambda x, _axis, _parameters: function(x)


def _normalized(size: Callable[[Array, int], Array]) -> Callable[..., Array]:
    """Values divided by one number for all of them; unchanged, or the parameter `empty`, where it
    is 0.
    """

    def normalize(x: Array, axis: int, parameters: Mapping[str, float]) -> Array:
        divisor = size(x, axis)
        result = x / np.where(divisor == 0.0, 1.0, divisor)
        empty = parameters.get("empty")
        return np.asarray(result if empty is None else np.where(divisor == 0.0, empty, result))

    return normalize


ACTIVATIONS: Mapping[str, Function] = {
    "softmax": Function(_softmax, mixes=True, probability=True),
    "log_softmax": Function(_log_softmax, mixes=True),
    "sigmoid": Function(_sigmoid, probability=True),
    "hard_sigmoid": Function(_hard_sigmoid, probability=True),
    "relu": Function(_plain(lambda x: np.maximum(x, 0.0)), keeps_zero=True),
    "relu6": Function(_plain(lambda x: np.clip(x, 0.0, 6.0)), keeps_zero=True),
    "clip": Function(_clip),  # keeps zero only if 0 is within the bounds
    "leaky_relu": Function(_leaky_relu, keeps_zero=True),
    "elu": Function(_elu, keeps_zero=True),
    "selu": Function(_selu, keeps_zero=True),
    "gelu": Function(_gelu, keeps_zero=True),
    "silu": Function(lambda x, axis, p: np.asarray(x * _sigmoid(x, axis, p)), keeps_zero=True),
    "softplus": Function(_plain(lambda x: np.logaddexp(0.0, x))),
    "softsign": Function(_plain(lambda x: np.asarray(x / (1.0 + np.abs(x)))), keeps_zero=True),
    "tanh": Function(_plain(np.tanh), keeps_zero=True),
    "exp": Function(_plain(np.exp)),
    "celu": Function(_celu, keeps_zero=True),
    "hard_swish": Function(_plain(_hard_swish), keeps_zero=True),
    "mish": Function(_plain(_mish), keeps_zero=True),
    "thresholded_relu": Function(_thresholded_relu),
    "l1_normalize": Function(
        _normalized(lambda x, axis: np.abs(x).sum(axis, keepdims=True)), mixes=True, keeps_zero=True
    ),
    "l2_normalize": Function(
        _normalized(lambda x, axis: np.sqrt(np.square(x).sum(axis, keepdims=True))),
        mixes=True,
        keeps_zero=True,
    ),
    "max_normalize": Function(
        _normalized(lambda x, axis: x.max(axis, keepdims=True)), mixes=True, keeps_zero=True
    ),
}


@dataclass(frozen=True)
class Reduction:
    """One function that reduces several values to one.

    Attributes:
        compute: values (float64, any shape), axes, keepdims -> values reduced over the axes.
        keeps_zero: zeros give 0.
    """

    compute: Callable[[Array, tuple[int, ...], bool], Array]
    keeps_zero: bool = True


def _reduced(function: Callable[..., Any]) -> Callable[[Array, tuple[int, ...], bool], Array]:
    return lambda x, axes, keep: np.asarray(function(x, axis=axes, keepdims=keep))


def _l1(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    return np.asarray(np.abs(x).sum(axis=axis, keepdims=keepdims))


def _sum_square(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    return np.asarray(np.square(x).sum(axis=axis, keepdims=keepdims))


def _l2(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    return np.sqrt(_sum_square(x, axis, keepdims))


def _log_sum_exp(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    largest = x.max(axis=axis, keepdims=True)
    summed = np.log(np.exp(x - largest).sum(axis=axis, keepdims=True)) + largest
    return np.asarray(summed if keepdims else summed.squeeze(axis))


REDUCTIONS: Mapping[str, Reduction] = {
    "mean": Reduction(_reduced(np.mean)),
    "sum": Reduction(_reduced(np.sum)),
    "max": Reduction(_reduced(np.max)),
    "min": Reduction(_reduced(np.min)),
    "prod": Reduction(_reduced(np.prod)),
    "l1": Reduction(_l1),
    "l2": Reduction(_l2),
    "sum_square": Reduction(_sum_square),
    "log_sum_exp": Reduction(_log_sum_exp, keeps_zero=False),
}
