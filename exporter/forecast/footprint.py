"""Count the parameters of a graph, and estimate the memory of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from exporter.graph import Graph, Node, Tensor
from exporter.graph.operations import Linear, Reshape
from exporter.graph.walk import applies

_FUSED = ("quantize", "dequantize")


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of one run with batch 1, without the runtime itself.

    A runtime needs more where it packs weights again, and less where it computes in place.

    Attributes:
        weights_bytes: of the constants, as the file stores them.
        activation_bytes: the largest sum of computed tensors that exist at the same time: each one
            from its producer to its last consumer, in the order of the file.
        is_complete: the sizes of all tensors are known. If not, the sum is a lower bound.
    """

    weights_bytes: int
    activation_bytes: int
    is_complete: bool = True

    @property
    def bytes(self) -> int:
        """Weights and activations together."""
        return self.weights_bytes + self.activation_bytes


def count_parameters(graph: Graph) -> int:
    """The number of weights: values of constants that are real numbers or quantized ones.

    Scales and zero points are not counted, nor are integers such as shapes and indices. The count
    of a network does not change when it is quantized.
    """
    return sum(_values(graph, name) for name in _weights(graph))


def estimate_memory(graph: Graph) -> MemoryEstimate:
    """Estimate the memory of a run, see `MemoryEstimate`."""
    read = {name for node in graph.nodes for name in node.inputs if name}
    constants = (t for t in graph.tensors.values() if t.is_constant and t.name in read)
    weights = sum(tensor.size_bytes or 0 for tensor in constants)
    owners = _owners(graph)
    sizes = _sizes(graph, owners)
    return MemoryEstimate(weights, _largest_sum(graph, owners, sizes), None not in sizes.values())


# --- parameters ---------------------------------------------------------------------------------


def _weights(graph: Graph) -> Iterator[str]:
    """Each constant with weights once."""
    found, no_weights = dict[str, None](), set[str]()
    for node in graph.nodes:
        no_weights.update(_scales(node))
        found.update((n, None) for n in node.inputs if n and graph.tensors[n].is_constant)
    yield from (n for n in found if n not in no_weights and _is_weight(graph, n))


def _scales(node: Node) -> Iterator[str]:
    """The scales and zero points that an operation states as constants."""
    if applies(node, *_FUSED):
        yield from node.inputs[1:]
    if isinstance(node.operation, Linear):
        yield from (node.inputs[each.slot] for each in node.operation.along)


def _is_weight(graph: Graph, name: str) -> bool:
    tensor = graph.tensors[name]
    if tensor.dtype.startswith(("float", "bfloat")) or tensor.quantization is not None:
        return True
    return any(
        isinstance(node.operation, Linear) and slot in {node.operation.kernel, node.operation.bias}
        for node, slot in graph.consumers[name]
    )


def _values(graph: Graph, name: str) -> int:
    """The number of values of a constant; a packed entry contains several."""
    tensor = graph.tensors[name]
    for node, slot in graph.consumers[name]:
        operation = node.operation
        if isinstance(operation, Linear) and operation.packed_bits and slot == operation.kernel:
            return (tensor.size_bytes or 0) * 8 // operation.packed_bits
    return _count(tensor) or 0


def _count(tensor: Tensor) -> int | None:
    """The number of values with batch 1; None if another dimension is not known."""
    if tensor.shape is None or None in tensor.shape[1:]:
        return None
    count = 1
    for length in tensor.shape:
        count *= 1 if length is None else length
    return count


# --- activations --------------------------------------------------------------------------------


def _largest_sum(graph: Graph, owners: Mapping[str, str], sizes: Mapping[str, int | None]) -> int:
    """The largest sum of the sizes of owners that exist at the same time.

    Step 0 is before the first node, which is step 1.
    """
    first = {owners[name]: 0 for name in graph.inputs}
    last: dict[str, int] = {}
    for step, node in enumerate(graph.nodes, start=1):
        for name in filter(owners.get, node.outputs):
            first.setdefault(owners[name], step)
        last.update((owners[name], step) for name in node.inputs if name in owners)
    last.update((owners[name], len(graph.nodes)) for name in graph.outputs if name in owners)
    changes = [0] * (len(graph.nodes) + 2)
    for name, step in first.items():
        size = sizes[name] or 0
        changes[step] += size
        changes[last.get(name, step) + 1] -= size
    return max(accumulate(changes))


def _owners(graph: Graph) -> dict[str, str]:
    """Computed tensor -> the tensor whose memory it uses.

    A reshape, a quantization and a dequantization are part of the operation next to them: runtimes
    do not copy the values.
    """
    constants = {name for name, tensor in graph.tensors.items() if tensor.is_constant}
    owners = {name: name for name in graph.inputs}
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else ""
        in_place = isinstance(node.operation, Reshape) or applies(node, *_FUSED)
        if in_place and source in constants:
            constants.update(node.outputs)  # computed from a constant: counted as stored
            continue
        for name in filter(None, node.outputs):
            owners[name] = owners.get(source, name) if in_place else name
    return owners


def _sizes(graph: Graph, owners: Mapping[str, str]) -> dict[str, int | None]:
    """Memory of an owner: of the smallest tensor in it, which is the quantized one."""
    sizes: dict[str, int | None] = {}
    for name, owner in owners.items():
        size = _bytes(graph.tensors[name])
        known = sizes.get(owner, size)
        sizes[owner] = None if size is None or known is None else min(size, known)
    return sizes


def _bytes(tensor: Tensor) -> int | None:
    count = _count(tensor)
    if count is None:
        return None
    item = Tensor(tensor.name, (1,), tensor.dtype).size_bytes
    return None if item is None else count * item
