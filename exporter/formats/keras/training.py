"""Compile a pruned model like its original.

1. The optimizer is created again with the same settings. If it has run, the values that it stores
   for each weight are cut like the weight; values that cannot be cut start again.
2. Losses are shared: they have no state. Metrics are created again.
3. The number of units is updated in a loss or metric that states it. A loss or metric that refers
   to original unit indices, or has a number for each unit, no longer fits. Such a metric is left
   out, with a warning; without its loss, a model is not compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from exporter.errors import first_line
from exporter.formats.keras.calls import is_plain_model
from exporter.formats.keras.rebuild import REBUILD_ERRORS
from exporter.graph import Array

EditValues = Callable[[Array], Array]  # makes the same edit as a weight's to an array of its shape
_UNIT_COUNTS = ("num_classes", "num_labels")
_UNIT_INDICES = ("class_id", "ignore_class")
_UNIT_VALUES = ("alpha", "label_weights")  # one number per unit


def compile_like(original: Any, pruned: Any, edits: Mapping[int, EditValues]) -> None:
    """Compile a model like another one, if that is compiled; the other does not change.

    Args:
        original: a Functional or Sequential model.
        pruned: has the same layers, some with weights of other shapes.
        edits: identity of an original variable -> the edit of its values.
    """
    stored = getattr(original, "_compile_config", None)
    if not (original.compiled and stored is not None and is_plain_model(original)):
        return
    try:
        arguments = _CompileArguments(original, pruned).of(stored.config)
    except _DoesNotFitError as reason:
        warnings.warn(f"the cut model is not compiled: {reason}", stacklevel=2)
        return
    pruned.compile(**arguments)
    if getattr(original.optimizer, "built", False):
        pruned.optimizer.build(pruned.trainable_variables)
        _copy_optimizer_state(original, pruned, edits)


def compile_from_config(model: Any, config: Any) -> None:
    """Compile a loaded model as its file says, without stored optimizer values.

    Args:
        model: not compiled.
        config: the file's `compile_config`, with checked classes; None if it has none. With a
            custom loss, or an optimizer that this Keras lacks, the model stays uncompiled.
    """
    if not isinstance(config, dict):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parts that are not needed to run the model
            model.compile(**keras.saving.deserialize_keras_object(config))
    except REBUILD_ERRORS:
        model.compiled = False


def build_optimizer(model: Any) -> None:
    """Create the variables of a compiled model's optimizer: Keras warns about a file without."""
    if model.compiled and getattr(model.optimizer, "built", True) is False:
        model.optimizer.build(model.trainable_variables)


class _DoesNotFitError(Exception):
    """A loss or metric does not fit the pruned model."""


class _CompileArguments:
    def __init__(self, original: Any, pruned: Any) -> None:
        self.original = original
        self.widths = {  # original length of an output axis -> new length
            before: after
            for old, new in zip(original.outputs, pruned.outputs, strict=True)
            for before, after in zip(old.shape, new.shape, strict=True)
            if before != after
        }

    def of(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of `compile` for the pruned model (raises if a loss does not fit)."""
        optimizer = self.original.optimizer
        return {
            **stored,
            "optimizer": type(optimizer).from_config(optimizer.get_config()),
            "loss": keras.tree.map_structure(self.loss, stored["loss"]),
            "metrics": self.metrics(stored["metrics"]),
            "weighted_metrics": self.metrics(stored["weighted_metrics"]),
            "auto_scale_loss": False,  # the stored optimizer already scales, if it was asked to
        }

    def loss(self, loss: Any) -> Any:
        if not isinstance(loss, keras.Loss):
            return loss
        config = self.fitted(loss)
        return type(loss).from_config(config) if config != loss.get_config() else loss

    def metrics(self, metrics: Any) -> Any:
        """The same structure without the metrics that do not fit."""
        if isinstance(metrics, Mapping):
            return {name: self.metrics(inner) for name, inner in metrics.items()}
        if isinstance(metrics, list | tuple):
            fitted = [self.metrics(inner) for inner in metrics]
            return [f for f, m in zip(fitted, metrics, strict=True) if f is not None or m is None]
        return self.metric(metrics)

    def metric(self, metric: Any) -> Any:
        if not isinstance(metric, keras.Metric):
            return metric
        function: Any = getattr(metric, "_fn", None)  # a function that was given to `compile`
        known = {function.__name__: function} if hasattr(function, "__name__") else {}
        try:
            with keras.saving.custom_object_scope(known):
                return type(metric).from_config(self.fitted(metric))
        except (_DoesNotFitError, *REBUILD_ERRORS) as error:
            message = f"the cut model lacks {_described(metric)}: {first_line(error)}"
            warnings.warn(message, stacklevel=2)
            return None

    def fitted(self, term: Any) -> dict[str, Any]:
        """The settings of a loss or metric with the new number of units."""
        config: dict[str, Any] = dict(term.get_config())
        indices = [*_UNIT_INDICES, *(["target_class_ids"] if "num_classes" in config else [])]
        for name in indices:
            stated: Any = config.get(name)
            units = [] if stated is None else [int(unit) for unit in np.ravel(stated)]
            if any(0 <= unit < before for before in self.widths for unit in units):
                raise _DoesNotFitError(
                    f"{_described(term)} has {name}={stated}, which is an original unit index"
                )
        for name in _UNIT_VALUES:
            values: Any = config.get(name)
            count = np.size(values) if np.ndim(values) else 0
            if count in self.widths:
                raise _DoesNotFitError(
                    f"{_described(term)} has {name} with {count} entries, one per original unit"
                )
        for name in _UNIT_COUNTS:
            if config.get(name) in self.widths:
                config[name] = self.widths[config[name]]
        return config


def _described(term: Any) -> str:
    return f"{type(term).__name__} {term.name!r}"


def _copy_optimizer_state(original: Any, pruned: Any, edits: Mapping[int, EditValues]) -> None:
    """Copy the optimizer's variables; one with the shape of its weight is edited like it."""
    weights = original.trainable_variables
    pairs = zip(original.optimizer.variables, pruned.optimizer.variables, strict=True)
    for source, target in pairs:
        values = np.asarray(keras.ops.convert_to_numpy(source.value))
        weight = _weight_of(source, weights)
        if weight is not None and id(weight) in edits:
            values = edits[id(weight)](values)
        if values.shape == tuple(target.shape):
            target.assign(values)


def _weight_of(variable: Any, weights: list[Any]) -> Any:
    """The weight that an optimizer's variable belongs to, if it has the same shape."""
    name = variable.path.rpartition("/")[2]
    for weight in weights:
        if name.startswith(f"{weight.path.replace('/', '_')}_") and variable.shape == weight.shape:
            return weight
    return None
