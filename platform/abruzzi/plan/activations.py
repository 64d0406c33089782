"""What the layers keep of one token between forward and backward, tensor by tensor. Source: the runtime (jobs/abruzzi_jobs/memory/saved.py), whose ledger is held
to these figures by a test; paper section 2.4.2.

Not in it: embedding, final norm and head, rotations and what else a layer has once, and the rows that fill up an expert's group on CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from abruzzi.contracts.training import MemoryConfig, ModelConfig

_TILE = 128
"""Values of E4M3 with one float32 scale."""


@dataclass(frozen=True, slots=True)
class SavedTensor:
    name: str
    kind: Literal["kept", "recomputed", "fp8"]
    bytes: float
    """A token, by the policy; offload moves it, and changes nothing here."""


def layer_activations(model: ModelConfig, memory: MemoryConfig, *, moe: bool = True) -> list[SavedTensor]:
    """Of one layer, dense or of experts."""
    return [*_attention(model, memory), *(_experts(model, memory) if moe else _dense(model, memory))]


def activation_bytes_per_token(model: ModelConfig, memory: MemoryConfig) -> float:
    """Of one MoE layer."""
    return sum(tensor.bytes for tensor in layer_activations(model, memory))


def written_bytes_per_token(model: ModelConfig, memory: MemoryConfig) -> float:
    """What one MoE layer's forward writes: everything that it could keep, and the experts' outputs, which nothing needs afterwards, because rows are weighted
    before the down-projection. Other runtimes keep them, too. K2 in BF16: 478 KiB; counts that take the rotary key once for all heads say 466."""
    plain = memory.model_copy(update={"recompute": (), "fp8_activations": False})
    outputs = model.num_experts_per_token * model.hidden_size * value_bytes(memory)
    return activation_bytes_per_token(model, plain) + outputs


def value_bytes(memory: MemoryConfig) -> int:
    return 2 if memory.dtype == "bfloat16" else 4


def _attention(model: ModelConfig, memory: MemoryConfig) -> Iterator[SavedTensor]:
    value, heads, recompute = value_bytes(memory), model.num_heads, memory.recompute
    key = heads * (model.qk_nope_head_dim + model.qk_rope_head_dim)
    norms = model.hidden_size + model.q_lora_rank + model.kv_lora_rank
    yield SavedTensor("attention input", "kept", model.hidden_size * value)
    yield SavedTensor("latents", "kept", (model.q_lora_rank + model.kv_lora_rank + model.qk_rope_head_dim) * value)
    yield _unless("layernorm" in recompute, "attention norms", norms * value)
    yield _unless(
        "mla_up_projection" in recompute, "queries, keys, values", (2 * key + heads * model.v_head_dim) * value
    )
    yield SavedTensor("attention output", "kept", heads * model.v_head_dim * value)
    yield SavedTensor("attention sums", "kept", heads * 4 + 3 * 4)


def _feed_forward(model: ModelConfig, memory: MemoryConfig) -> Iterator[SavedTensor]:
    value = value_bytes(memory)
    yield SavedTensor("feed-forward input", "kept", model.hidden_size * value + 4)
    yield _unless("layernorm" in memory.recompute, "feed-forward norm", model.hidden_size * value)


def _swiglu(memory: MemoryConfig, name: str, rows: int, width: int) -> Iterator[SavedTensor]:
    yield _compressed(memory, f"{name} gate and up", rows, 2 * width)
    yield _unless("swiglu" in memory.recompute, f"{name} SwiGLU", rows * width * value_bytes(memory))


def _dense(model: ModelConfig, memory: MemoryConfig) -> Iterator[SavedTensor]:
    yield from _feed_forward(model, memory)
    yield from _swiglu(memory, "dense", 1, model.intermediate_size)


def _experts(model: ModelConfig, memory: MemoryConfig) -> Iterator[SavedTensor]:
    k, width = model.num_experts_per_token, model.moe_intermediate_size
    yield from _feed_forward(model, memory)
    yield SavedTensor("router's scores", "kept", model.num_experts * 4)
    # Which experts, whose row, where a token's rows are, whose weight: int64 each; the weight before and after it is normalised.
    yield SavedTensor("routing", "kept", k * (4 * 8 + 2 * 4))
    yield _compressed(memory, "dispatched rows", k, model.hidden_size)
    yield from _swiglu(memory, "experts'", k, width)
    if model.num_shared_experts:
        yield from _swiglu(memory, "shared experts'", 1, model.num_shared_experts * width)


def _unless(recomputed: bool, name: str, size: int) -> SavedTensor:
    return SavedTensor(name, "recomputed", 0) if recomputed else SavedTensor(name, "kept", size)


def _compressed(memory: MemoryConfig, name: str, rows: int, width: int) -> SavedTensor:
    if memory.fp8_activations:
        return SavedTensor(name, "fp8", rows * (width + 4 * -(-width // _TILE)))
    return SavedTensor(name, "kept", rows * width * value_bytes(memory))
