"""How a model expects pixels, and whether samples have the range that an input was made for."""

from __future__ import annotations

import numpy as np

from exporter.graph import Array, Graph, Node
from exporter.graph.operations import Elementwise
from exporter.graph.walk import dependents, only_moves

_LARGEST_SCALE = 1 / 50  # a first factor below this maps pixels 0..255 to unit size
_SMALLEST_OFFSET = 50.0  # a first offset above this centers pixels 0..255
_CLIPPED = 0.1  # share of an input's range by which samples may exceed it without a warning
_COVERED = 0.1  # share of an input's range that samples cover at least, without a warning
_STEPS, _SPREAD = 255, 100_001  # between 8-bit levels; values that a range is sampled at


class RangeCheck:
    """Compares the values of samples with the range that an input was made for.

    A quantized input clips values outside its range, and loses values that cover little of it. For
    a float input the range follows from the metadata, or from a first layer that scales pixels.
    """

    def __init__(self, graph: Graph, name: str) -> None:
        self._name = name
        self._expected = expected_range(graph, name)
        self._is_quantized = graph.tensors[name].quantization is not None
        self._low, self._high = np.inf, -np.inf

    def see(self, values: Array) -> None:
        """Values of the samples; those that are not floats are quantized already, or token ids."""
        if values.dtype.kind == "f":
            self._low = min(self._low, float(values.min()))
            self._high = max(self._high, float(values.max()))

    def warning(self) -> str:
        """One sentence if the values do not fit; else ""."""
        if self._expected is None or self._high < self._low:
            return ""
        low, high = self._expected
        span = high - low
        outside = max(low - self._low, self._high - high) / span
        if outside <= _CLIPPED and (self._high - self._low) / span >= _COVERED:
            return ""
        found = self._low, self._high
        if self._is_quantized:
            kept, possible = kept_db(found, self._expected), kept_db(found, found)
            loss = "its 8 bits keep {:.1f} dB of them"
        else:
            kept, possible = kept_db(self._expected, found), kept_db(self._expected, self._expected)
            loss = "8 bits calibrated on them keep {:.1f} dB of the input's values"
        return (
            f"input {self._name!r} takes values {low:.3g} to {high:.3g}, the samples are "
            f"{self._low:.3g} to {self._high:.3g}: {loss.format(kept)}, instead of {possible:.1f}"
        )


def kept_db(values: tuple[float, float], quantized: tuple[float, float]) -> float:
    """The ratio of signal to error after quantization to 8 bits, in dB.

    Args:
        values: ends of the range in which the values are spread evenly.
        quantized: ends of the range that the 256 levels cover, extended to 0, as calibration does.
            Values outside are clipped.
    """
    low, high = min(*quantized, 0.0), max(*quantized, 0.0)
    step = (high - low) / _STEPS or 1.0
    exact = np.linspace(*values, _SPREAD)
    error = exact - (np.clip(np.rint((exact - low) / step), 0, _STEPS) * step + low)
    power = np.array([np.mean(exact**2), np.mean(error**2)])
    signal, noise = 10 * np.log10(np.maximum(power, np.finfo(float).tiny))
    return float(signal - noise)


def expected_range(graph: Graph, name: str) -> tuple[float, float] | None:
    """The lowest and highest value of an input that the file states; None if it does not."""
    tensor = graph.tensors[name]
    if tensor.quantization is not None:
        ends = np.array([tensor.quantization.low, tensor.quantization.high])
        low, high = tensor.quantization.dequantize(ends)
        return float(low), float(high)
    if name in graph.normalization:
        return graph.normalization[name].range
    return (0.0, 255.0) if takes_pixels(graph, name) else None


def takes_pixels(graph: Graph, name: str) -> bool:
    """Does the model itself normalize pixels 0 to 255, as after a Keras Rescaling layer?

    The first arithmetic on the input is then a Rescaling, a multiplication by a small constant, a
    division by a large one, or a subtraction of a large one.
    """
    tensors = dependents(graph, [name], lambda node, _: only_moves(node, "cast"))
    consumers = [use for tensor in tensors for use in graph.consumers.get(tensor, ())]
    arithmetic = [node for node, _ in consumers if not only_moves(node, "cast")]
    return bool(arithmetic) and all(_normalizes_pixels(graph, node) for node in arithmetic)


def _normalizes_pixels(graph: Graph, node: Node) -> bool:
    if not isinstance(node.operation, Elementwise):
        return False
    constants = [graph.tensors[each] for each in node.inputs if graph.tensors[each].read]
    size = max((float(np.abs(c.read()).max(initial=0.0)) for c in constants if c.read), default=0.0)
    match node.operation.function:
        case "rescaling":
            return True
        case "mul":
            return 0 < size <= _LARGEST_SCALE
        case "div":
            return size >= 1 / _LARGEST_SCALE
        case "sub" | "add":
            return size >= _SMALLEST_OFFSET
    return False
