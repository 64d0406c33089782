"""Text from the model: prefill, then one token at a time against the latent cache.

Shapes: B batch, L prompt positions, V vocabulary, N new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from abruzzi_jobs.models.decoder import Decoder


@torch.no_grad()
def generate(
    model: Decoder,
    tokens_BL: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 0.8,
    top_p: float = 1.0,
    end_token: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """int64 [B, N]: new tokens only. Temperature 0 is greedy. Stops early when every row has produced `end_token`, which then fills its row."""
    if max_new_tokens < 1:
        return tokens_BL.new_empty(tokens_BL.shape[0], 0)
    logits_BV, caches = model.prefill(tokens_BL)
    done_B = torch.zeros(tokens_BL.shape[0], dtype=torch.bool, device=tokens_BL.device)
    produced: list[Tensor] = []
    while True:
        next_B = sample(logits_BV, temperature=temperature, top_p=top_p, generator=generator)
        if end_token is not None:
            next_B = torch.where(done_B, end_token, next_B)
            done_B |= next_B == end_token
        produced.append(next_B)
        if len(produced) == max_new_tokens or bool(done_B.all()):
            return torch.stack(produced, 1)
        logits_BV = model.decode(next_B, caches)


@torch.no_grad()
def token_stream(
    model: Decoder,
    tokens_BL: Tensor,
    *,
    temperature: float,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    never: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(next_B, logits_BV that it was drawn from), without end: nothing is computed before it is asked for.

    `never`: indices of tokens that are not to be drawn; their logits are -inf.
    """
    logits_BV, caches = model.prefill(tokens_BL)
    while True:
        if never is not None:
            logits_BV = logits_BV.index_fill(1, never, float("-inf"))
        next_B = sample(logits_BV, temperature=temperature, top_p=top_p, generator=generator)
        yield next_B, logits_BV
        logits_BV = model.decode(next_B, caches)


def sample(logits_BV: Tensor, *, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    """int64 [B]. Nucleus: the smallest set of likeliest tokens whose probability reaches `top_p`."""
    if temperature == 0:
        return logits_BV.argmax(-1)
    probs_BV = torch.softmax(logits_BV / temperature, -1)
    if top_p < 1:
        sorted_BV, index_BV = probs_BV.sort(-1, descending=True)
        sorted_BV = sorted_BV.masked_fill(sorted_BV.cumsum(-1) - sorted_BV >= top_p, 0.0)
        probs_BV = torch.zeros_like(probs_BV).scatter_(1, index_BV, sorted_BV)
    return torch.multinomial(probs_BV, 1, generator=generator).squeeze(1)
