"""Drawing tokens: by inverse distribution function of a number that follows from (seed, position) alone, so that no batch, pause or restart changes a draw.

Shapes: S rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from abruzzi_jobs.rl.engine.protocol import Request

_MASK = (1 << 64) - 1
_GOLDEN, _FIRST, _SECOND = map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_ONE, _S11, _S27, _S30, _S31 = map(np.uint64, (1, 11, 27, 30, 31))


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
    """In (0, 1), of 53 bits: SplitMix64 (Steele et al. 2014) as a function of a counter, one stream a seed."""
    seed_S = np.array([seed & _MASK for seed in seeds], np.uint64)
    position_S = np.array(positions, np.uint64)
    return ((_mixed(_mixed(seed_S) + _GOLDEN * (position_S + _ONE)) >> _S11).astype(np.float64) + 0.5) * 2.0**-53


def draw(logits_SV: Tensor, requests: Sequence[Request], positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(tokens_S, their log-probabilities_S): the next token of each request, at `positions` of its sequence.

    A row's result follows from its own logits and request.
    """
    logprobs_SV = _tempered(logits_SV, requests)
    for row, request in enumerate(requests):
        if request.top_p < 1:
            logprobs_SV[row] = _nucleus(logprobs_SV[row], request.top_p)
    uniform_S = torch.from_numpy(uniforms([r.seed for r in requests], positions)).to(logits_SV.device)
    tokens_S = _inverse(logprobs_SV, uniform_S)
    if not all(r.temperature for r in requests):
        is_greedy_S = torch.tensor([not r.temperature for r in requests], device=logits_SV.device)
        tokens_S = torch.where(is_greedy_S, logits_SV.argmax(-1), tokens_S)
    return tokens_S, logprobs_SV.gather(1, tokens_S.unsqueeze(1)).squeeze(1)


def chosen(logits_SV: Tensor, requests: Sequence[Request], tokens_S: Tensor) -> Tensor:
    """Log-probabilities_S of these tokens under logits / temperature, to the same bits as `draw` and the learner have them."""
    return _tempered(logits_SV, requests).gather(1, tokens_S.unsqueeze(1)).squeeze(1)


def _tempered(logits_SV: Tensor, requests: Sequence[Request]) -> Tensor:
    if all(r.temperature in (0.0, 1.0) for r in requests):  # divided by 1, a number is itself
        return torch.log_softmax(logits_SV, -1)
    temperatures_S1 = torch.tensor([r.temperature or 1.0 for r in requests], device=logits_SV.device).unsqueeze(1)
    return torch.log_softmax(logits_SV / temperatures_S1, -1)


def _inverse(logprobs_SV: Tensor, uniform_S: Tensor) -> Tensor:
    # Clamped: where exp underflows, it is a hundred times slower. What that adds is below what a sum can hold.
    cumulated_SV = logprobs_SV.clamp(min=-80).exp_().cumsum(-1)
    total_S = cumulated_SV[:, -1]
    threshold_S = (uniform_S * total_S).to(total_S.dtype)
    threshold_S = torch.minimum(threshold_S, torch.nextafter(total_S, total_S.new_zeros(())))
    return torch.searchsorted(cumulated_SV, threshold_S.unsqueeze(1), right=True).squeeze(1)


def _nucleus(logprobs_V: Tensor, top_p: float) -> Tensor:
    sorted_V, index_V = logprobs_V.sort(descending=True, stable=True)
    probs_V = sorted_V.exp()
    sorted_V = sorted_V.masked_fill(probs_V.cumsum(0) - probs_V >= top_p, -torch.inf)
    return torch.log_softmax(torch.empty_like(logprobs_V).scatter_(0, index_V, sorted_V), -1)


def _mixed(state_S: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Modulo 2^64, as numpy's unsigned arrays multiply."""
    state_S = (state_S ^ (state_S >> _S30)) * _FIRST
    state_S = (state_S ^ (state_S >> _S27)) * _SECOND
    return state_S ^ (state_S >> _S31)
