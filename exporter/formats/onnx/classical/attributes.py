"""What the attributes of a classical operator state, and which operators cannot be split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

ML_DOMAIN = "ai.onnx.ml"
DOMAIN = "exporter.ai.onnx.ml"  # of the nodes that `split` makes; no file has it


class Form(NamedTuple):
    """One operator that computes a score for each class or target.

    Attributes:
        offsets: attribute with a number that is added to each score.
        labels: attributes with the class labels: integers, strings. () for a regressor.
        targets: attribute with the number of scores; "" for a classifier.
        entries: start of the attributes with the weights of leaves; "" for a linear operator.
        regressor: the operator that computes the same scores, and nothing from them.
    """

    offsets: str
    labels: tuple[str, ...]
    targets: str
    entries: str
    regressor: str


FORMS: Mapping[str, Form] = {
    "LinearClassifier": Form(
        "intercepts", ("classlabels_ints", "classlabels_strings"), "", "", "LinearRegressor"
    ),
    "LinearRegressor": Form("intercepts", (), "targets", "", "LinearRegressor"),
    "TreeEnsembleClassifier": Form(
        "base_values",
        ("classlabels_int64s", "classlabels_strings"),
        "",
        "class",
        "TreeEnsembleRegressor",
    ),
    "TreeEnsembleRegressor": Form(
        "base_values", (), "n_targets", "target", "TreeEnsembleRegressor"
    ),
}

ACTIVATIONS: Mapping[str, str] = {"NONE": "", "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}
"""post_transform -> the standard operator; "" for none."""


def scores_of(operator: str, attributes: Mapping[str, Any]) -> int:
    """The number of classes or targets."""
    form = FORMS[operator]
    if form.targets:
        return int(attributes.get(form.targets, 1))
    return max((len(attributes.get(name, ())) for name in form.labels), default=0)


def offsets_of(operator: str, attributes: Mapping[str, Any]) -> Any:
    """The numbers that are added to the scores; () if there are none."""
    name = FORMS[operator].offsets
    return attributes.get(f"{name}_as_tensor", attributes.get(name, ()))


def why_whole(operator: str, attributes: Mapping[str, Any]) -> str:
    """Why an operator cannot be split; "" if it can be."""
    post = attributes.get("post_transform", "NONE")
    form, scores = FORMS[operator], scores_of(operator, attributes)
    offsets = len(np.atleast_1d(offsets_of(operator, attributes)))
    if post not in ACTIVATIONS:
        return f"there is no rule for its post_transform {post}"
    if form.entries:
        used = set(map(int, attributes.get(f"{form.entries}_ids", ())))
        aggregate = attributes.get("aggregate_function", "SUM")
        if aggregate not in {"SUM", "AVERAGE"}:
            return f"there is no rule for its aggregate_function {aggregate}"
        one_row = form.labels and scores <= 2  # noqa: PLR2004 - classes
        inside = used <= set(range(scores))
    else:
        one_row = form.labels and scores <= 2 and offsets < 2  # noqa: PLR2004 - two rows are two scores
        inside = scores > 0 and len(attributes.get("coefficients", ())) % scores == 0
    if one_row:
        return "it decides between two classes, and nothing would be left to decide"
    if not inside or offsets not in {0, scores}:
        return "its attributes do not fit together"
    return ""
