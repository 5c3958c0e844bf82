"""How the input of a product becomes the rows of a linear regression: outputs = rows @ weights.

For a dense layer a row is the input at one position. For a convolution it is a patch: the values
under the kernel, column by column (channel, place in the window).

A patch of many channels has too many columns for a Gram matrix. The product is then `folded`: its
columns are the channels alone, and the places in the window count as further outputs. That is the
regression under the assumption that each place is fitted for itself. Transposed convolutions, and
dense layers on many flattened positions, are folded too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

import numpy as np

from exporter.channels.disjoint import FIXED
from exporter.channels.walk import Consumer
from exporter.graph import Array, Graph
from exporter.graph.operations import Linear, Window

MOST_COLUMNS = 3072  # of a Gram matrix: 75 MB, and some seconds for each elimination


@dataclass(frozen=True, eq=False)
class Design:
    """The regression of one product.

    Attributes:
        kernel_shape: of the whole kernel.
        folded: see the module.
        places: position on the kernel's axis of input channels of each column, in each fold:
            (columns before taps, folds).
    """

    consumer: Consumer
    kernel_shape: tuple[int, ...]
    folded: bool
    places: Array

    @classmethod
    def of(cls, graph: Graph, consumer: Consumer) -> Design:
        """The design of a product, folded if it has too many columns."""
        operation = consumer.node.operation
        assert isinstance(operation, Linear)  # noqa: S101 - narrows the type
        shape = tuple(n or 0 for n in graph.shape(consumer.node.inputs[operation.kernel]))
        channels = np.arange(len(consumer.units))[:, None]
        window = consumer.contraction.window
        taps = prod(shape[axis] for axis in window.kernel_axes) if window else 1
        folded = consumer.contraction.adds_up or len(channels) * taps > MOST_COLUMNS
        if folded and not window and not consumer.contraction.adds_up:
            channels = _by_unit(consumer.units)
        return cls(consumer, shape, folded, channels)

    @property
    def operation(self) -> Linear:
        operation = self.consumer.node.operation
        assert isinstance(operation, Linear)  # noqa: S101 - narrows the type
        return operation

    @cached_property
    def taps(self) -> tuple[int, ...]:
        """The lengths of the window that are columns."""
        window = self.consumer.contraction.window
        if window is None or self.folded:
            return ()
        return tuple(self.kernel_shape[axis] for axis in window.kernel_axes)

    @cached_property
    def units(self) -> Array:
        """The unit of each column: (columns,) int64; FIXED for channels of other groups."""
        return np.repeat(self.consumer.units[self.places[:, 0]], prod(self.taps))

    @property
    def columns(self) -> int:
        return len(self.places) * prod(self.taps)

    def columns_of(self, channels: Array) -> Array:
        """The columns of some positions on the kernel's axis of input channels, ascending."""
        stay = np.isin(self.places[:, 0], channels)
        return np.flatnonzero(np.repeat(stay, prod(self.taps)))

    # --- the kernel -------------------------------------------------------------------------------

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """The axes of the kernel: input channels, window, output channels."""
        first, last = self.consumer.contraction.kernel_axis, self.operation.kernel_axis
        others = [axis for axis in range(len(self.kernel_shape)) if axis not in {first, last}]
        return (first, *others, last)

    def weights(self, kernel: Array) -> Array:
        """(columns, outputs) float64; of a folded product, outputs at each place in the window."""
        moved = np.asarray(kernel, np.float64).transpose(self._order)
        if not self.folded:
            return moved.reshape(self.columns, -1)
        return moved[self.places].reshape(self.columns, -1)

    def kernel(self, weights: Array, shape: tuple[int, ...], places: Array) -> Array:
        """The kernel of weights: the reverse of `weights`.

        Args:
            shape: of the kernel.
            places: as the attribute, in the narrower kernel.
        """
        moved_shape = tuple(shape[axis] for axis in self._order)
        if self.folded:
            moved = np.empty(moved_shape)
            moved[places] = weights.reshape(*places.shape, *moved_shape[1:])
        else:
            moved = weights.reshape(moved_shape)
        return moved.transpose(np.argsort(self._order))

    # --- the rows ---------------------------------------------------------------------------------

    def rows(self, values: Array, places: Array, chosen: Chosen) -> Array:
        """Rows of the regression: (rows, columns) float64.

        Args:
            values: of the product's input, (batch, ...).
            places: as the attribute; those of a narrower kernel if the input is narrower.
            chosen: the positions.
        """
        axis, window = self.consumer.contraction.input_axis, self.consumer.contraction.window
        if window is None or self.folded:
            moved = np.moveaxis(values, axis, -1)
            length = max(int(places.max(initial=-1)) + 1, moved.shape[-1])
            flat = moved.reshape(len(values), -1, length)
            indices = chosen.of(len(flat), flat.shape[1])
            rows = np.take_along_axis(flat, indices[:, :, None], axis=1).reshape(-1, length)
            picked = np.moveaxis(rows[:, places], 2, 1)
            return picked.reshape(-1, len(places)).astype(np.float64)
        patches = _patches(values, axis, window, self.taps, chosen)
        return patches[:, places[:, 0]].reshape(len(patches), -1)


