"""The demo's tiny model in Hugging Face's format, for vLLM and others that read no GGUF."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from proxy.demo.weights import CHAT_TEMPLATE, CONTROL, Shape, make_weights, vocabulary

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output.weight": "lm_head.weight",
    "output_norm.weight": "model.norm.weight",
}


def write_model(folder: Path, seed: int = 1) -> None:
    """Write the model's configuration, tokenizer and weights."""
    shape, tokens = Shape(), vocabulary()
    first = len(tokens) - len(CONTROL)
    ends = {"bos_token_id": first, "eos_token_id": first + 2, "pad_token_id": first}
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "float16",
            "hidden_size": shape.width,
            "intermediate_size": shape.inner,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "head_dim": shape.head_width,
            "vocab_size": len(tokens),
            "max_position_embeddings": shape.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            **ends,
        },
        "generation_config.json": ends,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": CONTROL[0],
            "eos_token": CONTROL[2],
            "pad_token": CONTROL[0],
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
        "tokenizer.json": _tokenizer(tokens),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))
    weights = make_weights(shape, len(tokens), seed)
    _write_safetensors(folder / "model.safetensors", {_name(k): v for k, v in weights.items()})


def _name(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{LAYER[part]}.weight"


def _tokenizer(tokens: list[str]) -> dict[str, Any]:
    numbers = {token: number for number, token in enumerate(tokens)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    bytes_ |= {"use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": numbers[token], "content": token, "special": True, **flags} for token in CONTROL
        ],
        "pre_tokenizer": bytes_,
        "post_processor": bytes_,
        "decoder": bytes_,
        "model": {
            "type": "BPE",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": numbers,
            "merges": [["Ġ", "t"]],
        },
    }


def _write_safetensors(file: Path, weights: dict[str, Any]) -> None:
    """Write the header, then the numbers of all weights one after the other."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs, at = [], 0
    for name, values in weights.items():
        data = values.astype("<f2").tobytes()
        place = [at, at + len(data)]
        head[name] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": place}
        blobs.append(data)
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
