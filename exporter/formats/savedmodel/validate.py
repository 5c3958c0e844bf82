"""Check the graph of an untrusted SavedModel before it is loaded: it may compute, nothing else.

TensorFlow's operators can read and write files, talk to other processes and call Python. Loading a
SavedModel runs some of its functions, and converters run all that they can fold. So all of its
functions are checked before it is loaded.

1. An operator that TensorFlow calls stateful is refused, unless it only stores values.
2. Of the other operators, those that access anything outside the graph are refused by name, because
   TensorFlow does not mark them.
3. The functions that save and restore variables access files. TensorFlow keeps them separate and
   does not run them when it loads; here, no other function may call them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tensorflow.python.framework import op_def_registry

from exporter.errors import ModelError

_SAVER = re.compile(r"__inference__traced_(save|restore)_\d+")


def check_operators(graph: Any, source: str) -> None:
    """Refuse a graph that accesses anything outside of it.

    Args:
        graph: `MetaGraphDef` of a SavedModel.
        source: its name, for the message.

    Raises:
        ModelError: names the operator.
    """
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    waiting = [name for name in library if not _SAVER.fullmatch(name)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in library[name].node_def:
            waiting += [used for used in (node.op, *_called(node)) if used in library]
            if node.op not in library and not only_computes(node.op):
                raise ModelError(
                    f"{source} contains the operator {node.op}, which does more than compute "
                    "from its inputs",
                    "save the model again without it: nothing outside of a model is read or run",
                )


def only_computes(operator: str) -> bool:
    """Does an operator of TensorFlow depend only on its inputs, and change nothing outside?"""
    definition = op_def_registry.get(operator)
    if definition is None:
        return False
    if definition.is_stateful:
        return operator in _STORES_VALUES or _RANDOM.fullmatch(operator) is not None
    return _OUTSIDE.search(operator) is None


def _called(node: Any) -> Iterator[str]:
    """The functions in a node's attributes: branches and bodies."""
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            yield attribute.func.name
        yield from (function.name for function in attribute.list.func)


_RANDOM = re.compile(
    r"Stateful(Standard|Truncated|Uniform|Random)\w*|Random\w+|TruncatedNormal|Multinomial|"
    r"ParameterizedTruncatedNormal|Rng\w+"
)
_OUTSIDE = re.compile(
    r"File|Reader|Dataset|Iterator|PyFunc|Debug|VocabRemapping|Remote|Rpc|Checkpoint|Summary|"
    r"Proto|ImmutableConst|^Abort|^TPU|^Copy"
)
_STORES_VALUES = {
    *("VarHandleOp", "VarIsInitializedOp", "VariableShape", "ReadVariableOp", "DisableCopyOnRead"),
    *("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp", "DestroyResourceOp"),
    *("ResourceGather", "ResourceGatherNd", "ResourceStridedSliceAssign"),
    *("HashTableV2", "MutableHashTableV2", "AnonymousHashTable", "AnonymousMutableHashTable"),
    *("InitializeTableV2", "LookupTableFindV2", "LookupTableImportV2", "LookupTableInsertV2"),
    *("LookupTableExportV2", "LookupTableSizeV2", "StatefulPartitionedCall", "If", "Case", "While"),
    *("Assert", "CheckNumerics", "CheckNumericsV2", "Empty", "GuaranteeConst"),
    "StatelessRandomGetAlg",
}
