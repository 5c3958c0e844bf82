"""Transformers with random weights: optimum's exporter, and onnxruntime's optimizer of transformers."""

from __future__ import annotations

import shutil
import warnings

import onnx
import torch
import transformers as hf
from onnxruntime.transformers import optimizer
from optimum.exporters.onnx import onnx_export_from_model
from recorder import FOLDER, attempt, record, version_of

warnings.simplefilter("ignore")
torch.manual_seed(5)
VERSION = version_of("optimum-onnx", "transformers", "torch")
UNITS = 12
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
WORDS = 200
TOKENS = {"input_ids": [1, 7], "attention_mask": [1, 7], "token_type_ids": [1, 7]}


def export(label: str, model, task: str, files: dict, **row) -> None:
    """Export with optimum, and record the files: {name written by optimum: (units, head)}."""
    folder = FOLDER / ("_" + label)
    onnx_export_from_model(model.eval(), folder, task=task, do_validation=False)
    for name, (units, head) in files.items():
        file = f"{label}_{name}"
        shutil.move(folder / name, FOLDER / file)
        inputs = {node.name for node in onnx.load(FOLDER / file).graph.input}
        shapes = {name: dims for name, dims in row.get("shapes", {}).items() if name in inputs}
        record("optimum", VERSION, file, head, units, **{**row, "shapes": shapes})


def bert(label, kind, task, head) -> None:
    config = hf.BertConfig(vocab_size=WORDS, num_labels=UNITS, **SMALL)
    export(
        label,
        kind(config),
        task,
        {"model.onnx": (UNITS, head)},
        high={"input_ids": WORDS},
        shapes=TOKENS,
    )


def past(heads: int, lengths: dict[str, int]) -> dict[str, list[int]]:
    """The shapes of the caches of two layers; lengths: what follows the number -> length."""
    return {
        f"past_key_values.{n}.{side}{part}": [1, heads, length, 16]
        for n in range(2)
        for side, length in lengths.items()
        for part in ("key", "value")
    }


def decoder(label: str, model, heads: int, head: str, **row) -> None:
    shapes = {"input_ids": [1, 4], "attention_mask": [1, 7], "position_ids": [1, 4]}
    export(
        label,
        model,
        "text-generation-with-past",
        {"model.onnx": (WORDS, head)},
        high={"input_ids": WORDS, "position_ids": 4},
        values={"attention_mask": 1},
        shapes={**past(heads, {"": 3}), **shapes},
        **row,
    )


def gpt2() -> None:
    config = hf.GPT2Config(
        vocab_size=WORDS, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1
    )
    head = "decoder with past, tied embedding"
    decoder("gpt2", hf.GPT2LMHeadModel(config), 2, head, flags=["--allow-remove-special"])


def llama() -> None:
    config = hf.LlamaConfig(vocab_size=WORDS, num_key_value_heads=1, **SMALL)
    decoder("llama", hf.LlamaForCausalLM(config), 1, "decoder with past")


def t5() -> None:
    config = hf.T5Config(
        vocab_size=WORDS,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    )
    shapes = {
        "input_ids": [1, 5],
        "encoder_attention_mask": [1, 6],
        "encoder_hidden_states": [1, 6, 32],
        **past(2, {"decoder.": 4, "encoder.": 6}),
    }
    export(
        "t5",
        hf.T5ForConditionalGeneration(config),
        "text2text-generation-with-past",
        {
            "decoder_model.onnx": (WORDS, "decoder, first step"),
            "decoder_with_past_model.onnx": (WORDS, "decoder with past"),
            "decoder_model_merged.onnx": (WORDS, "merged decoder (If)"),
        },
        high={"input_ids": WORDS},
        shapes=shapes,
    )


def whisper() -> None:
    config = hf.WhisperConfig(
        vocab_size=WORDS,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_source_positions=1500,
        max_target_positions=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )
    shapes = {"input_ids": [1, 5], "encoder_hidden_states": [1, 1500, 32]}
    shapes |= past(2, {"decoder.": 4, "encoder.": 1500})
    export(
        "whisper",
        hf.WhisperForConditionalGeneration(config),
        "automatic-speech-recognition-with-past",
        {
            "decoder_model.onnx": (WORDS, "decoder, first step"),
            "decoder_model_merged.onnx": (WORDS, "merged decoder (If)"),
        },
        high={"input_ids": WORDS},
        shapes=shapes,
        values={"use_cache_branch": True},
    )


def vit() -> None:
    config = hf.ViTConfig(image_size=32, patch_size=8, num_labels=UNITS, **SMALL)
    export(
        "vit",
        hf.ViTForImageClassification(config),
        "image-classification",
        {"model.onnx": (UNITS, "Linear over the class token")},
        shapes={"pixel_values": [1, 3, 32, 32]},
    )


def detr() -> None:
    backbone = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = hf.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_queries=9,
        num_labels=UNITS,
    )
    export(
        "detr",
        hf.DetrForObjectDetection(config),
        "object-detection",
        {"model.onnx": (UNITS + 1, "class logits of queries, with no-object")},
        shapes={"pixel_values": [1, 3, 64, 64], "pixel_mask": [1, 64, 64]},
        values={"pixel_mask": 1},
        flags=["--allow-remove-special"],
        name="logits",
    )


def wav2vec() -> None:
    config = hf.Wav2Vec2Config(
        vocab_size=UNITS,
        conv_dim=(16, 16),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        **SMALL,
    )
    export(
        "wav2vec2",
        hf.Wav2Vec2ForCTC(config),
        "automatic-speech-recognition",
        {"model.onnx": (UNITS, "CTC logits per step")},
        shapes={"input_values": [1, 800]},
    )


def fused(source: str, kind: str) -> None:
    """The fused attention and layer normalization of onnxruntime.transformers."""
    file = f"fused_{source}"
    options = {"num_heads": 2, "hidden_size": 32}
    model = optimizer.optimize_model(str(FOLDER / source), kind, **options)
    model.save_model_to_file(str(FOLDER / file))
    row = (
        {"high": {"input_ids": WORDS}, "shapes": TOKENS}
        if kind == "bert"
        else {"shapes": {"pixel_values": [1, 3, 32, 32]}}
    )
    record(
        "onnxruntime.transformers optimizer",
        version_of("onnxruntime"),
        file,
        "fused " + kind,
        UNITS,
        **row,
    )


FOLDER.mkdir(parents=True, exist_ok=True)
attempt(
    "bert",
    lambda: bert(
        "bert",
        hf.BertForSequenceClassification,
        "text-classification",
        "Linear over the pooled token",
    ),
)
attempt(
    "bert_tokens",
    lambda: bert(
        "bert_tokens", hf.BertForTokenClassification, "token-classification", "Linear per token"
    ),
)
for build in (gpt2, llama, t5, whisper, vit, detr, wav2vec):
    attempt(build.__name__, build)
attempt("fused bert", lambda: fused("bert_model.onnx", "bert"))
attempt("fused vit", lambda: fused("vit_model.onnx", "vit"))
for folder in FOLDER.glob("_*"):
    shutil.rmtree(folder)
