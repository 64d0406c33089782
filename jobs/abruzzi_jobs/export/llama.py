"""Hugging Face's layout of a Llama: its config.json, and the order of rotated rows.

Their files hold the two halves of all rotary pairs one after the other; ours (and GGUF's) hold pair beside pair.

Shapes: N rows, D hidden, H heads, P pairs of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from abruzzi_jobs.models.config import LlamaConfig

MODEL_TYPE = "llama"


def halves_of_pairs(weight_ND: Tensor, head_dim: int) -> Tensor:
    """Rows of queries or keys as Hugging Face has them."""
    return weight_ND.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def pairs_of_halves(weight_ND: Tensor, head_dim: int) -> Tensor:
    """The way back."""
    return weight_ND.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def is_rotated(name: str) -> bool:
    return name.endswith((".q_proj.weight", ".k_proj.weight"))


def llama_config(config: LlamaConfig) -> dict[str, Any]:
    """What config.json says beside the dtype and the special tokens."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": MODEL_TYPE,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "max_position_embeddings": config.max_position,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
    }


def our_llama_config(values: Mapping[str, Any]) -> LlamaConfig:
    """Raises ValueError for what is not read."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"config.json: rope type {kind!r} is not supported for a Llama; default is")
    heads = values["num_attention_heads"]
    return LlamaConfig(
        vocab_size=values["vocab_size"],
        hidden_size=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=values.get("num_key_value_heads") or heads,
        head_dim=values.get("head_dim") or values["hidden_size"] // heads,
        intermediate_size=values["intermediate_size"],
        rope_theta=values.get("rope_theta") or rope.get("rope_theta", 10000.0),
        rms_norm_eps=values["rms_norm_eps"],
        max_position=values["max_position_embeddings"],
        tie_embeddings=values.get("tie_word_embeddings", False),
        init_std=values.get("initializer_range", 0.02),
    )
