"""Weights, tokenizer and chat template of a Llama-family model out of a GGUF file, whatever it is quantised with: all is float32 afterwards.

Format: ggml's docs/gguf.md. Rows of queries and keys lie there as interleaved rotary pairs, which is our layout too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.models.config import LlamaConfig

_HINT = "Files of the architecture `llama` with a byte-level BPE tokenizer can be read, such as SmolLM2's."
_CONTROL = 3
"""Token type of special tokens; ggml's LLAMA_TOKEN_TYPE_CONTROL."""

_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_ENDS = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}


@dataclass(frozen=True, slots=True)
class GgufModel:
    name: str
    licence: str
    config: LlamaConfig
    state: dict[str, Tensor]
    """For `Llama.load_state_dict`, float32."""
    tokenizer: Tokenizer
    chat_template: str
    """Jinja, as the model's makers wrote it."""
    beginning: str
    """The token that the tokenizer calls the beginning of text; a template may put it elsewhere, or nowhere."""
    end_of_turn: str
    """The token that ends an answer."""
    quantisation: dict[str, int]
    """Tensors by type."""


def import_gguf(path: Path) -> GgufModel:
    """Raises AbruzziError `bad_data` where the file is damaged or of another family, `no_teacher` without the package `gguf`."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise AbruzziError("no_teacher", "The package gguf is not installed here.", hint="pip install gguf.") from error
    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        config = _config(fields)
        state = _state(reader.tensors, config)
        tokenizer = _tokenizer(fields)
        counts: dict[str, int] = {}
        for tensor in reader.tensors:
            counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise AbruzziError("bad_data", f"{path}: no model can be read from it ({error}).", hint=_HINT) from error
    tokens = fields["tokenizer.ggml.tokens"]
    return GgufModel(
        name=str(fields.get("general.name", path.stem)),
        licence=str(fields.get("general.license", "unknown")),
        config=config,
        state=state,
        tokenizer=tokenizer,
        chat_template=str(fields.get("tokenizer.chat_template", "")),
        beginning=tokens[fields["tokenizer.ggml.bos_token_id"]],
        end_of_turn=tokens[fields["tokenizer.ggml.eos_token_id"]],
        quantisation=counts,
    )


def _config(fields: Mapping[str, Any]) -> LlamaConfig:
    architecture = fields["general.architecture"]
    if architecture != "llama":
        raise ValueError(f"architecture {architecture!r}")
    if any(name.startswith("llama.rope.scaling.") for name in fields):
        raise ValueError("its rotary embedding is scaled, which is not read")
    get = {name.removeprefix("llama."): value for name, value in fields.items()}.__getitem__
    hidden, heads = int(get("embedding_length")), int(get("attention.head_count"))
    head_dim = hidden // heads
    if int(fields.get("llama.rope.dimension_count", head_dim)) != head_dim:
        raise ValueError("part of a head is not rotated, which is not read")
    return LlamaConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=hidden,
        num_layers=int(get("block_count")),
        num_heads=heads,
        num_kv_heads=int(fields.get("llama.attention.head_count_kv", heads)),
        head_dim=head_dim,
        intermediate_size=int(get("feed_forward_length")),
        rope_theta=float(fields.get("llama.rope.freq_base", 10000.0)),
        # Kept as float32: 9.999999747378752e-06 means 1e-5.
        rms_norm_eps=float(f"{get('attention.layer_norm_rms_epsilon'):.6g}"),
        max_position=int(get("context_length")),
        tie_embeddings=True,
    )


def _state(tensors: Any, config: LlamaConfig) -> dict[str, Tensor]:
    from gguf.quants import dequantize

    state: dict[str, Tensor] = {}
    halves: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        # A copy: what the reader gives of plain tensors is a view of the file.
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype("float32", copy=True))
        stem = tensor.name.removesuffix(".weight")
        layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
        if layer and layer[2] in ("ffn_gate", "ffn_up"):
            halves.setdefault(f"layers.{layer[1]}.mlp.gate_up_proj.weight", {})[layer[2]] = value
        elif layer and layer[2] in _LAYER:
            state[f"layers.{layer[1]}.{_LAYER[layer[2]]}.weight"] = value
        elif stem in _ENDS:
            state[f"{_ENDS[stem]}.weight"] = value
        else:
            raise ValueError(f"tensor {tensor.name!r} is of no Llama")
    for name, parts in halves.items():
        state[name] = torch.cat((parts["ffn_gate"], parts["ffn_up"]))
    if "lm_head.weight" in state:
        raise ValueError("it has a head of its own, which is not read")
    return state


def _tokenizer(fields: Mapping[str, Any]) -> Tokenizer:
    kind, splitting = fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre")
    if (kind, splitting) != ("gpt2", "smollm"):
        raise ValueError(f"tokenizer {kind!r} with pre-tokenizer {splitting!r}")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    # llama.cpp's LLAMA_VOCAB_PRE_TYPE_SMOLLM: each digit alone, then GPT-2's words.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = [token for token, type_ in zip(tokens, types, strict=True) if type_ == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer
