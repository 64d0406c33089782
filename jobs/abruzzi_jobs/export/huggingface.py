"""A Hugging Face folder from our weights, and back: DeepseekV3 for Kimi K2's architecture, Llama for Llama's.

Names and layouts are the published ones (one tensor for each expert's gate, up and down projection), so `transformers`, vLLM and
SGLang load the folder. Nothing of transformers is imported here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.export import llama, published
from abruzzi_jobs.models.config import LlamaConfig, ModelConfig, YarnConfig

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
SHARD_BYTES = 4 << 30
DEEPSEEK_TYPES = ("deepseek_v3", "kimi_k2")
"""`model_type` of folders with DeepSeek V3's layout."""

_EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")


def export_huggingface(
    state: Mapping[str, Tensor],
    config: ModelConfig | LlamaConfig,
    directory: Path,
    *,
    tokenizer: Path | None = None,
    special_tokens: Mapping[str, int] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write the folder; returns its files. `state` is a `Decoder.state_dict()`; `tokenizer` a folder whose tokenizer files are copied.

    `special_tokens` may give bos_token_id, eos_token_id, pad_token_id.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = [_write_json(directory / "config.json", huggingface_config(config, state, special_tokens or {}))]
    shards = _shards(dict(_to_huggingface(state, config)), shard_bytes)
    if len(shards) == 1:
        written.append(_write_tensors(directory / "model.safetensors", shards[0]))
    else:
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards, start=1):
            path = directory / f"model-{number:05}-of-{len(shards):05}.safetensors"
            written.append(_write_tensors(path, shard))
            weight_map.update(dict.fromkeys(shard, path.name))
        size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        written.append(_write_json(directory / "model.safetensors.index.json", index))
    for name in TOKENIZER_FILES:
        if tokenizer is not None and (tokenizer / name).is_file():
            written.append(Path(shutil.copyfile(tokenizer / name, directory / name)))
    return written


def import_huggingface(directory: Path) -> tuple[ModelConfig | LlamaConfig, dict[str, Tensor]]:
    """(configuration, state for `load_state_dict`) from a DeepseekV3, Kimi K2 or Llama folder. Multi-token prediction layers are left out; weights in
    FP8 come as bfloat16.

    Raises ValueError for a configuration or a tensor that is none of ours, FileNotFoundError for a file that is missing.
    """
    config = _read_config(_values(directory))
    return config, _from_huggingface(published.read_tensors(directory), config)


