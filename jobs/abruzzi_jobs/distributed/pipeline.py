"""Execute an action table (`abruzzi.plan.pipeline` makes them): a rank's chunks of layers, messages with its neighbours, gradients of inputs and
of weights each in their turn.

Sends and receives do not block: what waits is the compute that needs a message, and the end. The all-to-alls of experts happen inside F and I.
All processes of a pipeline execute tables of one schedule.

Shapes: B rows of a micro-batch, L positions, D hidden.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from abruzzi_jobs.distributed.mesh import Mesh
from abruzzi_jobs.memory import ActivationStore
from abruzzi_jobs.models import Decoder, ForwardOutput
from abruzzi_jobs.models.linear import Queue, deferring

_COMPUTES = ("F", "I", "W")


class Action(Protocol):
    """`op` is one of F, I, W, SEND_F, RECV_F, SEND_I, RECV_I, OFFLOAD, ONLOAD; `stage` counts all chunks of the model."""

    @property
    def op(self) -> str: ...
    @property
    def stage(self) -> int: ...
    @property
    def microbatch(self) -> int: ...


@dataclass(frozen=True, slots=True)
class MicroBatch:
    tokens_BL: Tensor
    targets_BL: Tensor
    segments_BL: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """When an action of the last run was done, in seconds of this machine's monotonic clock (`time.perf_counter`), its wait for a message not counted,
    that for the other ranks of an all-to-all counted. On CUDA: when the host was done with it."""

    action: Action
    start: float
    end: float


Loss = Callable[[int, int, ForwardOutput], Tensor | None]
"""(stage, micro-batch, what its forward gave) → this stage's share of the loss, to be differentiated; None where it has none."""


@dataclass
class _Passing:
    """One micro-batch in one stage, between F and W."""

    entered_BLD: Tensor | None
    left_BLD: Tensor
    loss: Tensor | None
    store: ActivationStore | None = None
    queue: Queue = field(default_factory=list)


class PipelineRuntime:
    """`chunks`: stage → layers, of this rank. One of all stages needs no messages."""

    def __init__(self, chunks: Mapping[int, Decoder], mesh: Mesh, *, dtype: torch.dtype) -> None:
        self.chunks, self._mesh, self._dtype = dict(chunks), mesh, dtype
        self._stages = mesh.layout.stages
        self._hidden = next(iter(chunks.values())).config.hidden_size
        self.spans: list[Span] = []

    def run(
        self,
        actions: Sequence[Action],
        batches: Sequence[MicroBatch],
        loss: Loss,
        *,
        after_gradients: Callable[[], None] = lambda: None,
    ) -> None:
        """`after_gradients` is called where some have been added to parameters, after I and W. `spans` are this run's afterwards, and the mesh's `own_work`
        has gone on by what F, I and W of a training table took. Raises ValueError for an action that is none of the above."""
        run = _Run(self, actions, batches, loss, after_gradients)
        run.execute()
        self.spans = run.spans


