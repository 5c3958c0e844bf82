"""Classifiers of the domain ai.onnx.ml: cut ones compute what the original does for the kept units.

onnxruntime runs the original, and NumPy takes the kept classes from its scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from exporter.errors import ModelError
from exporter.formats.onnx import OnnxModel
from exporter.formats.onnx.classical.attributes import DOMAIN
from exporter.formats.onnx.files import from_proto
from exporter.formats.onnx.table import DOMAINS, REASONS, translate
from exporter.graph import Array
from exporter.graph.operations import Elementwise
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_file
from exporter.planning.cut import CutOptions
from exporter.trace import trace
from tests.builders.onnx_models import cut

CLASSES, FEATURES, SAMPLES = 5, 4, 40
KEPT = [1, 3, 4]
NAMES = [f"class {i}" for i in range(CLASSES)]
RNG = np.random.default_rng(3)
X = RNG.normal(size=(SAMPLES, FEATURES)).astype(np.float32)
WEIGHTS = RNG.normal(size=(CLASSES, FEATURES)).astype(np.float32)
OFFSETS = RNG.normal(size=CLASSES).astype(np.float32)


def ml(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> NodeProto:
    return helper.make_node(
        operator, inputs, outputs, operator.lower(), domain="ai.onnx.ml", **attributes
    )


def linear(post: str = "SOFTMAX", labels: str = "ints", **more: Any) -> NodeProto:
    values = NAMES if labels == "strings" else [3 * i + 2 for i in range(CLASSES)]
    stated = {f"classlabels_{labels}": values, "intercepts": OFFSETS.tolist(), **more}
    coefficients = WEIGHTS.ravel().tolist()
    return ml(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        coefficients=coefficients,
        post_transform=post,
        **stated,
    )


def stumps(entries: str) -> dict[str, Any]:
    """Two trees of one decision for each class, whose leaves count for this class only."""
    trees, nodes, modes, features, thresholds, true, false = [], [], [], [], [], [], []
    owners: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(2 * CLASSES):
        for node in range(3):
            trees.append(tree)
            nodes.append(node)
            modes.append("LEAF" if node else "BRANCH_LT")
            features.append(0 if node else tree % FEATURES)
            thresholds.append(0.0 if node else float(RNG.normal()))
            true.append(0 if node else 1)
            false.append(0 if node else 2)
            if node:
                row = (tree, node, tree % CLASSES, float(RNG.normal()))
                for name, value in zip(owners, row, strict=True):
                    owners[name].append(value)
    return {
        "nodes_treeids": trees,
        "nodes_nodeids": nodes,
        "nodes_modes": modes,
        "nodes_featureids": features,
        "nodes_values": thresholds,
        "nodes_truenodeids": true,
        "nodes_falsenodeids": false,
        **{f"{entries}_{name}": values for name, values in owners.items()},
    }


def forest(post: str = "SOFTMAX", **more: Any) -> NodeProto:
    return ml(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "scores"],
        classlabels_int64s=list(range(CLASSES)),
        post_transform=post,
        **{**stumps("class"), **more},
    )


def model(
    *nodes: NodeProto,
    outputs: Mapping[str, Any] | None = None,
    constants: Mapping[str, Array] | None = None,
    standard: bool = True,
) -> ModelProto:
    """Outputs: name -> type and shape; by default labels and scores of a classifier."""
    strings = any(a.name == "classlabels_strings" for a in nodes[0].attribute)
    label = TensorProto.STRING if strings else TensorProto.INT64
    given = outputs or {"label": (label, [None]), "scores": (TensorProto.FLOAT, [None, CLASSES])}
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, FEATURES])],
        [
            helper.make_tensor_value_info(name, *kind)
            if isinstance(kind, tuple)
            else helper.make_value_info(name, kind)
            for name, kind in given.items()
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("ai.onnx.ml", 3)]
    opsets += [helper.make_opsetid("", 17)] * standard
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def ran(content: bytes) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": X}), strict=True))


def opened(proto: ModelProto) -> OnnxModel:
    return from_proto(proto, "classical.onnx")


def renormalized(scores: Array) -> Array:
    kept = scores[:, KEPT]
    return np.asarray(kept / np.abs(kept).sum(axis=1, keepdims=True))


def taken(scores: Array) -> Array:
    return scores[:, KEPT]


MATRIX = {"scores": (TensorProto.FLOAT, [None, CLASSES])}
NORMALIZED = {"p": (TensorProto.FLOAT, [None, CLASSES])}
L1 = ml("Normalizer", ["scores"], ["p"], norm="L1")

CUT = {
    "softmax, integers": (model(linear()), renormalized),
    "softmax, strings": (model(linear(labels="strings")), renormalized),
    "no activation": (model(linear("NONE")), taken),
    "sigmoid": (model(linear("LOGISTIC")), taken),
    "a normalizer after a softmax": (model(linear(), L1, outputs=NORMALIZED), renormalized),
    "one against the rest": (model(linear("LOGISTIC"), L1, outputs=NORMALIZED), renormalized),
    "no standard operators": (model(linear(), standard=False), renormalized),
    "scaled by one number": (
        model(
            linear("NONE"),
            ml("Scaler", ["scores"], ["p"], offset=[0.5], scale=[2.0]),
            outputs=NORMALIZED,
        ),
        taken,
    ),
    "trees": (model(forest()), renormalized),
    "trees with base values": (
        model(forest("NONE", base_values=OFFSETS.tolist()), standard=False),
        taken,
    ),
    "linear regression": (
        model(
            ml(
                "LinearRegressor",
                ["x"],
                ["scores"],
                coefficients=WEIGHTS.ravel().tolist(),
                intercepts=OFFSETS.tolist(),
                targets=CLASSES,
            ),
            outputs={"scores": (TensorProto.FLOAT, [None, 1])},  # as skl2onnx states it
        ),
        taken,
    ),
    "targets without a leaf, which onnxruntime gives no base value": (
        model(
            ml(
                "TreeEnsembleRegressor",
                ["x"],
                ["scores"],
                n_targets=CLASSES,
                base_values=OFFSETS.tolist(),
                **{**stumps("target"), "target_ids": [0, 3] * (2 * CLASSES)},
            ),
            outputs=MATRIX,
        ),
        taken,
    ),
    "classes without a leaf": (
        model(
            forest("NONE", base_values=OFFSETS.tolist(), class_ids=[0, 3] * (2 * CLASSES)),
        ),
        taken,
    ),
    "the mean of trees": (
        model(
            ml(
                "TreeEnsembleRegressor",
                ["x"],
                ["scores"],
                n_targets=CLASSES,
                aggregate_function="AVERAGE",
                **stumps("target"),
            ),
            outputs=MATRIX,
        ),
        taken,
    ),
}


def labels_of(proto: ModelProto) -> list[Any]:
    values = {a.name: helper.get_attribute_value(a) for a in proto.graph.node[0].attribute}
    texts = values.get("classlabels_strings")
    if texts:
        return [text.decode() for text in texts]
    return list(values.get("classlabels_ints") or values.get("classlabels_int64s") or ())


@pytest.mark.parametrize("name", CUT)
def test_scores_and_labels_of_a_cut_file(name: str) -> None:
    proto, expected = CUT[name]
    before, after = ran(proto.SerializeToString()), ran(cut(opened(proto), KEPT).to_bytes())
    scores = "p" if "p" in before else "scores"
    np.testing.assert_allclose(after[scores], expected(before[scores]), atol=1e-6)
    if "label" in before:
        known = [labels_of(proto)[unit] for unit in KEPT]
        best = before[scores][:, KEPT].argmax(axis=1)
        assert after["label"].tolist() == [known[unit] for unit in best]


@pytest.mark.parametrize("mode", ["mask", "zero"])
@pytest.mark.parametrize("name", ["softmax, integers", "trees with base values", "sigmoid"])
def test_modes_that_keep_the_width(name: str, mode: str) -> None:
    """The kept scores: those of the original, renormalized if the mode does that."""
    proto, _ = CUT[name]
    before, after = ran(proto.SerializeToString()), ran(cut(opened(proto), KEPT, mode).to_bytes())
    if name != "softmax, integers":
        np.testing.assert_allclose(after["scores"][:, KEPT], before["scores"][:, KEPT], atol=1e-6)
    elif mode == "mask":
        scores = renormalized(before["scores"])
        np.testing.assert_allclose(after["scores"][:, KEPT], scores, atol=1e-6)
        assert not after["scores"][:, [0, 2]].any()


@pytest.mark.parametrize("kept", [[2], [4, 0]])
@pytest.mark.parametrize("name", ["softmax, strings", "trees"])
def test_few_classes(name: str, kept: list[int]) -> None:
    """onnxruntime takes an operator with one or two classes for a binary one."""
    proto, _ = CUT[name]
    before, after = ran(proto.SerializeToString()), ran(cut(opened(proto), kept).to_bytes())
    scores = before["scores"][:, kept]
    expected = scores / scores.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after["scores"], expected, atol=1e-6)
    known = [labels_of(proto)[unit] for unit in kept]
    assert after["label"].tolist() == [known[unit] for unit in scores.argmax(axis=1)]


def test_a_number_for_each_column_is_refused(tmp_path: Path) -> None:
    scaler = ml("Scaler", ["scores"], ["p"], offset=[0.0], scale=[1.0, 2.0, 3.0, 4.0, 5.0])
    path = tmp_path / "net.onnx"
    path.write_bytes(model(linear("NONE"), scaler, outputs=NORMALIZED).SerializeToString())
    with pytest.raises(ModelError, match="scales each column by a number of its own"):
        prune_file(path, tmp_path / "cut.onnx", CutOptions(keep="1,3"), Job())


@pytest.mark.parametrize("operator", ["SVMClassifier", "SVMRegressor", "TreeEnsemble"])
def test_operators_without_a_rule_are_named(operator: str) -> None:
    assert REASONS[operator] in str(translate("ai.onnx.ml", operator, None))  # type: ignore[arg-type]


def test_a_softmax_over_several_labels_is_elementwise() -> None:
    assert DOMAINS[DOMAIN]["NormalizerOfProbabilities"](None) == Elementwise()  # type: ignore[arg-type]


def test_trees_of_removed_classes_are_dropped() -> None:
    proto, _ = CUT["trees"]
    node = cut(opened(proto), KEPT).proto.graph.node[0]
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert node.op_type == "TreeEnsembleClassifier"
    assert sorted(set(values["nodes_treeids"])) == [1, 3, 4, 6, 8, 9]  # tree % 5 is its class
    assert sorted(set(values["class_ids"])) == [0, 1, 2]


def test_an_opened_file_is_written_as_it_was() -> None:
    for proto, _ in CUT.values():
        again = opened(proto).proto
        assert [n.op_type for n in again.graph.node] == [n.op_type for n in proto.graph.node]
        before, after = ran(proto.SerializeToString()), ran(again.SerializeToString())
        assert all(np.array_equal(before[name], after[name]) for name in before)


def zip_map(labels: str) -> NodeProto:
    values = NAMES if labels == "strings" else list(range(CLASSES))
    return ml("ZipMap", ["scores"], ["maps"], **{f"classlabels_{labels}": values})


def maps(key: int) -> dict[str, Any]:
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
    return {"maps": kind}


ZIPPED = {
    "int64s": model(linear(), zip_map("int64s"), outputs=maps(TensorProto.INT64)),
    "strings": model(linear(), zip_map("strings"), outputs=maps(TensorProto.STRING)),
}


@pytest.mark.parametrize("labels", ZIPPED)
def test_maps_have_the_kept_labels(labels: str, tmp_path: Path) -> None:
    proto = ZIPPED[labels]
    path, out = tmp_path / "net.onnx", tmp_path / "cut.onnx"
    path.write_bytes(proto.SerializeToString())
    done = prune_file(path, out, CutOptions(keep="1,3,4"), Job())
    assert all(check.passed for check in done.checks)
    before, after = ran(path.read_bytes())["maps"], ran(out.read_bytes())["maps"]
    known = NAMES if labels == "strings" else list(range(CLASSES))
    for old, new in zip(before, after, strict=True):
        total = sum(old[known[unit]] for unit in KEPT)
        assert set(new) == {known[unit] for unit in KEPT}
        assert all(new[key] == pytest.approx(old[key] / total, abs=1e-6) for key in new)


def test_no_operation_can_follow_maps(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(ZIPPED["strings"].SerializeToString())
    with pytest.raises(ModelError, match="returns maps, and no operation can follow it"):
        prune_file(path, tmp_path / "cut.onnx", CutOptions(keep="1,3", emit="ids"), Job())


TABLE = np.asarray(NAMES, object)
PROBABILITIES = helper.make_node("Softmax", ["z"], ["scores"], axis=1)
PRODUCT = [helper.make_node("Gemm", ["x", "w", "b"], ["z"], "head", transB=1), PROBABILITIES]
BEST = helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0)
KERNEL = {"w": WEIGHTS, "b": OFFSETS}
TEXTS = {"label": (TensorProto.STRING, None), **MATRIX}
FIXED = helper.make_node("Reshape", ["found", "shape"], ["label"])
LOOK_UPS = {
    "ArrayFeatureExtractor": model(
        *PRODUCT,
        BEST,
        ml("ArrayFeatureExtractor", ["table", "best"], ["found"]),
        FIXED,
        outputs={"label": (TensorProto.STRING, [None]), **MATRIX},
        constants={**KERNEL, "table": TABLE, "shape": np.array([-1])},
    ),
    "LabelEncoder": model(
        *PRODUCT,
        BEST,
        ml(
            "LabelEncoder",
            ["best"],
            ["label"],
            keys_int64s=[4, 3, 2, 1, 0],
            values_strings=NAMES[::-1],
        ),
        outputs={"label": (TensorProto.STRING, [None]), **MATRIX},
        constants=KERNEL,
    ),
}


@pytest.mark.parametrize("operator", LOOK_UPS)
def test_tables_of_labels_are_cut_and_name_the_units(operator: str, tmp_path: Path) -> None:
    proto = LOOK_UPS[operator]
    assert trace(opened(proto).graph()).head().labels == tuple(NAMES)
    path, out = tmp_path / "net.onnx", tmp_path / "cut.onnx"
    path.write_bytes(proto.SerializeToString())
    done = prune_file(path, out, CutOptions(keep="class 1,class 3,class 4"), Job())
    assert all(check.passed for check in done.checks)
    before, after = ran(path.read_bytes()), ran(out.read_bytes())
    best = before["scores"][:, KEPT].argmax(axis=1)
    assert after["label"].tolist() == [NAMES[KEPT[unit]] for unit in best]


REFUSED = {
    "two classes of trees": (
        ml(
            "TreeEnsembleClassifier",
            ["x"],
            ["label", "scores"],
            classlabels_int64s=[0, 1],
            **stumps("class"),
        ),
        "nothing would be left to decide",
    ),
    "one row for two classes": (
        ml(
            "LinearClassifier",
            ["x"],
            ["label", "scores"],
            classlabels_ints=[0, 1],
            coefficients=WEIGHTS[0].tolist(),
            intercepts=[0.5],
        ),
        "nothing would be left to decide",
    ),
    "probit": (linear("PROBIT"), "no rule for its post_transform PROBIT"),
    "softmax with zeros": (linear("SOFTMAX_ZERO"), "its post_transform SOFTMAX_ZERO"),
    "largest leaf": (
        ml(
            "TreeEnsembleRegressor",
            ["x"],
            ["scores"],
            n_targets=CLASSES,
            aggregate_function="MAX",
            **stumps("target"),
        ),
        "its aggregate_function MAX",
    ),
    "too few intercepts": (linear(intercepts=[1.0, 2.0]), "do not fit together"),
    "support vectors": (
        ml("SVMClassifier", ["x"], ["label", "scores"], classlabels_ints=[0, 1, 2]),
        "votes decide the class",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operators_that_are_not_cut_are_refused_by_their_reason(name: str) -> None:
    node, reason = REFUSED[name]
    outputs = {"scores": (TensorProto.FLOAT, [None, None])}
    found = trace(opened(model(node, outputs=outputs)).graph())
    assert not found.heads
    assert reason in found.refusals[0].reason
    assert found.refusals[0].operation == f"{node.op_type} '{node.op_type.lower()}'"


def test_several_labels_for_a_sample() -> None:
    """A Binarizer returns 1 for each score above 0.5: both outputs are cut."""
    nodes = [
        PRODUCT[0],
        helper.make_node("Sigmoid", ["z"], ["scores"]),
        ml("Binarizer", ["scores"], ["chosen"], threshold=0.5),
    ]
    outputs = {**MATRIX, "chosen": (TensorProto.FLOAT, [None, CLASSES])}
    proto = model(*nodes, outputs=outputs, constants=KERNEL)
    before, after = ran(proto.SerializeToString()), ran(cut(opened(proto), KEPT).to_bytes())
    for name in before:
        np.testing.assert_allclose(after[name], taken(before[name]), atol=1e-6)


@pytest.mark.parametrize("norm", ["L1", "L2", "MAX"])
def test_normalizers(norm: str) -> None:
    nodes = [
        PRODUCT[0],
        helper.make_node("Exp", ["z"], ["scores"]),
        ml("Normalizer", ["scores"], ["p"], norm=norm),
    ]
    proto = model(*nodes, outputs=NORMALIZED, constants=KERNEL)
    head = trace(opened(proto).graph()).head()
    assert (head.activation, head.z) == (f"{norm.lower()}_normalize", "scores")
    kept = np.exp((X @ WEIGHTS.T + OFFSETS)[:, KEPT].astype(np.float64))
    size = {
        "L1": kept.sum(axis=1),
        "L2": np.sqrt((kept**2).sum(axis=1)),
        "MAX": kept.max(axis=1),
    }[norm]
    after = ran(cut(opened(proto), KEPT).to_bytes())["p"]
    np.testing.assert_allclose(after, kept / size[:, None], rtol=1e-5)
