"""Check the graph of an untrusted SavedModel before it is loaded: it may compute, nothing else.

TensorFlow's operators can read and write files, talk to other processes and call Python. Loading a
SavedModel runs some of its functions, and converters run all that they can fold. So its functions
are checked before it is loaded.

1. An operator that TensorFlow calls stateful is refused, unless it only stores values, in each
   function that is run: those that a signature calls, and those that create, fill and remove tables
   and other resources, which TensorFlow runs when it loads. Other functions are loaded and never
   run: Keras keeps the step that adapts a Normalization there, which reads a data set.
2. Of the other operators, those that access anything outside the graph are refused by name in all
   functions, because TensorFlow does not mark them, and may fold them when it loads.
3. The functions that save and restore all variables access files. TensorFlow keeps them separate
   and does not run them when it loads; here, no function that is run may call them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tensorflow.python.framework import op_def_registry

from exporter.errors import ModelError

_PLAIN = {"user_object", "function", "bare_concrete_function"}
_SAVER = re.compile(r"__inference__traced_(save|restore)_\d+")


def check_operators(graph: Any, source: str) -> None:
    """Refuse a graph that accesses anything outside of it.

    Args:
        graph: `MetaGraphDef` of a SavedModel.
        source: its name, for the message.

    Raises:
        ModelError: names the operator and its function.
    """
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    run = _called_from(sorted(_run(graph.object_graph_def)), library)
    others = _called_from([name for name in library if not _SAVER.fullmatch(name)], library)
    for name in sorted(run | others):  # a function that is run may have the name of a saver
        for node in library[name].node_def:
            allowed = only_computes if name in run else _is_inert
            if node.op not in library and not allowed(node.op):
                raise ModelError(
                    f"{source} contains the operator {node.op}, which does more than compute "
                    f"from its inputs, in the function {name!r}",
                    "save the model again without it: nothing outside of a model is read or run",
                )


def _called_from(roots: list[str], library: dict[str, Any]) -> set[str]:
    """Functions and the functions that they call, also indirectly."""
    waiting, seen = [name for name in roots if name in library], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            for node in library[name].node_def:
                waiting += [used for used in (node.op, *_called(node)) if used in library]
    return seen


def _run(objects: Any) -> Iterator[str]:
    """The functions that TensorFlow or this package runs.

    Those of plain objects, such as layers, are not run. All others are: of signatures, of tables
    and other resources, and those that restore the values of an object.
    """
    for item in objects.nodes:
        plain = item.WhichOneof("kind") in _PLAIN and not item.registered_name
        if not plain or item.user_object.identifier == "signature_map":
            for child in item.children:
                yield from _functions(objects.nodes[child.node_id])
        for saved in item.saveable_objects.values():
            yield from _functions(objects.nodes[saved.save_function])
            yield from _functions(objects.nodes[saved.restore_function])


def _functions(item: Any) -> Iterator[str]:
    if item.WhichOneof("kind") == "function":
        yield from item.function.concrete_functions
    elif item.WhichOneof("kind") == "bare_concrete_function":
        yield item.bare_concrete_function.concrete_function_name


def _is_inert(operator: str) -> bool:
    """Does an operator do nothing as long as its function is not run?"""
    definition = op_def_registry.get(operator)
    return definition is not None and (definition.is_stateful or _OUTSIDE.search(operator) is None)


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
