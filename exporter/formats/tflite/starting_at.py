"""The part of a TFLite file from some of its tensors on."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from exporter.formats.tflite.draw import Drawing
from exporter.formats.tflite.schema import File, add_signature, integers, signatures


def start_at(file: File, drawing: Drawing, tensors: Collection[str]) -> None:
    """Make these tensors the first inputs of a file, and keep the outputs that depend on them.

    Inputs of the whole file that these outputs read in another way remain inputs. The file gets
    one signature, with the names of the graph.

    Args:
        file: is changed.
        tensors: names of computed ones.
    """
    first = [drawing.tensors[name] for name in tensors]
    after = set(first)
    for operator in file.main.operators:
        if not after.isdisjoint(integers(operator.inputs)):
            after.update(integers(operator.outputs))
    outputs = [index for index in integers(file.main.outputs) if index in after - set(first)]
    needed, operators = set(outputs), []
    for operator in reversed(file.main.operators):
        made = set(integers(operator.outputs))
        if not needed.isdisjoint(made) and made.isdisjoint(first):
            needed.update(integers(operator.inputs))
            operators.append(operator)
    inputs = [*first, *(index for index in integers(file.main.inputs) if index in needed)]
    file.main.operators = operators[::-1]
    file.main.inputs, file.main.outputs = (np.array(each, np.int32) for each in (inputs, outputs))
    names = {index: name for name, index in drawing.tensors.items()}
    main = {id(each) for each in signatures(file.model)}
    others = [each for each in file.model.signatureDefs or () if id(each) not in main]
    file.model.signatureDefs = others
    ends = ([(names[index], index) for index in side] for side in (inputs, outputs))
    add_signature(file.model, *ends)
