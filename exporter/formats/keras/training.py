"""What a model was compiled with, carried to the model that was cut out of it.

1. The optimizer is made anew with the same settings. Where it has run, what it remembers of each
   weight is cut as the weight was; what cannot be cut so starts anew.
2. Losses are shared: they hold no state. Metrics are made anew.
3. A loss or metric that counts units is told the new count; one that names units by their old
   indices, or states a number for each, no longer fits. Such a metric is left out, with a warning;
   without its loss a model is not compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from exporter.formats.keras.calls import is_plain_model
from exporter.graph import Array

Cut = Callable[[Array], Array]  # what happened to one weight
_WIDTHS = ("num_classes", "num_labels")
_INDICES = ("class_id", "ignore_class")
_EACH = ("alpha", "label_weights")
_ERRORS = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError)


def compile_alike(old: Any, new: Any, cuts: Mapping[int, Cut]) -> None:
    """Compile a new model as the old one is, if it is; the old one stays as it was.

    Args:
        old: a Functional or Sequential model.
        new: has the same layers, some with weights of other shapes.
        cuts: identity of an old variable -> what makes its values those of the new one.
    """
    given = getattr(old, "_compile_config", None)
    if not (old.compiled and given is not None and is_plain_model(old)):
        return
    terms = _Terms(old, new)
    try:
        settings = terms.settings(given.config)
    except _Unfit as reason:
        warnings.warn(f"the cut model is not compiled: {reason}", stacklevel=2)
        return
    new.compile(**settings)
    if getattr(old.optimizer, "built", False):
        new.optimizer.build(new.trainable_variables)
        _carry_memory(old, new, cuts)


def compile_as_told(model: Any, told: Any) -> None:
    """Compile a model that was loaded as its file says, where that can be done; no memory is used.

    Args:
        model: not compiled.
        told: the file's own words, whose classes were checked; None where it says nothing. A loss
            of the user's own, or an optimizer that Keras no longer has so, leaves the model as is.
    """
    if not isinstance(told, dict):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what does not serve to answer
            model.compile(**keras.saving.deserialize_keras_object(told))
    except _ERRORS:
        model.compiled = False


def make_ready(model: Any) -> None:
    """Let a compiled model's optimizer make its variables: Keras warns of a file without them."""
    if model.compiled and getattr(model.optimizer, "built", True) is False:
        model.optimizer.build(model.trainable_variables)


class _Unfit(Exception):  # noqa: N818 - a finding, not a failure
    """A loss or metric that does not fit the cut model."""


class _Terms:
    def __init__(self, old: Any, new: Any) -> None:
        self.old = old
        ends = zip(old.outputs, new.outputs, strict=True)
        shapes = [(tuple(a.shape), tuple(b.shape)) for a, b in ends]
        # how many units an output had -> how many it has
        self.widths = {
            before: after
            for pair in shapes
            for before, after in zip(*pair, strict=True)
            if before != after
        }

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of `compile` for the new model; _Unfit where a loss does not fit."""
        optimizer = self.old.optimizer
        return {
            **given,
            "optimizer": type(optimizer).from_config(optimizer.get_config()),
            "loss": keras.tree.map_structure(self.loss, given["loss"]),
            "metrics": self.metrics(given["metrics"]),
            "weighted_metrics": self.metrics(given["weighted_metrics"]),
            "auto_scale_loss": False,  # the old model's optimizer does, if it was to
        }

    def loss(self, loss: Any) -> Any:
        if isinstance(loss, keras.Loss):
            config = self.fitted(loss)
            return type(loss).from_config(config) if config != loss.get_config() else loss
        return loss

    def metrics(self, metrics: Any) -> Any:
        """The same structure; what does not fit is left out of it."""
        if isinstance(metrics, Mapping):
            return {name: self.metrics(inner) for name, inner in metrics.items()}
        if isinstance(metrics, list | tuple):
            found = [self.metrics(inner) for inner in metrics]
            return [f for f, m in zip(found, metrics, strict=True) if f is not None or m is None]
        return self.metric(metrics)

    def metric(self, metric: Any) -> Any:
        if not isinstance(metric, keras.Metric):
            return metric
        own: Any = getattr(metric, "_fn", None)  # a function that was given to `compile`
        known = {own.__name__: own} if hasattr(own, "__name__") else {}
        try:
            with keras.saving.custom_object_scope(known):
                return type(metric).from_config(self.fitted(metric))
        except (_Unfit, *_ERRORS) as error:
            line = str(error).strip().partition("\n")[0]
            warnings.warn(f"the cut model does without {_named(metric)}: {line}", stacklevel=2)
            return None

    def fitted(self, term: Any) -> dict[str, Any]:
        """Its settings with the new counts of units."""
        config: dict[str, Any] = dict(term.get_config())
        indices = [*_INDICES, *(["target_class_ids"] if "num_classes" in config else [])]
        for name in indices:
            for unit in _numbers(config.get(name)):
                if any(0 <= unit < before for before in self.widths):
                    raise _Unfit(f"{_named(term)} has {name}={config[name]}, which is an old index")
        for name in _EACH:
            stated: Any = config.get(name)
            count = int(np.size(stated)) if np.ndim(stated) else 0
            if count in self.widths:
                raise _Unfit(f"{_named(term)} has {name} with {count} entries, one an old unit")
        for name in _WIDTHS:
            if config.get(name) in self.widths:
                config[name] = self.widths[config[name]]
        return config


def _named(term: Any) -> str:
    return f"{type(term).__name__} {term.name!r}"


def _numbers(value: Any) -> list[int]:
    return [] if value is None else [int(number) for number in np.ravel(value)]


def _carry_memory(old: Any, new: Any, cuts: Mapping[int, Cut]) -> None:
    """What the optimizer remembers; an entry that has the shape of its weight is cut like it."""
    weights = old.trainable_variables
    pairs = zip(old.optimizer.variables, new.optimizer.variables, strict=True)
    for source, target in pairs:
        values = np.asarray(keras.ops.convert_to_numpy(source.value))
        for weight in _remembered(source, weights):
            if id(weight) in cuts:
                values = cuts[id(weight)](values)
        if values.shape == tuple(target.shape):
            target.assign(values)


def _remembered(entry: Any, weights: list[Any]) -> Iterator[Any]:
    """The weight that an entry of an optimizer is about, if its shape is the weight's."""
    for weight in weights:
        about = entry.path.rpartition("/")[2].startswith(f"{weight.path.replace('/', '_')}_")
        if about and entry.shape == weight.shape:
            yield weight
            return