def inspect_huggingface(directory: Path) -> published.FolderReport:
    """What the folder is, without its weights: an index alone will do. Raises AbruzziError bad_data where it can't be told."""
    try:
        values = _values(directory)
        config = _read_config(values)
        dtype = getattr(torch, str(values.get("dtype") or values.get("torch_dtype") or "bfloat16"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise AbruzziError(
            "bad_data",
            f"{directory / published.CONFIG_FILE}: no configuration that can be read ({said}).",
            hint="Folders of the architectures DeepseekV3 (Kimi K2 among them) and Llama can.",
        ) from error
    names = dict(_to_huggingface(published.empty_model(config), config))
    return published.inspect_folder(directory, config, names, dtype_bytes=dtype.itemsize)


def _values(directory: Path) -> dict[str, Any]:
    return json.loads((directory / published.CONFIG_FILE).read_text(encoding="utf-8"))


def _read_config(values: Mapping[str, Any]) -> ModelConfig | LlamaConfig:
    """Raises ValueError, KeyError where it is of a model that is none of ours."""
    kind = values.get("model_type")
    if kind == llama.MODEL_TYPE:
        return llama.our_llama_config(values)
    if kind not in DEEPSEEK_TYPES:
        raise ValueError(f"model_type {kind!r}; there is {', '.join((*DEEPSEEK_TYPES, llama.MODEL_TYPE))}")
    return _our_config(values)


def huggingface_config(
    config: ModelConfig | LlamaConfig, state: Mapping[str, Tensor], special_tokens: Mapping[str, int]
) -> dict[str, Any]:
    """config.json."""
    return {
        **(llama.llama_config(config) if isinstance(config, LlamaConfig) else _deepseek_config(config)),
        "dtype": str(next(iter(state.values())).dtype).removeprefix("torch."),
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        **special_tokens,
    }


def _deepseek_config(config: ModelConfig) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.yarn is not None:
        rope = {
            "rope_type": "yarn",
            "rope_theta": config.rope_theta,
            "factor": config.yarn.factor,
            "original_max_position_embeddings": config.yarn.original_max_position,
            "beta_fast": config.yarn.beta_fast,
            "beta_slow": config.yarn.beta_slow,
            # Equal: cos and sin are scaled by their ratio, 1; the softmax scale by mscale_all_dim alone.
            "mscale": config.yarn.mscale_all_dim,
            "mscale_all_dim": config.yarn.mscale_all_dim,
        }
    legacy = {("type" if key == "rope_type" else key): value for key, value in rope.items() if key != "rope_theta"}
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "moe_intermediate_size": config.moe_intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "n_shared_experts": config.num_shared_experts,
        "n_routed_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_token,
        "routed_scaling_factor": config.routed_scaling_factor,
        "q_lora_rank": config.q_lora_rank,
        "kv_lora_rank": config.kv_lora_rank,
        "qk_nope_head_dim": config.qk_nope_head_dim,
        "qk_rope_head_dim": config.qk_rope_head_dim,
        "v_head_dim": config.v_head_dim,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": config.norm_topk_prob,
        "first_k_dense_replace": config.num_dense_layers,
        "moe_layer_freq": 1,
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "max_position_embeddings": config.max_position,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": legacy if config.yarn is not None else None,
        "rope_parameters": rope,
        "rope_interleave": True,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        "aux_loss_alpha": config.sequence_aux_loss,
        "seq_aux": True,
        "router_bias_update_rate": config.router_bias_update_rate,
    }


def _to_huggingface(state: Mapping[str, Tensor], config: ModelConfig | LlamaConfig) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in state.items():
        target = name if name.startswith("lm_head.") else f"model.{name}"
        if isinstance(config, LlamaConfig) and llama.is_rotated(name):
            yield target, llama.halves_of_pairs(tensor, config.head_dim)
            continue
        if name.endswith(".mlp.experts.gate_up_proj"):
            stem = target.removesuffix(".gate_up_proj")
            for expert, (gate, up) in enumerate(tensor.unflatten(1, (2, -1)).unbind(0)):
                yield f"{stem}.{expert}.gate_proj.weight", gate
                yield f"{stem}.{expert}.up_proj.weight", up
        elif name.endswith(".mlp.experts.down_proj"):
            stem = target.removesuffix(".down_proj")
            for expert, down in enumerate(tensor):
                yield f"{stem}.{expert}.down_proj.weight", down
        elif name.endswith(".gate_up_proj.weight"):
            gate, up = tensor.chunk(2)
            yield target.replace(".gate_up_proj.", ".gate_proj."), gate
            yield target.replace(".gate_up_proj.", ".up_proj."), up
        else:
            yield target, tensor


def _from_huggingface(tensors: Mapping[str, Tensor], config: ModelConfig | LlamaConfig) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    experts: dict[str, dict[tuple[int, str], Tensor]] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        own = name.removeprefix("model.")
        layer = re.match(r"layers\.(\d+)\.", own)
        if layer and int(layer.group(1)) >= config.num_layers:
            continue
        if match := _EXPERT.fullmatch(own):
            experts.setdefault(match.group(1), {})[int(match.group(2)), match.group(3)] = tensor
        elif match := re.fullmatch(r"(.*)\.(gate|up)_proj\.weight", own):
            pairs.setdefault(match.group(1), {})[match.group(2)] = tensor
        elif isinstance(config, LlamaConfig) and llama.is_rotated(own):
            state[own] = llama.pairs_of_halves(tensor, config.head_dim)
        elif not (config.tie_embeddings and own == "lm_head.weight"):
            state[own] = tensor
    for stem, parts in pairs.items():
        state[f"{stem}.gate_up_proj.weight"] = torch.cat((parts["gate"], parts["up"]))
    for stem, by_expert in experts.items():
        order = range(1 + max(expert for expert, _ in by_expert))
        state[f"{stem}.gate_up_proj"] = torch.stack(
            [torch.cat((by_expert[e, "gate"], by_expert[e, "up"])) for e in order]
        )
        state[f"{stem}.down_proj"] = torch.stack([by_expert[e, "down"] for e in order])
    return state


def _our_config(values: Mapping[str, Any]) -> ModelConfig:
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise ValueError(f"config.json: rope type {kind!r} is not supported; default and yarn are")
    if values.get("n_group", 1) not in (None, 1):
        raise ValueError(f"config.json: n_group {values['n_group']}: grouped routing is not supported (K2 has none)")
    if values.get("scoring_func", "sigmoid") != "sigmoid":
        raise ValueError(f"config.json: scoring_func {values['scoring_func']!r}: routing is by sigmoid (K2's)")
    yarn = None
    if kind == "yarn":
        if rope.get("mscale", 1.0) != rope.get("mscale_all_dim", 0.0):
            raise ValueError(
                "config.json: mscale differs from mscale_all_dim: cos and sin would be scaled, which is not done (K2's are equal)"
            )
        yarn = YarnConfig(
            factor=rope["factor"],
            original_max_position=rope["original_max_position_embeddings"],
            beta_fast=rope.get("beta_fast", 32.0),
            beta_slow=rope.get("beta_slow", 1.0),
            mscale_all_dim=rope.get("mscale_all_dim", 0.0),
        )
    return ModelConfig(
        vocab_size=values["vocab_size"],
        hidden_size=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        q_lora_rank=values["q_lora_rank"],
        kv_lora_rank=values["kv_lora_rank"],
        qk_nope_head_dim=values["qk_nope_head_dim"],
        qk_rope_head_dim=values["qk_rope_head_dim"],
        v_head_dim=values["v_head_dim"],
        intermediate_size=values["intermediate_size"],
        moe_intermediate_size=values["moe_intermediate_size"],
        num_experts=values["n_routed_experts"],
        num_experts_per_token=values["num_experts_per_tok"],
        num_shared_experts=values.get("n_shared_experts") or 0,
        num_dense_layers=values["first_k_dense_replace"],
        routed_scaling_factor=values["routed_scaling_factor"],
        norm_topk_prob=values.get("norm_topk_prob", True),
        rope_theta=values.get("rope_theta") or rope["rope_theta"],
        yarn=yarn,
        rms_norm_eps=values["rms_norm_eps"],
        max_position=values["max_position_embeddings"],
        tie_embeddings=values.get("tie_word_embeddings", False),
        init_std=values.get("initializer_range", 0.02),
        sequence_aux_loss=values.get("aux_loss_alpha", 1e-4),
        router_bias_update_rate=values.get("router_bias_update_rate", 1e-3),
    )


def _shards(tensors: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(copies, path, metadata={"format": "pt"})
    return path


def _write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, indent=2) + "\n")
    return path
