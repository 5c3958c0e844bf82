"""Samples of a Keras model run as one batch where that gives the answers that each gives alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pytest

from exporter.conversion.run_samples import run_samples
from exporter.formats.model import Model
from exporter.graph import Array, Graph, Shape, Tensor


class Network:
    """Applies a function, and notes the size of each batch."""

    def __init__(self, function: Callable[[Array], Array], batch: int | None = None) -> None:
        self.batches: list[int] = []
        self._function, self._batch = function, batch

    def graph(self) -> Graph:
        shape: Shape = (self._batch, None)
        tensors = {name: Tensor(name, shape, "float32") for name in ("x", "y")}
        return Graph((), tensors, ("x",), ("y",))

    def runner(self, _options: object) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
            self.batches.append(len(inputs["x"]))
            return {"y": self._function(inputs["x"])}

        return run


def samples(count: int, *widths: int) -> list[dict[str, Array]]:
    random = np.random.default_rng(0)
    lengths = widths or (3,) * count
    return [{"x": random.normal(size=(1, n)).astype(np.float32)} for n in lengths]


def double(x: Array) -> Array:
    return x * 2


ALONE = [1] * 5
TOGETHER = [5, 1, 1]
SECOND = [5, 1, 1, *ALONE]  # the second sample that runs alone shows that the batch matters
LARGER: list[dict[str, Array]] = [{"x": np.full((1, 3), 9, np.float32)}]
CASES: Mapping[str, tuple[Network, list[dict[str, Array]], list[int]]] = {
    "one sample": (Network(double), samples(1), [1]),
    "fixed batch": (Network(double, batch=1), samples(5), ALONE),
    "lengths differ": (Network(double), samples(5, 3, 3, 4, 3, 3), ALONE),
    "two samples": (Network(double), samples(2), [1, 1]),
    "mean of the batch": (Network(lambda x: x - x.mean(0)), samples(5), [5, 1, *ALONE]),
    "sum along the batch": (Network(lambda x: x.cumsum(0)), samples(5), SECOND),
    "largest value first": (Network(lambda x: x / x.max()), [*LARGER, *samples(4)], SECOND),
    "largest value in the middle": (
        Network(lambda x: x / x.max()),
        [*samples(2), *LARGER, *samples(2)],
        [5, 1, *ALONE],
    ),
    "cannot run a batch": (Network(lambda x: x * x.reshape(1, 3)), samples(5), [5, *ALONE]),
    "the other way": (Network(lambda x: x[::-1].cumsum(0)[::-1]), samples(5), [5, 1, *ALONE]),
    "batch reshaped away": (Network(lambda x: x.reshape(-1, 1)), samples(5), [5, *ALONE]),
    "a scalar": (Network(lambda x: np.asarray(x.sum())), samples(5), [5, *ALONE]),
    "other rank": (Network(lambda x: x.squeeze()), samples(5), [5, 1, *ALONE]),
    "integers of the batch": (
        Network(lambda x: x.argmax(0)[None].repeat(len(x), 0)),
        samples(5),
        [5, 1, *ALONE],
    ),
    "together": (Network(double), samples(5), TOGETHER),
    "not a number": (Network(lambda x: x / 0 * 0), samples(5), TOGETHER),
    "rounding": (Network(lambda x: x * np.float32(1 + 1e-7 * (len(x) > 1))), samples(5), TOGETHER),
}


@pytest.mark.parametrize("name", CASES)
def test_samples_run_together_if_they_do_not_affect_each_other(name: str) -> None:
    network, feeds, batches = CASES[name]
    with np.errstate(all="ignore"):
        found = run_samples(cast(Model, cast(Any, network)), feeds)
        assert network.batches == batches
        expected = [network.runner(None)(feed) for feed in feeds]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["y"], other["y"], rtol=3e-7)
