"""Cross-entropy of a linear head without the logits of the whole batch: summed, or a log-probability for each row.

Rows go through in chunks. For the sum, the gradient of a chunk is formed while its logits are there (three matrix products, none repeated), so
backward only scales what is stored: dX [T, D] and dW [V, D]. Where each row has a gradient of its own, backward makes the logits again.

Shapes: T rows, D hidden, V vocabulary, C rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from abruzzi_jobs.memory import widened
from abruzzi_jobs.models.attention import LOG2_E
from abruzzi_jobs.models.invariance import ROWS

IGNORE = -100
"""Targets of this value count nowhere."""

_CHUNK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 28}


def linear_cross_entropy(x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor) -> Tensor:
    """Sum over the rows that have a target of −log softmax(x Wᵀ)[target]; a float32 scalar (float64 for float64 input)."""
    return _LinearCrossEntropy.apply(x_TD, weight_VD, targets_T)  # type: ignore[no-any-return]


@torch.no_grad()
def token_losses(x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor) -> Tensor:
    """The same, one value a row (nats, 0 where there is no target), float32 [T]."""
    losses = [_chunk(x, weight_VD, t)[1] for x, t in _chunks(x_TD, weight_VD, targets_T)]
    return torch.cat(losses) if losses else x_TD.new_zeros(0, dtype=torch.float32)


def token_logprobs(
    x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, temperature_T: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(log softmax(x Wᵀ / temperature)[target], entropy of that softmax in nats, without gradient), float32 [T] (float64 for float64 input).

    Every row has a target.
    """
    return _TokenLogprobs.apply(x_TD, weight_VD, targets_T, temperature_T)  # type: ignore[no-any-return]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, temperature_T: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if x_TD.dtype == torch.float64 else torch.float32
        logprob_T, entropy_T, normaliser_T = x_TD.new_empty(3, x_TD.shape[0], dtype=wide).unbind()
        for here in _spans(x_TD, weight_VD):
            logits_CV = _tempered_logits(x_TD, weight_VD, temperature_T, here)
            log_p_CV = torch.log_softmax(logits_CV, -1)
            target_C1 = targets_T[here].unsqueeze(1)
            logprob_T[here] = log_p_CV.gather(1, target_C1).squeeze(1)
            normaliser_T[here] = logits_CV.gather(1, target_C1).squeeze(1) - logprob_T[here]
            p_CV = torch.mul(log_p_CV, LOG2_E, out=logits_CV).exp2_()
            entropy_T[here] = torch.linalg.vecdot(p_CV, log_p_CV).neg_()
        ctx.save_for_backward(x_TD, weight_VD, targets_T, temperature_T, normaliser_T)
        ctx.mark_non_differentiable(entropy_T)
        return logprob_T, entropy_T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_TD, weight_VD, targets_T, temperature_T, normaliser_T = ctx.saved_tensors
        grad_T = grads[0] if temperature_T is None else grads[0] / temperature_T
        grad_x, grad_weight = torch.empty_like(x_TD), torch.zeros_like(weight_VD, dtype=grad_T.dtype)
        for here in _spans(x_TD, weight_VD):
            logits_CV = _tempered_logits(x_TD, weight_VD, temperature_T, here)
            p_CV = logits_CV.sub_(normaliser_T[here].unsqueeze(1)).mul_(LOG2_E).exp2_()
            grad_C1 = grad_T[here].unsqueeze(1)
            p_CV.mul_(-grad_C1).scatter_add_(1, targets_T[here].unsqueeze(1), grad_C1)
            p_CV = p_CV.to(x_TD.dtype)
            torch.mm(p_CV, weight_VD, out=grad_x[here])
            _add_product_(grad_weight, p_CV.t(), x_TD[here])
        return grad_x, grad_weight.to(weight_VD.dtype), None, None


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor) -> Tensor:
        with_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        wide = torch.float64 if x_TD.dtype == torch.float64 else torch.float32
        total = torch.zeros((), dtype=wide, device=x_TD.device)
        grad_x = torch.empty_like(x_TD) if with_grad else None
        grad_weight = torch.zeros_like(weight_VD, dtype=wide) if with_grad else None
        start = 0
        for x_CD, targets_C in _chunks(x_TD, weight_VD, targets_T):
            log_p_CV, losses_C = _chunk(x_CD, weight_VD, targets_C)
            total += losses_C.sum()
            if grad_x is not None and grad_weight is not None:
                p_CV = log_p_CV.mul_(LOG2_E).exp2_()  # exp is a hundred times slower where it underflows
                kept_C = targets_C != IGNORE
                p_CV.scatter_add_(1, targets_C.clamp(min=0).unsqueeze(1), -torch.ones_like(p_CV[:, :1]))
                if not x_TD.is_cuda and bool(kept_C.all()):
                    pass  # the usual case on CPU: nothing to mask
                else:
                    p_CV.mul_(kept_C.unsqueeze(1))
                p_CV = p_CV.to(x_CD.dtype)
                torch.mm(p_CV, weight_VD, out=grad_x[start : start + x_CD.shape[0]])
                _add_product_(grad_weight, p_CV.t(), x_CD)
            start += x_CD.shape[0]
        if with_grad:
            ctx.save_for_backward(grad_x, grad_weight)
        ctx.weight_dtype = weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grads[0].to(grad_x.dtype), (grad_weight * grads[0]).to(ctx.weight_dtype), None


def _chunk_rows(x_TD: Tensor, weight_VD: Tensor) -> int:
    budget = _CHUNK_ELEMENTS.get(x_TD.device.type, _CHUNK_ELEMENTS["cpu"])
    return max(64, budget // weight_VD.shape[0] // ROWS * ROWS)


def _chunks(x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor) -> zip[tuple[Tensor, Tensor]]:
    size = _chunk_rows(x_TD, weight_VD)
    return zip(x_TD.split(size), targets_T.split(size), strict=True)


def _spans(x_TD: Tensor, weight_VD: Tensor) -> Iterator[slice]:
    size = _chunk_rows(x_TD, weight_VD)
    for start in range(0, x_TD.shape[0], size):
        yield slice(start, min(start + size, x_TD.shape[0]))


def _tempered_logits(x_TD: Tensor, weight_VD: Tensor, temperature_T: Tensor | None, here: slice) -> Tensor:
    """Wide, and the caller's to overwrite."""
    logits_CV = widened(x_TD[here] @ weight_VD.t())
    return logits_CV if temperature_T is None else logits_CV.div_(temperature_T[here].unsqueeze(1))


def _chunk(x_CD: Tensor, weight_VD: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """(log-probabilities [C, V], losses [C])"""
    logits_CV = x_CD @ weight_VD.t()
    log_p_CV = torch.log_softmax(widened(logits_CV), -1)
    picked_C = log_p_CV.gather(1, targets_C.clamp(min=0).unsqueeze(1)).squeeze(1)
    return log_p_CV, torch.where(targets_C == IGNORE, 0.0, -picked_C)


def _add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.is_cuda:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.add_(a @ b)
