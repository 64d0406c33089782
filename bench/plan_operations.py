"""Seconds of the operations that a step is made of, as the model's own code does them. Each function is a command of parallel_worker.py and gives
rows of a calibration: [operation, shape, seconds].

Means, not medians: a step takes what all of its calls take, the slow ones too, of which a machine that others share has many."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from abruzzi_jobs.distributed import Layout, Mesh, Ranks
from abruzzi_jobs.distributed.exchange import RankExchange
from abruzzi_jobs.distributed.mesh import Group
from abruzzi_jobs.distributed.owned import Owned, OwnedPieces
from abruzzi_jobs.distributed.stages import named_parameters
from abruzzi_jobs.distributed.stopwatch import Stopwatch
from abruzzi_jobs.distributed.zero1 import ShardedMuonClip
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.models.attention import attention as attend
from abruzzi_jobs.models.linear import Queue, deferring
from abruzzi_jobs.models.moe import grouped_linear
from abruzzi_jobs.optim import OptimizerConfig
from abruzzi_jobs.optim.newton_schulz import newton_schulz as orthogonalize

Row = list[Any]
ROUNDS = 9
_LEAST_SECONDS = 0.02


def seconds_of(run: Callable[[], Any], *, rounds: int = ROUNDS) -> float:
    """Mean, over calls that take long enough together to be measured."""
    run()
    started = time.perf_counter()
    run()
    once = time.perf_counter() - started
    calls = max(rounds, round(_LEAST_SECONDS / max(once, 1e-7)))
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - started) / calls


def products(model: ModelConfig, ranks: Ranks, shapes: list[list[int]]) -> list[Row]:
    """Matrix products (m, k, n)."""
    found = []
    for m, k, n in shapes:
        a, b = torch.randn(m, k), torch.randn(n, k)
        found.append(["matmul", [m, k, n], seconds_of(lambda a=a, b=b: a @ b.t())])
    return found


def grouped(model: ModelConfig, ranks: Ranks, shapes: list[list[int]]) -> list[Row]:
    """Experts' products (rows, experts, k, n), with as many rows for each."""
    found = []
    for rows, experts, k, n in shapes:
        x, weight = torch.randn(rows, k), torch.randn(experts, n, k)
        ends = torch.arange(1, experts + 1, dtype=torch.int32) * (rows // experts)
        with torch.no_grad():
            found.append(["grouped_matmul", [rows, experts, k, n], seconds_of(lambda x=x, w=weight, e=ends: grouped_linear(x, w, e))])  # fmt: skip
    return found


def attention(model: ModelConfig, ranks: Ranks, shapes: list[list[int]]) -> list[Row]:
    """(sequences, length, heads, key, value), forward and backward, with a document a row."""
    found = []
    for shape in shapes:
        sequences, length, heads, key, value = shape
        q, k = (torch.randn(sequences, heads, length, key, requires_grad=True) for _ in range(2))
        v = torch.randn(sequences, heads, length, value, requires_grad=True)
        segments = torch.zeros(sequences, length, dtype=torch.int32)
        passes = _passes(lambda q=q, k=k, v=v, s=segments: attend(q, k, v, s, q.shape[-1] ** -0.5)[0])
        found += [["attention", shape, passes[0]], ["attention_gradient", shape, passes[1]]]
    return found


def layers(model: ModelConfig, ranks: Ranks, sequences: list[int], length: int) -> list[Row]:
    """A dense layer, one with experts, embedding and head: whole, each pass. The caller takes away what their products and attention took.

    Of layers with experts all that the model has, one after the other: one alone, again and again, would find its weights in the processor's caches,
    where in a step the other layers' are."""
    parts = {
        "dense": (range(0, 1), (False, False)),
        "moe": (range(model.num_dense_layers, model.num_layers), (False, False)),
        "embedding": (range(0), (True, False)),
        "head": (range(model.num_layers, model.num_layers), (False, True)),
    }
    found = []
    for part, (those, ends) in parts.items():
        chunk = KimiK2(model, layers=those, ends=ends, seed=0)
        for count in sequences:
            hidden_BLD = torch.randn(count, length, model.hidden_size, requires_grad=True)
            tokens_BL = torch.randint(0, model.vocab_size, (count, length))
            segments_BL = torch.zeros(count, length, dtype=torch.int32)

            def forward(chunk=chunk, part=part, h=hidden_BLD, t=tokens_BL, s=segments_BL) -> Tensor:
                if part == "embedding":
                    return chunk(t, None, s).hidden_BLD
                out = chunk(None, t if part == "head" else None, s, hidden_BLD=h)
                return out.loss_sum if part == "head" else out.hidden_BLD

            names = ("forward", "input_gradient", "weight_gradient")
            for name, seconds in zip(names, _passes(forward), strict=True):
                found.append([f"{part}_{name}", [count * length, model.hidden_size], seconds / max(1, len(those))])
    return found


def exchange(model: ModelConfig, ranks: Ranks, sequences: list[int], length: int) -> list[Row]:
    """A layer with experts that all ranks share, all at once: forward and backward, elapsed and of the processor. The caller takes away what a layer with
    experts of its own takes. As in `layers`, all layers with experts and the mean of them."""
    world, found = ranks.world_size, []
    layers = range(model.num_dense_layers, model.num_layers)
    experts = Layout(ep=world, dp=world).experts(model.num_experts, ranks.rank)
    chunk = KimiK2(model, layers=layers, ends=(False, False), experts=experts, seed=0)
    for moe in chunk.moe_layers():
        moe.experts.exchange = RankExchange(Group(None, list(range(world))), model.num_experts, Stopwatch(ranks.device))
    generator = torch.Generator().manual_seed(ranks.rank)
    for count in sequences:
        hidden_BLD = torch.randn(count, length, model.hidden_size, generator=generator).requires_grad_()
        segments_BL = torch.zeros(count, length, dtype=torch.int32)

        def forward(h=hidden_BLD, s=segments_BL) -> Tensor:
            return chunk(None, None, s, hidden_BLD=h).hidden_BLD

        elapsed, busy = _passes_of_both_clocks(forward, calls=3)
        for suffix, (there, inputs, weights) in (("", elapsed), ("_work", busy)):
            shape = [world, count * length, model.hidden_size]
            found.append([f"all_to_all{suffix}", shape, there / len(layers)])
            found.append([f"all_to_all_gradient{suffix}", shape, (inputs + weights) / len(layers)])
    return found


def messages(model: ModelConfig, ranks: Ranks, sizes: list[int]) -> list[Row]:
    """From the first rank to the second and back, halved."""
    found = []
    for size in sizes:
        buffer = torch.zeros(size // 4)

        def there_and_back(buffer=buffer) -> None:
            for source in (0, 1):
                if ranks.rank == source:
                    dist.send(buffer, 1 - source)
                else:
                    dist.recv(buffer, source)

        found.append(["message", [size], _counted(there_and_back, 15) / 2])
    return found


def sums(model: ModelConfig, ranks: Ranks, sizes: list[int]) -> list[Row]:
    """To the owners and from them, of equal parts, as ZeRO-1 does it; and the small sums of a step."""
    world, found = ranks.world_size, []
    group = Group(None, list(range(world)))
    for size in sizes:
        parts = torch.zeros(size // 4).chunk(2 * world)
        owned = OwnedPieces([Owned(part, part, i % world, group) for i, part in enumerate(parts)], rank=ranks.rank)
        found.append(["reduce", [world, size], _counted(owned.reduce, 9)])
        found.append(["broadcast", [world, size], _counted(owned.broadcast, 9)])
    maxima, counts = torch.zeros(model.num_layers, model.num_heads), torch.zeros(model.num_layers, model.num_experts)
    three, one = torch.zeros(3, dtype=torch.float64), torch.zeros((), dtype=torch.float64)

    def small() -> None:
        for tensor in (three, one, maxima, counts):
            dist.all_reduce(tensor)

    found.append(["step", [world], _counted(small, 9)])
    return found


def optimizer(model: ModelConfig, ranks: Ranks, matrices: list[list[int]], steps: int) -> list[Row]:
    """Newton-Schulz by (matrices, rows, columns), and a whole update of the model. The caller takes away what Newton-Schulz takes of it."""
    found = []
    for count, rows, columns in matrices:
        x = torch.randn(count, rows, columns)
        found.append(["newton_schulz", [count, rows, columns, steps], seconds_of(lambda x=x: orthogonalize(x, steps=steps))])  # fmt: skip
    alone = Mesh(Ranks(rank=0, world_size=1, device=torch.device("cpu")), Layout())
    whole = KimiK2(model, seed=0)
    sharded = ShardedMuonClip(
        named_parameters({0: whole}), OptimizerConfig(), model=model, layers=range(model.num_layers), mesh=alone
    )
    logits = torch.zeros(model.num_layers, model.num_heads)

    def update() -> None:
        for parameter in sharded.parameters.values():
            if parameter.grad is not None:
                parameter.grad.normal_()
        start = time.perf_counter()
        sharded.reduce()
        sharded.step(0.1)
        sharded.clip_qk(logits)
        sharded.share()
        taken.append(time.perf_counter() - start)

    taken: list[float] = []
    for _ in range(5):
        update()
    size = sum(p.numel() for p in sharded.parameters.values())
    return [*found, ["update", [size], statistics.mean(taken[1:])]]


def crowd(model: ModelConfig, ranks: Ranks, sequences: int, length: int, seconds: float) -> float:
    """How often a second the layers with experts go forward and backward, for so long: alone, or while others do the same. By time, not by count: whoever
    were done first would leave the others alone."""
    layers = range(model.num_dense_layers, model.num_layers)
    chunk = KimiK2(model, layers=layers, ends=(False, False), seed=0)
    hidden_BLD = torch.randn(sequences, length, model.hidden_size, requires_grad=True)
    segments_BL = torch.zeros(sequences, length, dtype=torch.int32)
    times, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        chunk(None, None, segments_BL, hidden_BLD=hidden_BLD).hidden_BLD.sum().backward()
        times += 1
    return times / (time.perf_counter() - start)


_Passes = tuple[float, float, float]
"""Seconds of forward, of gradients of inputs, of gradients of weights, as the runtime takes them apart."""


def _passes(forward: Callable[[], Tensor], *, calls: int = ROUNDS) -> _Passes:
    return _passes_of_both_clocks(forward, calls=calls)[0]


def _passes_of_both_clocks(forward: Callable[[], Tensor], *, calls: int) -> tuple[_Passes, _Passes]:
    """(elapsed, of the processor: all threads of this process)."""
    taken: list[list[tuple[float, float]]] = []
    for _ in range(calls + 2):
        queue: Queue = []
        began = _clocks()
        with deferring(queue):
            out = forward()
        done = _clocks()
        gradient = torch.ones_like(out)
        start = _clocks()
        torch.autograd.backward([out], [gradient])
        inputs = _clocks()
        queue.reverse()
        while queue:
            queue.pop()()
        pairs = ((began, done), (start, inputs), (inputs, _clocks()))
        taken.append([(to[0] - since[0], to[1] - since[1]) for since, to in pairs])

    def mean(step: int, clock: int) -> float:
        return statistics.mean(call[step][clock] for call in taken[2:])

    return (mean(0, 0), mean(1, 0), mean(2, 0)), (mean(0, 1), mean(1, 1), mean(2, 1))


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _counted(run: Callable[[], Any], calls: int) -> float:
    """Of a collective: as many calls on every rank."""
    run()
    found = []
    for _ in range(calls):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return statistics.mean(found)
