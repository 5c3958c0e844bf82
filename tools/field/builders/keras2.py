"""Files of Keras 2: tf.keras of TensorFlow 2.4 to 2.15, and the package tf_keras after that."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import tensorflow as tf
from recorder import FOLDER, answers, attempt, record, version_of

NEWER = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 16)
if NEWER:
    import tf_keras as keras

    VERSION = version_of("tf_keras") + ", TensorFlow " + tf.__version__
else:
    keras = tf.keras
    VERSION = "TensorFlow " + tf.__version__
layers = keras.layers
PRODUCER = "tf_keras" if NEWER else "tf.keras (Keras 2)"
MARK = tf.__version__.replace(".", "")[:3] if not tf.__version__.startswith("2.4") else "24"
HAS_ARCHIVE = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 12)
UNITS = 10
RANDOM = np.random.default_rng(7)


def image(size: int = 32):
    return keras.Input((size, size, 3), name="image")


def randomize(model) -> None:
    """Move every weight away from 0 and 1, so that no error hides."""
    for weight in model.weights:
        if "int" in weight.dtype.name or "string" in weight.dtype.name:
            continue
        if len(weight.shape) == 1:
            weight.assign(np.abs(weight.numpy() + RANDOM.normal(0, 0.2, weight.shape)) + 0.05)


def save(
    model, label: str, head: str, inputs, kinds=("h5", "keras"), units: int = UNITS, **row
) -> None:
    """Save in each kind of file, with the answers of this Keras."""
    randomize(model)
    outputs = model.predict(inputs, verbose=0)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    names = [tensor.name.split(":")[0] for tensor in model.inputs]
    feeds = dict(zip(names, inputs if isinstance(inputs, list) else [inputs]))
    for kind in kinds:
        if kind == "keras" and not HAS_ARCHIVE:
            continue
        file = "%s_%s%s" % (label, MARK, "" if kind == "savedmodel" else "." + kind)
        if kind == "savedmodel":
            model.save(str(FOLDER / file), save_format="tf")
        else:
            model.save(str(FOLDER / file))
        answers(file, feeds, outputs)
        record(PRODUCER, VERSION, file, head, units, **row)


def pictures(size: int = 32):
    return RANDOM.uniform(-1, 1, (4, size, size, 3)).astype("float32")


def normal(*shape: int):
    return RANDOM.normal(size=shape).astype("float32")


def classify(x, y, label: str, head: str, inputs, *kinds, **row) -> None:
    """Save a model with a Dense layer and a softmax over its features y."""
    model = keras.Model(x, layers.Dense(UNITS, activation="softmax")(y))
    save(model, label, head, inputs, *kinds, **row)


def plain() -> None:
    x = image()
    y = layers.Conv2D(8, 3, activation="relu")(x)
    y = layers.BatchNormalization()(y)
    y = layers.GlobalAveragePooling2D()(y)
    y = layers.Dropout(0.2)(y)
    save(
        keras.Model(x, layers.Dense(UNITS, activation="softmax", name="probs")(y)),
        "cnn",
        "Dense, softmax",
        pictures(),
        ("h5", "keras", "savedmodel"),
    )


def transfer() -> None:
    base = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, include_top=False, weights=None)
    x = image(64)
    y = base(x, training=False)
    y = layers.GlobalAveragePooling2D()(y)
    classify(
        x,
        y,
        "transfer",
        "Dense over a nested MobileNetV2",
        pictures(64),
        ("h5", "keras", "savedmodel"),
    )


def teachable_machine() -> None:
    base = keras.applications.MobileNet((64, 64, 3), alpha=0.25, include_top=False, weights=None)
    features = keras.Sequential(
        [keras.Model(base.input, base.layers[-2].output), layers.GlobalAveragePooling2D()]
    )
    head = keras.Sequential(
        [
            layers.Dense(20, activation="relu", input_shape=(256,)),
            layers.Dense(UNITS, activation="softmax", use_bias=False),
        ]
    )
    save(
        keras.Sequential([features, head]),
        "teachable",
        "Sequential in Sequential in Sequential",
        pictures(64),
    )


def shared_nested() -> None:
    inner = keras.Sequential(
        [layers.Conv2D(6, 3, activation="relu"), layers.GlobalMaxPooling2D()], name="tower"
    )
    left, right = keras.Input((32, 32, 3), name="left"), keras.Input((32, 32, 3), name="right")
    y = layers.Concatenate()([inner(left), inner(right)])
    classify([left, right], y, "siamese", "Dense over a model used twice", [pictures(), pictures()])


def recurrent() -> None:
    x = keras.Input((12, 5), name="steps")
    y = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x)
    y = layers.GRU(7)(y)
    classify(
        x,
        y,
        "recurrent",
        "Dense over LSTM and GRU",
        normal(4, 12, 5),
        ("h5", "keras", "savedmodel"),
    )


def tagging() -> None:
    x = keras.Input((9,), dtype="int32", name="tokens")
    y = layers.Embedding(50, 8, mask_zero=True)(x)
    y = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(y)
    y = layers.TimeDistributed(layers.Dense(UNITS, activation="softmax"))(y)
    save(
        keras.Model(x, y),
        "tagging",
        "TimeDistributed(Dense), softmax",
        RANDOM.integers(1, 50, (4, 9)).astype("int32"),
    )


def depthwise() -> None:
    x = image()
    y = layers.DepthwiseConv2D(3)(x)
    y = layers.SeparableConv2D(8, 3, activation="relu")(y)
    y = layers.Conv2DTranspose(6, 2)(y)
    y = layers.Conv2D(UNITS, 1)(y)
    save(
        keras.Model(x, layers.GlobalAveragePooling2D()(y)),
        "depthwise",
        "Conv2D 1x1, average",
        pictures(),
    )


def segmentation() -> None:
    x = image()
    y = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    save(
        keras.Model(
            x, layers.Conv2DTranspose(UNITS, 3, strides=2, padding="same", activation="softmax")(y)
        ),
        "unet",
        "Conv2DTranspose, softmax per pixel",
        pictures(),
    )


def augmented() -> None:
    x = image()
    y = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
            layers.Rescaling(0.5),
        ],
        name="augment",
    )(x)
    y = layers.Flatten()(layers.Conv2D(6, 5, strides=4)(y))
    save(
        keras.Model(x, layers.Dense(UNITS)(y)),
        "augmented",
        "Dense, logits; random layers",
        pictures(),
    )


def normalized() -> None:
    table = RANDOM.normal(3, 2, (200, 7)).astype("float32")
    norm = layers.Normalization()
    norm.adapt(table)
    x = keras.Input((7,), name="columns")
    y = layers.Dense(12, activation="relu")(norm(x))
    model = keras.Model(x, layers.Dense(UNITS, activation="sigmoid")(y))
    outputs = model.predict(table[:4], verbose=0)
    for kind in ("h5", "keras", "savedmodel"):
        if kind == "keras" and not HAS_ARCHIVE:
            continue
        file = "normalized_%s%s" % (MARK, "" if kind == "savedmodel" else "." + kind)
        model.save(str(FOLDER / file))
        answers(file, {"columns": table[:4]}, [outputs])
        record(PRODUCER, VERSION, file, "Dense, sigmoid; adapted Normalization", UNITS)


def two_heads() -> None:
    x = image()
    y = layers.Flatten()(layers.Conv2D(4, 5, strides=5)(x))
    model = keras.Model(
        x,
        [layers.Dense(UNITS, activation="softmax", name="kind")(y), layers.Dense(1, name="age")(y)],
    )
    save(model, "two_heads", "Dense, softmax; another output", pictures(), name="kind")


def attention() -> None:
    x = keras.Input((8, 12), name="steps")
    y = layers.MultiHeadAttention(2, 6)(x, x)
    y = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(layers.Add()([x, y])))
    classify(x, y, "attention", "Dense over MultiHeadAttention", normal(4, 8, 12))


def operators() -> None:
    x = keras.Input((8,), name="values")
    y = tf.nn.relu(layers.Dense(12)(x)) * 2.0 + 1.0
    classify(
        x, y, "tfoplambda", "Dense over TensorFlow functions", normal(4, 8), ("h5", "savedmodel")
    )


def tflite(label: str, head: str, **settings) -> None:
    x = image()
    y = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    y = layers.DepthwiseConv2D(3)(y)
    y = layers.GlobalAveragePooling2D()(y)
    model = keras.Model(x, layers.Dense(UNITS, activation="softmax")(y))
    randomize(model)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    for name, value in settings.items():
        setattr(converter, name, value)
    file = "%s_%s.tflite" % (label, MARK)
    (FOLDER / file).write_bytes(converter.convert())
    record(
        "TFLiteConverter",
        "TensorFlow " + tf.__version__,
        file,
        head,
        UNITS,
        **{"half16": {"limit": 4e-3}, "int8io": {"step": 1 / 256}}.get(label, {}),
    )


def calibration():
    for _ in range(20):
        yield [pictures()[:1]]


def converted() -> None:
    """tf2onnx as people call it: on the command line, from a SavedModel."""
    source, file = FOLDER / ("cnn_" + MARK), "tf2onnx_%s.onnx" % MARK
    if not source.is_dir():
        return
    places = ["--saved-model", str(source), "--output", str(FOLDER / file)]
    command = [sys.executable, "-m", "tf2onnx.convert", *places, "--opset", "13"]
    subprocess.run(command, check=True)
    record(
        "tf2onnx CLI",
        version_of("tf2onnx") + ", TensorFlow " + tf.__version__,
        file,
        "Dense, softmax",
        UNITS,
    )


BUILDS = [
    plain,
    transfer,
    teachable_machine,
    shared_nested,
    recurrent,
    tagging,
    depthwise,
    segmentation,
    augmented,
    normalized,
    two_heads,
    attention,
    operators,
    converted,
]
for build in BUILDS:
    attempt(build.__name__, build)
DEFAULT = [tf.lite.Optimize.DEFAULT]
WHOLE = {"optimizations": DEFAULT, "representative_dataset": calibration}
attempt("tflite float", lambda: tflite("float", "Dense, softmax"))
attempt(
    "tflite dynamic",
    lambda: tflite("dynamic", "Dense, softmax; int8 weights", optimizations=DEFAULT),
)
attempt(
    "tflite half",
    lambda: tflite(
        "half16",
        "Dense, softmax; float16 weights",
        optimizations=DEFAULT,
        target_spec=tf.lite.TargetSpec(supported_types=[tf.float16]),
    ),
)
attempt(
    "tflite int8",
    lambda: tflite(
        "int8",
        "Dense, softmax; int8",
        inference_input_type=tf.int8,
        inference_output_type=tf.int8,
        target_spec=tf.lite.TargetSpec(supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8]),
        **WHOLE,
    ),
)
attempt("tflite int8 float io", lambda: tflite("int8io", "Dense, softmax; int8 inside", **WHOLE))