@dataclass(frozen=True)
class Chosen:
    """Random positions of some samples.

    Attributes:
        first: index of the first sample. A sample gives the same positions in any batch.
        count: largest number of positions of each sample.
        seed: equal seeds give equal positions.
    """

    first: int
    count: int
    seed: int

    def of(self, samples: int, positions: int) -> Array:
        """(samples, chosen positions) int64"""
        if positions <= self.count:
            return np.broadcast_to(np.arange(positions), (samples, positions))
        return np.stack(
            [
                np.random.default_rng([self.seed, self.first + i]).choice(
                    positions, self.count, replace=False, shuffle=False
                )
                for i in range(samples)
            ]
        )


def _by_unit(units: Array) -> Array:
    """The positions of each unit, if all have as many and none is FIXED; else each for itself."""
    counts = np.bincount(units[units >= 0])
    if FIXED in units or len(set(counts.tolist())) != 1:
        return np.arange(len(units))[:, None]
    return np.argsort(units, kind="stable").reshape(len(counts), -1)


def _patches(
    values: Array, channels: int, window: Window, taps: tuple[int, ...], positions: Chosen
) -> Array:
    """(rows, channels, taps) float64"""
    image = np.moveaxis(values, (*window.axes, channels), (*range(1, 1 + len(taps)), -1))
    lengths = image.shape[1:-1]
    spans = [d * (k - 1) + 1 for d, k in zip(window.dilations, taps, strict=True)]
    pads = _pads(window, lengths, spans)
    image = np.pad(image, ((0, 0), *pads, (0, 0)))
    grid = [
        (length - span) // stride + 1
        for length, span, stride in zip(image.shape[1:-1], spans, window.strides, strict=True)
    ]
    chosen = positions.of(len(image), prod(grid))
    samples = np.repeat(np.arange(len(image)), chosen.shape[1])
    starts = [
        place * stride
        for place, stride in zip(
            np.unravel_index(chosen.ravel(), grid), window.strides, strict=True
        )
    ]
    return np.stack(list(_under(image, samples, starts, window, taps)), axis=-1)


def _under(
    image: Array, samples: Array, starts: list[Array], window: Window, taps: tuple[int, ...]
) -> Iterator[Array]:
    """The channels under each place of the kernel: (rows, channels) float64."""
    for place in product(*map(range, taps)):
        steps = zip(starts, place, window.dilations, strict=True)
        index = tuple(start + step * dilation for start, step, dilation in steps)
        yield image[(samples, *index)].astype(np.float64)


def _pads(
    window: Window, lengths: tuple[int, ...], spans: list[int]
) -> tuple[tuple[int, int], ...]:
    if not isinstance(window.pads, str):
        return window.pads
    found = []
    for length, span, stride in zip(lengths, spans, window.strides, strict=True):
        total = max((-(-length // stride) - 1) * stride + span - length, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if window.pads == "upper" else (large, small))
    return tuple(found)
