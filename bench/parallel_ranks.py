"""Processes that stand ready and do what they are told, step by step, so that several layouts can take turns."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import parallel_worker
from interleaved import machine

from abruzzi.contracts.training import ModelConfig, ParallelConfig
from abruzzi_jobs.distributed import Layout
from abruzzi_operators.launcher.environment import HEAP

MODEL = ModelConfig(
    vocab_size=512, hidden_size=192, num_layers=6, num_heads=4, q_lora_rank=96, kv_lora_rank=64, qk_nope_head_dim=32,
    qk_rope_head_dim=16, v_head_dim=32, intermediate_size=384, moe_intermediate_size=96, num_experts=8,
    num_experts_per_token=2, max_position=256,
)  # fmt: skip
"""Large enough that matrix products take much of a step, small enough that a step of it takes half a second on a core."""
SEQUENCES = 16
LENGTH = 256
"""A micro-batch is of whole sequences, in the paper of 4096 tokens. Of short ones its matrix products are so thin that what is measured is that."""


def setting(*, threads: int) -> dict[str, Any]:
    """Of a bench's result: what all of them step through, and where."""
    return {
        "model": MODEL.model_dump(exclude={"preset"}),
        "sequences": SEQUENCES,
        "sequence_length": LENGTH,
        "machine": machine(threads=threads),
    }


def named(layout: Layout | None) -> str:
    if layout is None:
        return "one process"
    return f"PP {layout.pp} x {layout.vpp}, EP {layout.ep}, DP {layout.dp}"


def parallel_of(layout: Layout) -> ParallelConfig:
    return ParallelConfig(pp=layout.pp, vpp=layout.vpp, ep=layout.ep, dp=layout.dp)


@dataclass(frozen=True)
class Candidate:
    layout: Layout | None
    """None: the plain trainer."""
    micro_sequences: int

    @property
    def name(self) -> str:
        return f"{named(self.layout)}, {self.micro_sequences} a micro-batch"


class Processes:
    """As many as `candidates` need, which all have as many ranks: each has a trainer for each of them. `tell` goes to all, and waits for all of their
    answers. Who has nothing to answer stands still: gloo looks around a hundred times a second for each of a rank's groups."""

    def __init__(self, candidates: Sequence[Candidate], *, threads: int = 1, buckets: bool = True) -> None:
        """`buckets` False: each piece that ranks reduce or broadcast is a message of its own, and all are under way at once."""
        worlds = {1 if c.layout is None else c.layout.world_size for c in candidates}
        (self.world,) = worlds
        self.candidates = list(candidates)
        spec = {
            "candidates": [
                {"name": c.name, "layout": None if c.layout is None else asdict(c.layout), "micro_sequences": c.micro_sequences}
                for c in candidates
            ],
            "model": MODEL.model_dump(exclude={"preset"}), "sequences": SEQUENCES, "length": LENGTH, "threads": threads,
            "buckets": buckets,
        }  # fmt: skip
        context, port = _context(), str(_free_port())
        self._processes, self._pipes = [], []
        for rank in range(self.world):
            here, there = context.Pipe()
            group = {"RANK": str(rank), "WORLD_SIZE": str(self.world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            process = context.Process(target=parallel_worker.work, args=(spec, group, there), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._pipes.append(here)
        atexit.register(self._end)  # who stands still does not notice that nobody is there any more

    def tell(self, command: str, *given: Any, only: int | None = None) -> list[Any]:
        """`only`: that many of the processes, from the first on."""
        for process, pipe in zip(self._processes[:only], self._pipes, strict=False):
            os.kill(process.pid, signal.SIGCONT)
            pipe.send((command, given))
        answers = [self._answer(rank) for rank in range(len(self._processes[:only]))]
        for process in self._processes[:only]:
            os.kill(process.pid, signal.SIGSTOP)
        return answers

    def step(self, candidate: Candidate) -> float:
        """Seconds from the first rank's beginning to the last one's end."""
        found = self.tell("step", candidate.name)
        return max(f["end"] for f in found) - min(f["start"] for f in found)

    def close(self) -> None:
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            os.kill(process.pid, signal.SIGCONT)
            pipe.close()
        for process in self._processes:
            process.join(timeout=60)

    def _end(self) -> None:
        for process in self._processes:
            process.kill()

    def _answer(self, rank: int) -> Any:
        try:
            return self._pipes[rank].recv()
        except EOFError:
            process = self._processes[rank]
            process.join()
            raise RuntimeError(f"a rank of {self.world} ended with {process.exitcode}") from None


def _context() -> Any:
    """Of processes that are forked where torch is imported already: they share what that takes, and begin at once."""
    for name, value in HEAP.items():
        os.environ.setdefault(name, value)
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parent)}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([parallel_worker.__name__])
    return context


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
