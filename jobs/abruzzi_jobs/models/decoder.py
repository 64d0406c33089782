"""A decoder: embedding, layers of attention and feed-forward, final norm, head. Architectures differ in their attention and configuration
(model.py: Kimi K2; llama.py: Llama).

A model may hold any range of layers, for pipeline stages: the first stage owns the embedding, the last the final norm and the head. A stage between
others may have no layers.
Parameter names are logical (`layers.17.…` whatever the range), and are what checkpoints are keyed by.

Shapes: B batch, L positions, D hidden, V vocabulary, H heads, E experts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abruzzi_jobs.memory import Activations, ActivationStore
from abruzzi_jobs.models.config import DecoderConfig, ModelConfig, YarnConfig
from abruzzi_jobs.models.loss import IGNORE, linear_cross_entropy, token_losses
from abruzzi_jobs.models.moe import MixtureOfExperts
from abruzzi_jobs.models.norm import RMSNorm
from abruzzi_jobs.models.rope import rotations, softmax_scale
from abruzzi_jobs.models.router import Routing
from abruzzi_jobs.models.streams import stream
from abruzzi_jobs.models.swiglu import SwiGLU


@dataclass
class ForwardOutput:
    loss: Tensor | None
    """Mean cross-entropy over targets plus aux_loss; None without targets or on a stage without the head."""
    loss_sum: Tensor | None
    """Cross-entropy in nats, summed over targets, with gradient."""
    num_targets: Tensor | None
    """int64 scalar."""
    max_logit_per_layer: Tensor
    """float32 [layers of this stage, H]: maximum over visible pairs."""
    expert_counts: Tensor
    """int64 [mixture-of-experts layers of this stage, E]."""
    aux_loss: Tensor
    """Sum over layers of the sequence-wise balance loss, times alpha, mean over this batch's sequences."""
    hidden_BLD: Tensor
    """After this stage's last layer, before the final norm."""
    store: ActivationStore | None = None
    """Of what the layers keep for backward; None where autograd keeps it."""


class Cache(Protocol):
    """What decoding keeps of one layer; `Attention.decode` lets it grow in place."""

    @property
    def length(self) -> int:
        """Positions so far."""
        ...


class CacheDims(NamedTuple):
    heads: int
    key_dim: int
    value_dim: int
    own_values: bool
    """False: values are the first dims of the keys."""


class Attention(nn.Module, ABC):
    """What a layer's attention offers."""

    scale: float

    @abstractmethod
    def forward(
        self, x_BLD: Tensor, cis_LR: Tensor, segment_ids_BL: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Cache]:
        """(output_BLD, max_logit_H, cache of these positions)."""

    @abstractmethod
    def decode(self, x_B1D: Tensor, cis_1R: Tensor, cache: Any) -> Tensor:
        """One more position, against the cache."""

    # Over flat rows, for `rows.py`: Q query heads read one of G heads of keys and values.

    @abstractmethod
    def grouped(self, x_TD: Tensor, cis_TR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(q_TGQK, k_TGK, v_TGV), rotated."""

    @abstractmethod
    def merged(self, out_TGQV: Tensor) -> Tensor:
        """The layer's output_TD of what attention gave."""

    @abstractmethod
    def cache_dims(self) -> CacheDims: ...


def expert_counts(config: DecoderConfig, counts: Sequence[Tensor], device: torch.device) -> Tensor:
    """int64 [expert layers, E]"""
    width = getattr(config, "num_experts", 0)
    return torch.stack(list(counts)) if counts else torch.zeros(0, width, dtype=torch.int64, device=device)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(
        self,
        config: DecoderConfig,
        layer: int,
        attention: type[Attention],
        *,
        experts: range | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, **where)
        self.self_attn = attention(config, **where)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, **where)
        self.mlp: MixtureOfExperts | SwiGLU
        if config.is_moe(layer):
            self.mlp = MixtureOfExperts(cast(ModelConfig, config), experts=experts, **where)
        else:
            self.mlp = SwiGLU(config.hidden_size, config.intermediate_size, **where)

    def forward(
        self, x_BLD: Tensor, cis_LR: Tensor, segment_ids_BL: Tensor | None
    ) -> tuple[Tensor, Tensor, Routing | None, Cache]:
        attended, max_logit_H, cache = self.self_attn(self.input_layernorm(x_BLD), cis_LR, segment_ids_BL)
        x_BLD, routing = self._feed_forward(x_BLD + attended)
        return x_BLD, max_logit_H, routing, cache

    def decode(self, x_B1D: Tensor, cis_1R: Tensor, cache: Cache) -> Tensor:
        x_B1D = x_B1D + self.self_attn.decode(self.input_layernorm(x_B1D), cis_1R, cache)
        return self._feed_forward(x_B1D)[0]

    def rows(
        self, x_TD: Tensor, cis_TR: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Routing | None]:
        """Over flat rows; `attend(q_TGQK, k_TGK, v_TGV)` knows whose they are."""
        attention = cast(Attention, self.self_attn)
        attended_TD = attention.merged(attend(*attention.grouped(self.input_layernorm(x_TD), cis_TR)))
        out_1TD, routing = self._feed_forward((x_TD + attended_TD).unsqueeze(0))
        return out_1TD.squeeze(0), routing

    def _feed_forward(self, x_BLD: Tensor) -> tuple[Tensor, Routing | None]:
        normed = self.post_attention_layernorm(x_BLD)
        if isinstance(self.mlp, MixtureOfExperts):
            out, routing = self.mlp(normed)
            return x_BLD + out, routing
        return x_BLD + self.mlp(normed), None


class Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """Nothing: `Decoder.init_weights` fills it, or a checkpoint. PyTorch would draw it, and on meta import its compiler for that, in every process."""


class Decoder(nn.Module):
    """Layers `layers` of the model, and of their experts `experts` (all by default). `ends`: whether the embedding is here, and whether the head is;
    by default with the first and with the last layer. On device "meta" nothing is allocated; `init_weights`
    fills the rest. With a part of the experts, `Experts.exchange` must be set before the first forward pass."""

    attention: ClassVar[type[Attention]]

    def __init__(
        self,
        config: DecoderConfig,
        *,
        layers: range | None = None,
        ends: tuple[bool, bool] | None = None,
        experts: range | None = None,
        device: Any = None,
        dtype: torch.dtype = torch.float32,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        layers = range(config.num_layers) if layers is None else layers
        if (
            (len(layers) == 0 and ends is None)
            or layers.step != 1
            or layers.start < 0
            or layers.stop > config.num_layers
        ):
            raise ValueError(
                f"layers {layers.start} to {layers.stop}: not a range of 0 to {config.num_layers}; give consecutive layers of the model"
            )
        self.config = config
        self.activations = Activations()
        self.is_first, self.is_last = ends or (layers.start == 0, layers.stop == config.num_layers)
        if config.tie_embeddings and not (self.is_first and self.is_last):
            raise ValueError(
                "tie_embeddings: a pipeline stage cannot share the embedding with the head; use one stage or tie_embeddings = false"
            )
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, **where) if self.is_first else None
        self.layers = nn.ModuleDict(
            {str(layer): Block(config, layer, self.attention, experts=experts, **where) for layer in layers}
        )
        self.first_expert = experts.start if experts is not None else 0
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, **where) if self.is_last else None
        self.lm_head = (
            nn.Linear(config.hidden_size, config.vocab_size, bias=False, **where)
            if self.is_last and not config.tie_embeddings
            else None
        )
        if seed is not None:
            self.init_weights(seed)

    def forward(
        self,
        tokens_BL: Tensor | None,
        targets_BL: Tensor | None = None,
        segment_ids_BL: Tensor | None = None,
        *,
        hidden_BLD: Tensor | None = None,
    ) -> ForwardOutput:
        """Targets are aligned with tokens (already shifted by the loader); -100 counts nowhere. Stages after the first take `hidden_BLD`."""
        store = self.activations.begin()
        hidden_BLD, max_logits, routings, _ = self._run_layers(tokens_BL, hidden_BLD, segment_ids_BL, store)
        aux_loss = torch.stack([r.aux_loss for r in routings]).sum() if routings else hidden_BLD.new_zeros(())
        loss = loss_sum = num_targets = None
        if targets_BL is not None and self.is_last:
            loss_sum = linear_cross_entropy(
                self.final_norm(hidden_BLD).flatten(0, 1), self.head_weight, targets_BL.flatten()
            )
            num_targets = (targets_BL != IGNORE).sum()
            loss = loss_sum / num_targets.clamp(min=1) + aux_loss
        return ForwardOutput(
            loss=loss,
            loss_sum=loss_sum,
            num_targets=num_targets,
            max_logit_per_layer=(
                torch.stack(max_logits) if max_logits else hidden_BLD.new_zeros(0, self.config.num_heads)
            ),
            expert_counts=expert_counts(self.config, [r.counts_E for r in routings], hidden_BLD.device),
            aux_loss=aux_loss,
            hidden_BLD=hidden_BLD,
            store=store,
        )

    @torch.no_grad()
    def logits(self, tokens_BL: Tensor, segment_ids_BL: Tensor | None = None, *, last_only: bool = False) -> Tensor:
        """float32 [B, L, V], or [B, V] of the last position."""
        hidden_BLD, _, _, _ = self._run_layers(tokens_BL, None, segment_ids_BL)
        if last_only:
            hidden_BLD = hidden_BLD[:, -1]
        return self.head(hidden_BLD).float()

    @torch.no_grad()
    def token_losses(self, tokens_BL: Tensor, targets_BL: Tensor, segment_ids_BL: Tensor | None = None) -> Tensor:
        """−log probability of each target in nats, float32 [B, L]; 0 where the target is -100."""
        hidden_BLD, _, _, _ = self._run_layers(tokens_BL, None, segment_ids_BL)
        losses = token_losses(self.final_norm(hidden_BLD).flatten(0, 1), self.head_weight, targets_BL.flatten())
        return losses.view_as(targets_BL)

    @torch.no_grad()
    def prefill(self, tokens_BL: Tensor) -> tuple[Tensor, list[Cache]]:
        """(logits of the last position [B, V], caches) for `decode`."""
        hidden_BLD, _, _, caches = self._run_layers(tokens_BL, None, None)
        return self.head(hidden_BLD[:, -1]).float(), caches

    @torch.no_grad()
    def decode(self, tokens_B: Tensor, caches: list[Cache]) -> Tensor:
        """Logits [B, V] after one more token; the caches grow in place."""
        position = caches[0].length
        hidden_B1D = cast(nn.Embedding, self.embed_tokens)(tokens_B.unsqueeze(1))
        cis_LR = rotations(self.config, max(self.config.max_position, position + 1), device=hidden_B1D.device)
        for block, cache in zip(self.layers.values(), caches, strict=True):
            hidden_B1D = cast(Block, block).decode(hidden_B1D, cis_LR[position : position + 1], cache)
        return self.head(hidden_B1D[:, 0]).float()

    def update_router_bias(self, counts_ME: Tensor, *, rate: float | None = None) -> None:
        """One balancing step from the global batch's counts (summed over ranks and micro-batches), a row for each expert layer."""
        for moe, counts_E in zip(self.moe_layers(), counts_ME, strict=True):
            default = cast(ModelConfig, self.config).router_bias_update_rate
            moe.gate.update_bias(counts_E, rate=default if rate is None else rate)

    def set_yarn(self, yarn: YarnConfig | None) -> None:
        """Positions turn so from the next forward pass on; the weights stay. Caches from before are of other positions."""
        self.config = replace(self.config, yarn=yarn)
        for attention in self.attentions():
            attention.scale = softmax_scale(self.config)

    def attentions(self) -> list[Attention]:
        return [cast(Attention, cast(Block, block).self_attn) for block in self.layers.values()]

    def moe_layers(self) -> list[MixtureOfExperts]:
        mlps = [cast(Block, block).mlp for block in self.layers.values()]
        return [mlp for mlp in mlps if isinstance(mlp, MixtureOfExperts)]

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Normal(0, init_std) for matrices, ones for norms. Each tensor (each expert) has its own stream, drawn from its name,
        so that any split of layers and experts over ranks starts from the same weights."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            parts = (
                [(f"{name}.{i}", part) for i, part in enumerate(parameter, self.first_expert)]
                if parameter.ndim == 3
                else [(name, parameter)]
            )
            for key, part in parts:
                part.copy_(torch.randn(part.shape, generator=stream(seed, key)).mul_(self.config.init_std))
        for moe in self.moe_layers():
            moe.gate.e_score_correction_bias.zero_()

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states."""
        return F.linear(self.final_norm(hidden), self.head_weight)

    @property
    def head_weight(self) -> Tensor:
        if self.config.tie_embeddings:
            return cast(nn.Embedding, self.embed_tokens).weight
        if self.lm_head is None:
            raise ValueError("this pipeline stage has no head: only the stage with the last layer computes logits")
        return self.lm_head.weight

    def final_norm(self, hidden: Tensor) -> Tensor:
        if self.norm is None:
            raise ValueError(
                "this pipeline stage has no final norm: only the stage with the last layer computes logits"
            )
        return self.norm(hidden)

    def _run_layers(
        self,
        tokens_BL: Tensor | None,
        hidden_BLD: Tensor | None,
        segment_ids_BL: Tensor | None,
        store: ActivationStore | None = None,
    ) -> tuple[Tensor, list[Tensor], list[Routing], list[Cache]]:
        if self.embed_tokens is not None:
            if tokens_BL is None:
                raise ValueError("tokens_BL: the stage with the first layer takes tokens, not hidden states")
            hidden_BLD = self.embed_tokens(tokens_BL)
        if hidden_BLD is None:
            raise ValueError("hidden_BLD: this pipeline stage takes the previous stage's hidden states")
        cis_LR = rotations(self.config, hidden_BLD.shape[1], device=hidden_BLD.device)
        max_logits: list[Tensor] = []
        routings: list[Routing] = []
        caches: list[Cache] = []
        keep = not torch.is_grad_enabled()
        for block in self.layers.values():
            with nullcontext() if store is None else store.layer():
                hidden_BLD, max_logit_H, routing, cache = block(hidden_BLD, cis_LR, segment_ids_BL)
            max_logits.append(max_logit_H)
            if routing is not None:
                routings.append(routing)
            if keep:
                caches.append(cache)
        if store is not None:
            store.end()
        return hidden_BLD, max_logits, routings, caches
