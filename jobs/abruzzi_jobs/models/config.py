"""The model's configuration: the fields of a recipe's `[stage.model]` table, without pydantic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

LLAMA = "llama"


@dataclass(frozen=True, kw_only=True)
class YarnConfig:
    """YaRN as in DeepSeek's code: the softmax scale carries mscale squared, cos and sin are not scaled."""

    factor: float
    original_max_position: int = 4096
    beta_fast: float = 1.0
    beta_slow: float = 1.0
    mscale_all_dim: float = 1.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> YarnConfig:
        return cls(**_known(cls, values))


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(ABC):
    """What every architecture has."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    rope_theta: float = 50000.0
    yarn: YarnConfig | None = None
    rms_norm_eps: float = 1e-6
    max_position: int = 4096
    tie_embeddings: bool = False
    init_std: float = 0.02

    @property
    @abstractmethod
    def rotary_dim(self) -> int:
        """Dimensions of a head's query and key that turn with the position."""

    @property
    @abstractmethod
    def qk_head_dim(self) -> int:
        """Dimensions of a head's query and key."""

    def is_moe(self, layer: int) -> bool:
        return False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(DecoderConfig):
    """MLA attention and a sparse mixture of experts (paper section 2.3).

    Same names as `abruzzi.contracts.training.ModelConfig`, whose `model_dump()` `from_dict` takes.
    """

    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    moe_intermediate_size: int
    num_experts: int
    num_experts_per_token: int
    num_shared_experts: int = 1
    num_dense_layers: int = 1
    routed_scaling_factor: float = 2.827
    norm_topk_prob: bool = True
    router_bias_update_rate: float = 1e-3
    sequence_aux_loss: float = 1e-4

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """From a recipe's resolved table; `preset` is a note there, not a field here."""
        known = _known(cls, {key: value for key, value in values.items() if key != "preset"})
        if isinstance(known.get("yarn"), Mapping):
            known["yarn"] = YarnConfig.from_dict(known["yarn"])
        return cls(**known)

    @property
    def rotary_dim(self) -> int:
        return self.qk_rope_head_dim

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def num_moe_layers(self) -> int:
        return self.num_layers - self.num_dense_layers

    def is_moe(self, layer: int) -> bool:
        return layer >= self.num_dense_layers


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(DecoderConfig):
    """Grouped-query attention and dense feed-forward layers, as Llama 2 and 3 have them (arXiv 2307.09288)."""

    num_kv_heads: int
    """Heads of keys and values; each serves num_heads / num_kv_heads queries."""
    head_dim: int

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LlamaConfig:
        return cls(**_known(cls, {key: value for key, value in values.items() if key != "architecture"}))

    def to_dict(self) -> dict[str, Any]:
        return {"architecture": LLAMA, **asdict(self)}

    @property
    def rotary_dim(self) -> int:
        return self.head_dim

    @property
    def qk_head_dim(self) -> int:
        return self.head_dim


def config_from_table(values: Mapping[str, Any]) -> ModelConfig | LlamaConfig:
    """Of the architecture that the table names; one without a name is Kimi K2's. Raises ValueError, TypeError."""
    architecture = values.get("architecture")
    if architecture == LLAMA:
        return LlamaConfig.from_dict(values)
    if architecture is not None:
        raise ValueError(f"model.architecture {architecture!r} is not known; there is {LLAMA!r}, or none for Kimi K2's")
    return ModelConfig.from_dict(values)


def _known(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown field {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    return dict(values)
