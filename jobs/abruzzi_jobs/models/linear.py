"""Linear layers whose weights' gradients may be taken later than those of their inputs (paper section 2.4: run while messages are under way).

Inside `deferring(queue)` a forward pass makes a graph whose backward gives gradients to inputs at once and appends the weights' work to the
queue. Norms, embedding and head are too small, or too tied to their inputs, to gain from it: they stay with the inputs.

Shapes: R rows, X inputs, Y outputs, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Queue = list[Callable[[], None]]
"""What is left to do for the gradients of weights, in the order in which backward came by."""

_queue: Queue | None = None


@contextmanager
def deferring(queue: Queue | None) -> Iterator[None]:
    """For the forward pass inside. None: gradients come together, as ever.

    Whoever does the queue's work takes it off the queue: what stays there holds its graph, which holds the queue, in a circle that Python cannot see.
    """
    global _queue
    before, _queue = _queue, queue
    try:
        yield
    finally:
        _queue = before


def current_queue() -> Queue | None:
    return _queue if torch.is_grad_enabled() else None


class Linear(nn.Linear):
    """Without bias."""

    def __init__(self, inputs: int, outputs: int, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(inputs, outputs, bias=False, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight)


def linear(x: Tensor, weight_YX: Tensor) -> Tensor:
    """In the weight's precision. A narrower x is kept as it is: the wide copy goes."""
    queue = current_queue()
    if queue is None and (x.dtype == weight_YX.dtype or not torch.is_grad_enabled()):
        return F.linear(x.to(weight_YX.dtype), weight_YX)
    return _Linear.apply(x, weight_YX, queue)  # type: ignore[no-any-return]


@torch.no_grad()
def _add_gradient(weight_YX: Tensor, grad_RY: Tensor, x_RX: Tensor) -> None:
    """The product is added as it is made: no tensor of its own, no pass more over the accumulator."""
    if weight_YX.grad is None:
        weight_YX.grad = grad_RY.t() @ x_RX
    else:
        weight_YX.grad.addmm_(grad_RY.t(), x_RX)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_YX: Tensor, queue: Queue | None) -> Tensor:
        ctx.save_for_backward(x, weight_YX)
        ctx.weight, ctx.queue = (
            weight_YX,
            queue,
        )  # under hooks, what is saved comes back as another tensor (memory/saved.py)
        return F.linear(x.to(weight_YX.dtype), weight_YX)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight_YX = ctx.saved_tensors
        grad = grads[0]
        grad_x = (grad @ weight_YX).to(x.dtype)

        def factors() -> tuple[Tensor, Tensor]:
            return grad.flatten(0, -2), x.flatten(0, -2).to(weight_YX.dtype)

        if ctx.queue is None:
            grad_RY, x_RX = factors()
            return grad_x, grad_RY.t() @ x_RX, None
        weight = ctx.weight
        ctx.queue.append(lambda: _add_gradient(weight, *factors()))
        return grad_x, None, None


class GroupedLinear(torch.autograd.Function):
    """`product(x_RX, weight_EYX, ends_E)` with the weights' gradient deferred. Rows up to ends_E[e] are expert e's."""

    @staticmethod
    def forward(
        ctx: Any,
        x_RX: Tensor,
        weight_EYX: Tensor,
        ends_E: Tensor,
        product: Callable[[Tensor, Tensor, Tensor], Tensor],
        queue: Queue,
    ) -> Tensor:
        ctx.save_for_backward(x_RX, weight_EYX, ends_E)
        ctx.weight, ctx.product, ctx.queue = weight_EYX, product, queue
        return product(x_RX, weight_EYX, ends_E)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        x_RX, weight_EYX, ends_E = ctx.saved_tensors
        weight = ctx.weight
        grad_RY = grads[0].contiguous()

        @torch.no_grad()
        def take() -> None:
            counts = torch.diff(ends_E, prepend=ends_E.new_zeros(1)).tolist()
            is_first = weight.grad is None
            if is_first:
                weight.grad = torch.empty_like(weight_EYX)
            for total, grad, x in zip(weight.grad, grad_RY.split(counts), x_RX.split(counts), strict=True):
                if is_first:
                    torch.mm(grad.t(), x, out=total)
                else:
                    total.addmm_(grad.t(), x)

        ctx.queue.append(take)
        return ctx.product(grad_RY, weight_EYX.transpose(1, 2), ends_E), None, None, None, None
