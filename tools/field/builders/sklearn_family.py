"""Classifiers and regressors of scikit-learn, LightGBM, XGBoost and CatBoost, as ONNX."""

from __future__ import annotations

import numpy as np
import onnxmltools
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from onnxmltools.convert.common.data_types import FloatTensorType as ToolsFloat
from recorder import FOLDER, attempt, record, version_of
from skl2onnx import to_onnx
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

CLASSES = 6
X, Y = make_classification(
    600, 12, n_informative=9, n_classes=CLASSES, n_clusters_per_class=1, random_state=3
)
X = X.astype(np.float32)
NAMES = np.array(["cat", "dog", "owl", "fox", "hen", "bee"])[Y]
TARGETS = (X @ np.random.default_rng(1).normal(size=(12, CLASSES))).astype(np.float32)
SKL2ONNX = version_of("skl2onnx", "scikit-learn")

PLAIN = [
    ("logistic", LogisticRegression(max_iter=300), "LinearClassifier, softmax"),
    ("logistic_ovr", OneVsRestClassifier(LogisticRegression()), "one classifier per class"),
    ("sgd", SGDClassifier(loss="log_loss"), "LinearClassifier, logistic per class"),
    ("linear_svc", LinearSVC(), "LinearClassifier, scores"),
    ("mlp", MLPClassifier((24,), max_iter=80), "Dense, softmax"),
    (
        "scaled_logistic",
        make_pipeline(StandardScaler(), LogisticRegression()),
        "Scaler, LinearClassifier",
    ),
    ("tree", DecisionTreeClassifier(max_depth=5), "TreeEnsembleClassifier"),
    ("forest", RandomForestClassifier(12, max_depth=5), "TreeEnsembleClassifier"),
    ("extra_trees", ExtraTreesClassifier(9, max_depth=5), "TreeEnsembleClassifier"),
    ("boosting", GradientBoostingClassifier(n_estimators=5), "TreeEnsembleRegressor, softmax"),
]


def classifier(label: str, model: object, head: str, labels: object, **options: object) -> None:
    model.fit(X, labels)
    file = f"sk_{label}.onnx"
    written = to_onnx(model, X[:1], options={id(model): options} if options else None)
    (FOLDER / file).write_bytes(written.SerializeToString())
    trees = {"plain": True} if head.startswith("TreeEnsembleClassifier") else {}
    record("skl2onnx", SKL2ONNX, file, head, CLASSES, **trees)


def regressor(label: str, model: object, head: str) -> None:
    model.fit(X, TARGETS)
    (FOLDER / f"sk_{label}.onnx").write_bytes(to_onnx(model, X[:1]).SerializeToString())
    record("skl2onnx", SKL2ONNX, f"sk_{label}.onnx", head, CLASSES)


def not_cut(label: str, model: object, head: str, why: str) -> None:
    model.fit(X, Y)
    (FOLDER / f"sk_{label}.onnx").write_bytes(to_onnx(model, X[:1]).SerializeToString())
    record("skl2onnx", SKL2ONNX, f"sk_{label}.onnx", head, 0, why=why)


def boosted(name: str, package: str, model: object, convert: str) -> None:
    model.fit(X, Y)
    file = f"{name}.onnx"
    if convert == "catboost":
        model.save_model(str(FOLDER / file), format="onnx")
        version = version_of("catboost")
    else:
        written = getattr(onnxmltools, convert)(
            model, initial_types=[("input", ToolsFloat([None, 12]))]
        )
        (FOLDER / file).write_bytes(written.SerializeToString())
        version = version_of("onnxmltools", package)
    record(
        "CatBoost" if convert == "catboost" else "onnxmltools",
        version,
        file,
        "TreeEnsembleClassifier",
        CLASSES,
    )


for label, model, head in PLAIN:
    no_zipmap = {} if label == "linear_svc" else {"zipmap": False}
    attempt("sk_" + label, lambda: classifier(label, model, head, Y, **no_zipmap))
attempt(
    "zipmap",
    lambda: classifier("logistic_zipmap", LogisticRegression(), "LinearClassifier, ZipMap", Y),
)
attempt(
    "names",
    lambda: classifier(
        "logistic_names", LogisticRegression(), "LinearClassifier, names, ZipMap", NAMES
    ),
)
attempt(
    "mlp_names",
    lambda: classifier(
        "mlp_names", MLPClassifier((16,), max_iter=60), "Dense, softmax, names", NAMES, zipmap=False
    ),
)
attempt(
    "forest_zipmap",
    lambda: classifier(
        "forest_zipmap",
        RandomForestClassifier(8, max_depth=4),
        "TreeEnsembleClassifier, names, ZipMap",
        NAMES,
    ),
)
attempt(
    "linear_regression",
    lambda: regressor("linear_regression", LinearRegression(), "LinearRegressor"),
)
attempt(
    "ridge",
    lambda: regressor(
        "ridge_scaled", make_pipeline(StandardScaler(), Ridge()), "Scaler, LinearRegressor"
    ),
)
attempt(
    "mlp_regressor",
    lambda: regressor(
        "mlp_regressor", MLPRegressor(hidden_layer_sizes=(20,), max_iter=80), "Dense, linear"
    ),
)
attempt(
    "svc",
    lambda: not_cut(
        "svc",
        SVC(probability=True),
        "SVMClassifier",
        "the probabilities of all pairs of classes are coupled",
    ),
)
attempt(
    "knn",
    lambda: not_cut(
        "knn",
        KNeighborsClassifier(),
        "nearest neighbors",
        "the neighbors vote; no weights belong to a class",
    ),
)
attempt(
    "naive_bayes",
    lambda: classifier("naive_bayes", GaussianNB(), "sums of squares per class", Y, zipmap=False),
)
attempt(
    "lightgbm",
    lambda: boosted(
        "lightgbm", "lightgbm", LGBMClassifier(n_estimators=6, verbose=-1), "convert_lightgbm"
    ),
)
attempt(
    "xgboost",
    lambda: boosted("xgboost", "xgboost", XGBClassifier(n_estimators=6), "convert_xgboost"),
)
attempt(
    "catboost",
    lambda: boosted(
        "catboost", "catboost", CatBoostClassifier(iterations=8, verbose=False), "catboost"
    ),
)
