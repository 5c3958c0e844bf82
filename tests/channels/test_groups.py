"""Which channels belong together, and that a network without some of them still computes."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.channels.cut import Narrowed
from exporter.channels.disjoint import FIXED, Disjoint
from exporter.channels.groups import ChannelGroup, find_channels
from exporter.formats.onnx import OnnxModel
from exporter.graph import Array, Use
from exporter.graph.edits import Fill, Plan
from exporter.graph.operations import Linear
from tests.builders.channel_models import NETWORKS, SIDE, Network, network
from tests.builders.onnx_models import numbers, run

# name -> for each group: units, products that compute it, products that read it
GROUPS = {
    "plain": [(8, 1, 1), (12, 1, 1)],
    "flattened": [(6, 1, 1), (10, 1, 1)],
    "depthwise": [(8, 1, 1), (6, 1, 1)],
    "grouped": [(4, 1, 1), (6, 1, 1)],
    "residual": [(8, 3, 3), (6, 1, 1), (10, 1, 1)],
    "concatenated": [(6, 1, 2), (8, 1, 1), (10, 1, 1)],
    "gated": [(8, 2, 2), (4, 1, 1), (6, 1, 1)],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_groups(name: str) -> None:
    found = find_channels(network(name).graph())
    shown = [(each.units, len(each.producers), len(each.consumers)) for each in found.groups]
    assert shown == GROUPS[name]
    assert [each.reason for each in found.fixed] == [
        "Softmax 'softmax': it normalizes over the channels"
    ]


def narrowed(model: OnnxModel, kept: dict[str, Array]) -> OnnxModel:
    graph = model.graph()
    return model.apply(Plan(Narrowed(graph, find_channels(graph).groups, kept).edits()))


def zeroed_readers(model: OnnxModel, group: ChannelGroup, removed: Array) -> OnnxModel:
    """The whole network, whose readers multiply the removed units by zero."""
    edits = []
    for consumer in group.consumers:
        assert isinstance(consumer.node.operation, Linear)
        slot = consumer.node.operation.kernel
        constant = consumer.node.inputs[slot]
        positions = np.flatnonzero(np.isin(consumer.units, removed))
        axis = consumer.contraction.kernel_axis
        edits.append(Fill(constant, axis, positions, 0.0, (Use(consumer.node.name, slot),)))
    return model.apply(Plan(tuple(edits)))


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_is_reading_zero(name: str) -> None:
    """Without refit, a removed unit has the same effect as a zero in the kernels that read it."""
    model = network(name)
    x = numbers(2, 3, SIDE, SIDE, seed=3)
    for group in find_channels(model.graph()).groups:
        removed = np.arange(0, group.units, 3)
        small = narrowed(model, {group.name: np.setdiff1d(np.arange(group.units), removed)})
        expected = run(zeroed_readers(model, group, removed), {"x": x}, plain=True)["y"]
        assert run(small, {"x": x}, plain=True)["y"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_groups_at_once(name: str) -> None:
    model = network(name)
    groups = find_channels(model.graph()).groups
    small = narrowed(model, {each.name: np.arange(1, each.units, 2) for each in groups})
    assert run(small, {"x": numbers(2, 3, SIDE, SIDE)}, plain=True)["y"].shape == (2, 5)
    again = find_channels(small.graph()).groups
    assert [each.units for each in again] == [each.units // 2 for each in groups]


@pytest.mark.parametrize("concatenates", [False, True])
def test_a_kernel_that_reads_and_computes_a_group(concatenates: bool) -> None:
    """In y = x + conv(x) the kernel becomes narrower on both axes."""
    net = Network()
    a = net.relu(net.conv("x", 8))
    a = net.concat(a, net.relu(net.conv("x", 6))) if concatenates else a
    width = net.channels[a]
    model = net.done(net.flat(net.mean(net.relu(net.sum(a, net.conv(a, width)))), width))
    x = numbers(2, 3, SIDE, SIDE, seed=3)
    group = find_channels(model.graph()).groups[0]
    removed = np.arange(0, group.units, 3)
    small = narrowed(model, {group.name: np.setdiff1d(np.arange(group.units), removed)})
    expected = run(zeroed_readers(model, group, removed), {"x": x}, plain=True)["y"]
    assert run(small, {"x": x}, plain=True)["y"] == pytest.approx(expected, abs=1e-6)


def test_channels_on_the_first_axis_stay() -> None:
    """A fit needs the samples there."""
    net = Network()
    pooled = net.add("ReduceMean", net.conv("x", 8), channels=8, axes=[0, 2, 3], keepdims=0)
    kernel = net.constant(net.normal(8, 6))
    dense = net.add("MatMul", pooled, kernel, channels=6)
    found = find_channels(
        net.done(net.add("Unsqueeze", dense, net.constant(np.array([0])), channels=6)).graph()
    )
    assert "t0" in {each.name for each in found.fixed}


def test_keeping_all_makes_no_edit() -> None:
    graph = network("residual").graph()
    groups = find_channels(graph).groups
    every = {each.name: np.arange(each.units) for each in groups}
    assert Narrowed(graph, groups, every).edits() == ()


def test_groups_that_cannot_be_followed_stay() -> None:
    net = Network()
    a = net.relu(net.conv("x", 8))
    ranked = net.add("TopK", a, net.constant(np.array([2])), channels=2, axis=1)
    net.nodes[-1].output.append("indices")
    found = find_channels(net.done(net.flat(net.mean(ranked), 2)).graph())
    assert found.groups == ()
    assert "ranks" in found.fixed[0].reason


def test_disjoint_units() -> None:
    same = Disjoint(5)
    same.join(np.array([0, 3]), np.array([2, FIXED]))
    same.join(np.array([2]), np.array([0]))
    assert same.joined == 2
    assert same.numbers().tolist() == [0, 1, 0, FIXED, 2]


def test_channels_that_slices_take_apart_stay() -> None:
    net = Network()
    a, parts = net.relu(net.conv("x", 10)), list[str]()
    for start, stop in ((0, 4), (4, 10)):
        bounds = [net.constant(np.array([number])) for number in (start, stop, 1, 1)]
        parts.append(net.add("Slice", a, *bounds, channels=stop - start))
    b = net.conv(net.concat(parts[0], net.conv(parts[1], 7)), 6)
    found = find_channels(net.done(net.flat(net.mean(b), 6)).graph())
    assert [each.units for each in found.groups] == [7, 6]
    assert "by position" in found.fixed[0].reason
