"""keras_hub: small networks with random weights."""

from __future__ import annotations

import keras_hub
import numpy as np
from recorder import FOLDER, answers, attempt, record, version_of

VERSION = version_of("keras-hub", "keras", "tensorflow-cpu")
UNITS = 10
WORDS = 60
RANDOM = np.random.default_rng(4)


def save(
    label: str, model, inputs: dict, head: str, units: int, kinds=("keras", "savedmodel")
) -> None:
    outputs = np.asarray(
        model(inputs if len(inputs) > 1 else next(iter(inputs.values())), training=False)
    )
    for kind in kinds:
        file = f"hub_{label}" + ".keras" * (kind == "keras")
        if kind == "keras":
            model.save(FOLDER / file)
        else:
            model.export(FOLDER / file, verbose=False)
        answers(file, inputs, [outputs])
        record(
            "keras_hub",
            VERSION,
            file,
            head + (", export()" if kind != "keras" else ""),
            units,
        )


def tokens() -> dict:
    ids = RANDOM.integers(1, WORDS, (2, 8)).astype("int32")
    return {
        "token_ids": ids,
        "padding_mask": np.ones((2, 8), "int32"),
        "segment_ids": np.zeros((2, 8), "int32"),
    }


def bert() -> None:
    backbone = keras_hub.models.BertBackbone(WORDS, 2, 2, 16, 32, max_sequence_length=8)
    save(
        "bert",
        keras_hub.models.BertTextClassifier(backbone, UNITS, preprocessor=None),
        tokens(),
        "Dense over the pooled token",
        UNITS,
    )


def gpt2() -> None:
    backbone = keras_hub.models.GPT2Backbone(WORDS, 2, 2, 16, 32, max_sequence_length=8)
    inputs = tokens()
    del inputs["segment_ids"]
    save(
        "gpt2",
        keras_hub.models.GPT2CausalLM(backbone, preprocessor=None),
        inputs,
        "tied embedding",
        WORDS,
    )


def resnet() -> None:
    backbone = keras_hub.models.ResNetBackbone(
        [64], [3], [64, 64], [1, 1], [1, 2], "basic_block", image_shape=(32, 32, 3)
    )
    save(
        "resnet",
        keras_hub.models.ResNetImageClassifier(backbone, UNITS, preprocessor=None),
        {"image": RANDOM.normal(size=(2, 32, 32, 3)).astype("float32")},
        "Dense over ResNet",
        UNITS,
    )


FOLDER.mkdir(parents=True, exist_ok=True)
for build in (bert, gpt2, resnet):
    attempt(build.__name__, build)