class _Run:
    def __init__(
        self,
        runtime: PipelineRuntime,
        actions: Sequence[Action],
        batches: Sequence[MicroBatch],
        loss: Loss,
        after_gradients: Callable[[], None],
    ) -> None:
        self._runtime, self._mesh = runtime, runtime._mesh
        self._actions, self._batches, self._loss, self._after_gradients = actions, batches, loss, after_gradients
        self._backward = any(action.op == "I" for action in actions)
        self._apart = self._backward and _weights_apart(actions)
        self._passing: dict[tuple[int, int], _Passing] = {}
        self._coming: dict[tuple[str, int, int], tuple[dist.Work | None, Tensor]] = {}
        self._leaving: dict[tuple[str, int, int], Tensor] = {}
        self._sends: list[tuple[dist.Work, Tensor]] = []
        self.spans: list[Span] = []
        self._began = 0.0
        self._does: dict[str, Callable[[int, int], None]] = {
            "F": self._forward, "I": self._inputs, "W": self._weights,
            "SEND_F": lambda s, m: self._send("F", s, m), "RECV_F": lambda s, m: self._receive("F", s, m),
            "SEND_I": lambda s, m: self._send("I", s, m), "RECV_I": lambda s, m: self._receive("I", s, m),
            "OFFLOAD": self._offload, "ONLOAD": self._onload,
        }  # fmt: skip

    def execute(self) -> None:
        unknown = sorted({str(action.op) for action in self._actions if action.op not in self._does})
        if unknown:
            raise ValueError(f"the runtime does not execute {', '.join(unknown)}: make the table without them")
        with nullcontext() if self._backward else torch.no_grad():
            for action in self._actions:
                self._began = time.perf_counter()
                self._do(action)
                self.spans.append(Span(action, self._began, time.perf_counter()))
        for work, _ in self._sends:
            work.wait()

    def _do(self, action: Action) -> None:
        does = self._does[action.op]
        if self._backward and action.op in _COMPUTES:
            self._mesh.own_work.start()
            does(action.stage, action.microbatch)
            self._mesh.own_work.stop()
        else:
            does(action.stage, action.microbatch)

    def _forward(self, stage: int, m: int) -> None:
        batch, chunk = self._batches[m], self._runtime.chunks[stage]
        entered = self._taken("F", stage, m) if stage > 0 else None
        if entered is not None and self._backward:
            entered.requires_grad_()
        queue: Queue = []
        with deferring(queue if self._apart else None):
            out = chunk(
                batch.tokens_BL if chunk.is_first else None,
                batch.targets_BL if chunk.is_last else None,
                batch.segments_BL,
                hidden_BLD=entered,
            )
        share = self._loss(stage, m, out)
        if stage + 1 < self._runtime._stages:
            self._leaves("F", stage, m, out.hidden_BLD.detach())
        if self._backward:
            self._passing[stage, m] = _Passing(entered, out.hidden_BLD, share, out.store, queue)

    def _inputs(self, stage: int, m: int) -> None:
        here = self._passing[stage, m]
        roots: list[Tensor] = []
        grads: list[Tensor | None] = []
        if stage + 1 < self._runtime._stages:
            roots.append(here.left_BLD)
            grads.append(self._taken("I", stage, m))
        if here.loss is not None and here.loss.requires_grad:
            roots.append(here.loss)
            grads.append(None)
        torch.autograd.backward(roots, grads)
        if stage > 0:
            assert here.entered_BLD is not None
            assert here.entered_BLD.grad is not None
            self._leaves("I", stage, m, here.entered_BLD.grad)
        here.entered_BLD = here.loss = here.store = None
        here.left_BLD = here.left_BLD.new_empty(0)
        self._after_gradients()

    def _weights(self, stage: int, m: int) -> None:
        queue = self._passing.pop((stage, m)).queue
        queue.reverse()
        while queue:
            queue.pop()()  # what one held is free for the next
        self._after_gradients()

    def _offload(self, stage: int, m: int) -> None:
        store = self._passing[stage, m].store
        if store is not None:
            store.offload()

    def _onload(self, stage: int, m: int) -> None:
        store = self._passing[stage, m].store
        if store is not None:
            store.fetch()

    # Messages

    def _leaves(self, op: str, stage: int, m: int, tensor: Tensor) -> None:
        if self._mesh.layout.pp == 1:
            self._coming[op, stage + (1 if op == "F" else -1), m] = (None, tensor)
        else:
            self._leaving[op, stage, m] = tensor.contiguous()

    def _send(self, op: str, stage: int, m: int) -> None:
        tensor = self._leaving.pop((op, stage, m))
        out, _ = self._mesh.forward if op == "F" else self._mesh.backward
        assert out is not None
        work = dist.isend(tensor, out.ranks[1], group=out.handle, tag=self._tag(stage, m))
        assert work is not None
        self._sends = [(w, t) for w, t in self._sends if not w.is_completed()]
        self._sends.append((work, tensor))

    def _receive(self, op: str, stage: int, m: int) -> None:
        rows, length = self._batches[m].tokens_BL.shape
        buffer = torch.empty(
            rows, length, self._runtime._hidden, dtype=self._runtime._dtype, device=self._mesh.ranks.device
        )
        _, come = self._mesh.forward if op == "F" else self._mesh.backward
        assert come is not None
        sender = stage - 1 if op == "F" else stage + 1
        work = dist.irecv(buffer, come.ranks[0], group=come.handle, tag=self._tag(sender, m))
        self._coming[op, stage, m] = (work, buffer)

    def _tag(self, stage: int, m: int) -> int:
        """By the sender's stage. Gloo goes by it; NCCL by the order, which is the same on both ends."""
        return m * self._runtime._stages + stage

    def _taken(self, op: str, stage: int, m: int) -> Tensor:
        work, tensor = self._coming.pop((op, stage, m))
        if work is not None:
            with self._mesh.own_work.standing_still():
                work.wait()
            self._began = time.perf_counter()
        return tensor


def _weights_apart(actions: Sequence[Action]) -> bool:
    """Whether some W hides a message, or waits: else gradients come together, at less cost."""
    backward = [action.op for action in actions if action.op in ("I", "W", "SEND_I")]
    return any(one == "I" and two != "W" for one, two in pairwise(backward))
