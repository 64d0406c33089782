"""Parameters of an MLA + sparse-MoE model, by part. Source: the published K2 configuration; paper section 2.3."""

from __future__ import annotations

from dataclasses import dataclass

from abruzzi.contracts.training import ModelConfig


@dataclass(frozen=True, slots=True)
class LayerParameters:
    attention: int
    """Projections and their two norms."""
    norms: int
    dense_mlp: int
    router: int
    shared_experts: int
    routed_experts: int

    @property
    def total(self) -> int:
        return self.non_routed + self.routed_experts

    @property
    def non_routed(self) -> int:
        return self.attention + self.norms + self.dense_mlp + self.router + self.shared_experts


@dataclass(frozen=True, slots=True)
class ModelParameters:
    embedding: int
    head: int
    """0 when tied to the embedding."""
    final_norm: int
    dense_layer: LayerParameters
    moe_layer: LayerParameters
    num_dense_layers: int
    num_moe_layers: int
    active_fraction: float
    """Of the routed experts."""

    @property
    def total(self) -> int:
        layers = self.num_dense_layers * self.dense_layer.total + self.num_moe_layers * self.moe_layer.total
        return self.embedding + self.head + self.final_norm + layers

    @property
    def active(self) -> int:
        """Parameters that one token meets, embeddings included."""
        routed = self.num_moe_layers * self.moe_layer.routed_experts
        return self.total - routed + round(routed * self.active_fraction)

    @property
    def active_in_matmuls(self) -> int:
        """Without the input embedding, which is a look-up."""
        return self.active - (self.embedding if self.head else 0)


def count_parameters(model: ModelConfig) -> ModelParameters:
    attention = attention_parameters(model)
    norms = 2 * model.hidden_size
    expert = 3 * model.hidden_size * model.moe_intermediate_size
    return ModelParameters(
        embedding=model.vocab_size * model.hidden_size,
        head=0 if model.tie_embeddings else model.vocab_size * model.hidden_size,
        final_norm=model.hidden_size,
        dense_layer=LayerParameters(attention, norms, 3 * model.hidden_size * model.intermediate_size, 0, 0, 0),
        moe_layer=LayerParameters(
            attention=attention,
            norms=norms,
            dense_mlp=0,
            router=model.num_experts * model.hidden_size,
            shared_experts=model.num_shared_experts * expert,
            routed_experts=model.num_experts * expert,
        ),
        num_dense_layers=model.num_dense_layers,
        num_moe_layers=model.num_layers - model.num_dense_layers,
        active_fraction=model.num_experts_per_token / model.num_experts,
    )


def attention_parameters(model: ModelConfig) -> int:
    """MLA: low-rank query and key-value paths, the shared rotary key, the output projection, two RMSNorms."""
    query_head = model.qk_nope_head_dim + model.qk_rope_head_dim
    return (
        model.hidden_size * model.q_lora_rank
        + model.q_lora_rank * model.num_heads * query_head
        + model.hidden_size * (model.kv_lora_rank + model.qk_rope_head_dim)
        + model.kv_lora_rank * model.num_heads * (model.qk_nope_head_dim + model.v_head_dim)
        + model.num_heads * model.v_head_dim * model.hidden_size
        + model.q_lora_rank
        + model.kv_lora_rank
    )
