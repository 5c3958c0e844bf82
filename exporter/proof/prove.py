"""Prove that a file is the result of the cut that its remap describes.

The cut is made again from the original, and the two structures are compared. No model runs. The
result is one of three:

- "proved": the file computes the same as the cut that was made again: equal operations, attributes,
  connections, constants, quantization, interface, labels and tables.
- "sampled": the structures cannot be compared, or differ in a way that a known rewriter explains,
  such as quantization. The comparison on samples decides.
- "different": something differs that no known rewriter changes. This is a failed check.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from exporter.errors import ExporterError
from exporter.formats.model import Model
from exporter.formats.structure import HasStructure, Structure, quantized_since
from exporter.proof.compare import INTERFACE, TABLE, Difference, compare_structures
from exporter.proof.explain import explain
from exporter.proof.rederive import rederive
from exporter.proof.tables import compare_remaps
from exporter.records import Proof
from exporter.remap import Remap

_SHOWN = 3  # differences; the others are counted


def prove(
    original: Model,
    cut: Model,
    remap: Remap | None,
    *,
    quantized: bool | None = None,
    recovered: Remap | None = None,
) -> Proof:
    """Compare a file with the cut of the original that its remap describes.

    Args:
        original: the model that was cut, or the first one of a chain of cuts.
        cut: the file.
        remap: in the file, or next to it; None if the file was not cut.
        quantized: whether the file was quantized after the original; None if its remap states it.
            How the file looks does not count.
        recovered: the remap that the weights of a file without one show. It is a guess, so it can
            prove the file, and never make it "different".
    """
    if not (isinstance(original, HasStructure) and isinstance(cut, HasStructure)):
        return Proof("sampled", "Keras models have no structure that can be compared")
    if original.kind != cut.kind:
        return Proof("sampled", "a converted file has no structure in common with its original")
    if quantized is None:
        quantized = quantized_since(original, cut, remap) is not None
    if remap is None or remap.is_same_cut(original.remap):
        return _prove_uncut(original, cut, recovered, quantized=quantized)
    if original.remap is not None and not remap.steps:
        return Proof("sampled", "the file does not record the steps of its cuts")
    return _prove_cut(original, cut, remap, quantized=quantized)


def _prove_cut(original: Model, cut: Model, remap: Remap, *, quantized: bool) -> Proof:
    try:
        made = rederive(original, remap)
    except ExporterError as error:
        if quantized:
            return Proof("sampled", "it was quantized, and cut after that")
        return different([f"{original.name} cannot be cut as the remap says: {error.message}"])
    differences = list(compare_remaps(made.remap, remap, quantized=quantized))
    if quantized:
        if differences:
            return different(map(str, differences))
        return Proof("sampled", "it was quantized after the cut")
    return _judge(_structure(made.model), _structure(cut), differences)


def _structure(model: Model) -> Structure:
    assert isinstance(model, HasStructure)  # noqa: S101 - narrows the type; `prove` has checked it
    return model.structure()


def _prove_uncut(original: Model, cut: Model, recovered: Remap | None, *, quantized: bool) -> Proof:
    if quantized:
        return Proof("sampled", "it was quantized")
    found = _structure(cut)
    if not compare_structures(_structure(original), found):
        return Proof("proved", "")
    if recovered is None:
        return Proof("sampled", "it states no cut of this file, and its structure is another one")
    with suppress(ExporterError):
        made = rederive(original, recovered)
        if not compare_structures(_structure(made.model), found):
            return Proof("proved", "")
    return Proof("sampled", "a cut to the units that it seems to keep has another structure")


def _judge(expected: Structure, found: Structure, tables: list[Difference]) -> Proof:
    differences = [*tables, *compare_structures(expected, found)]
    if not differences:
        return Proof("proved", "")
    strict = [each for each in differences if each.kind in {INTERFACE, TABLE}]
    reason = explain(expected, found)
    if reason and not strict:
        return Proof("sampled", reason)
    return different(map(str, differences if not reason else strict))


def different(facts: Iterator[str] | list[str]) -> Proof:
    """The result "different", with the first facts and the number of the others."""
    found = list(facts)
    more = f"; and {len(found) - _SHOWN} more differences" if len(found) > _SHOWN else ""
    return Proof("different", "; ".join(found[:_SHOWN]) + more)
