"""The model over rows of many sequences at once, flat and without padding: all tokens of some sequences (`ragged_forward`, with gradient), or some more tokens of each
against a cache (`paged_forward`). Both give a token the same numbers, bit for bit, whatever stands beside it: what an engine draws from is what a trainer learns from
(reference/rl.md 8, invariant 1; `invariance.py` says on what that rests).

Latent attention is taken in its absorbed form in both: a latent and a rotary key of each position serve all heads.

Shapes: T rows, D hidden, R rotary dims, Y layers, H heads, M expert layers, E experts, V vocabulary, C rows with a target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from abruzzi_jobs.models.decoder import Block, Decoder, expert_counts
from abruzzi_jobs.models.invariance import ROWS, multiple
from abruzzi_jobs.models.loss import IGNORE, token_logprobs
from abruzzi_jobs.models.paged import LayerPages, Tiles, paged_attention
from abruzzi_jobs.models.ragged import RaggedLayout, ragged_attention
from abruzzi_jobs.models.rope import rotations

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q_TGQD, k_TGD, v_TGE) → out_TGQE"""


@dataclass
class RowsOutput:
    hidden_TD: Tensor
    """After the last layer, before the final norm."""
    max_logit_per_layer: Tensor
    """float32 [Y, H]"""
    expert_counts: Tensor
    """int64 [M, E]"""


def ragged_forward(model: Decoder, tokens_T: Tensor, lengths: Sequence[int]) -> RowsOutput:
    """Of whole sequences, one after the other; `lengths` sum to T."""
    count = sum(lengths)
    if count != len(tokens_T):
        raise ValueError(f"lengths sum to {count}, but there are {len(tokens_T)} tokens")
    rows = multiple(max(count, 1), ROWS)
    positions_T = torch.cat([torch.arange(length) for length in (*lengths, rows - count)]).to(tokens_T.device)
    layers = model.attentions()
    scale = layers[0].scale
    layout = RaggedLayout.of(lengths, rows, heads=model.config.num_heads, device=tokens_T.device)
    maxima: list[Tensor] = []

    def attend(_: int, q_TGQD: Tensor, k_TGD: Tensor, v_TGE: Tensor) -> Tensor:
        out_TGQE, max_logit_H = ragged_attention(q_TGQD, k_TGD, v_TGE, layout, scale)
        maxima.append(max_logit_H)
        return out_TGQE

    hidden_TD, chosen = _run(model, F.pad(tokens_T, (0, rows - count)), positions_T, attend)
    experts = getattr(model.config, "num_experts", 0)
    counts = [torch.bincount(experts_TK[:count].flatten(), minlength=experts) for experts_TK in chosen]
    return RowsOutput(hidden_TD[:count], torch.stack(maxima), expert_counts(model.config, counts, tokens_T.device))


@dataclass
class PolicyOutput:
    """C targets that count, in their order."""

    logprob_C: Tensor
    """Natural logarithm, float32, with gradient."""
    entropy_C: Tensor
    """Of the distribution that the target was drawn from, nats."""
    max_logit_per_layer: Tensor
    expert_counts: Tensor


def policy_logprobs(
    model: Decoder, tokens_T: Tensor, targets_T: Tensor, lengths: Sequence[int], temperature_C: Tensor | None = None
) -> PolicyOutput:
    """log softmax(logits / temperature)[target] of the targets that are not -100, of whole sequences one after the other; the head sees no other rows.

    A target's bits do not depend on what else is in the batch.
    """
    out = ragged_forward(model, tokens_T, lengths)
    counts_C = (targets_T != IGNORE).nonzero().squeeze(1)
    C = len(counts_C)
    filled = multiple(max(C, 1), ROWS) - C
    logprob_C, entropy_C = token_logprobs(
        model.final_norm(F.pad(out.hidden_TD.index_select(0, counts_C), (0, 0, 0, filled))),
        model.head_weight,
        F.pad(targets_T.index_select(0, counts_C), (0, filled)),
        None if temperature_C is None else F.pad(temperature_C, (0, filled), value=1.0),
    )
    return PolicyOutput(logprob_C[:C], entropy_C[:C], out.max_logit_per_layer, out.expert_counts)


def new_pages(model: Decoder, pages: int) -> list[LayerPages]:
    weight = model.head_weight
    return [
        LayerPages(pages, layer.cache_dims(), device=weight.device, dtype=weight.dtype) for layer in model.attentions()
    ]


@torch.no_grad()
def paged_forward(
    model: Decoder,
    tokens_T: Tensor,
    positions_T: Tensor,
    slots_T: Tensor,
    cache: Sequence[LayerPages],
    tiles: Sequence[Tiles],
) -> Tensor:
    """hidden_TD of T rows (a multiple of `ROWS`), whose keys and values are first written to `slots_T`; `tiles` cover the rows in order."""
    scale, places = model.attentions()[0].scale, cache[0].places(slots_T)

    def attend(layer: int, q_TGQD: Tensor, k_TGD: Tensor, v_TGE: Tensor) -> Tensor:
        cache[layer].write(places, k_TGD, v_TGE)
        parts = [paged_attention(q_TGQD, cache[layer], part, scale) for part in tiles]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return _run(model, tokens_T, positions_T, attend)[0]


def head_logits(model: Decoder, hidden_TD: Tensor) -> Tensor:
    """float32 [T, V]"""
    count = len(hidden_TD)
    padded_TD = F.pad(hidden_TD, (0, 0, 0, multiple(max(count, 1), ROWS) - count))
    return model.head(padded_TD)[:count].float()


def _run(model: Decoder, tokens_T: Tensor, positions_T: Tensor, attend: Attend) -> tuple[Tensor, list[Tensor]]:
    """(hidden_TD, experts_TK of each expert layer)"""
    assert model.embed_tokens is not None
    hidden_TD = model.embed_tokens(tokens_T)
    length = max(model.config.max_position, int(positions_T.max()) + 1)
    cis_TR = rotations(model.config, length, device=hidden_TD.device)[positions_T]
    chosen: list[Tensor] = []
    store = model.activations.begin()
    for layer, block in enumerate(model.layers.values()):
        with nullcontext() if store is None else store.layer():
            hidden_TD, routing = cast(Block, block).rows(
                hidden_TD, cis_TR, lambda q, k, v, layer=layer: attend(layer, q, k, v)
            )
        if routing is not None:
            chosen.append(routing.experts_TK)
    if store is not None:
        store.end()
    return hidden_TD, chosen
