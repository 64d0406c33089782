"""A rank of parallel_ranks.py: takes commands from a pipe, and answers each.

`step`: one training step of a candidate. `spans`: when its action table's actions were done in the last one.
All others are functions of plan_operations.py.
"""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from typing import Any

import plan_operations as operations
import torch

from abruzzi.contracts.training import ModelConfig as ContractModel
from abruzzi.contracts.training import ParallelConfig
from abruzzi.plan.layout import layer_ranges
from abruzzi_jobs.distributed import Layout, Mesh, Ranks, owned, start_ranks, stop_ranks
from abruzzi_jobs.memory import MemoryPolicy
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import Rows
from abruzzi_jobs.train.parallel import ParallelTrainer, build_parallel
from abruzzi_jobs.train.trainer import Trainer


class Worker:
    """A candidate's trainer on this rank, and its part of the batch, the same at every step."""

    def __init__(self, spec: dict[str, Any], given: dict[str, Any], ranks: Ranks) -> None:
        self.sequences, self.steps = spec["sequences"], 0
        model = ModelConfig.from_dict(spec["model"])
        rows, first = self.sequences, 0
        self.mesh: Mesh | None = None
        self.trainer: Trainer | ParallelTrainer
        micro, watch = given["micro_sequences"], DivergenceWatch()
        if given["layout"] is None:
            alone = KimiK2(model, seed=0)
            optimizer = build_optimizer(alone.named_parameters(), OptimizerConfig(), model=model)
            self.trainer = Trainer(alone, optimizer, ranks, micro_sequences=micro, watch=watch)
        else:
            layout = Layout(**given["layout"])
            self.mesh = Mesh(ranks, layout)
            ranges = layer_ranges(
                ContractModel.model_validate(spec["model"]), ParallelConfig(pp=layout.pp, vpp=layout.vpp)
            )
            whole = build_parallel(
                KimiK2, model, OptimizerConfig(), self.mesh, layers=ranges, memory=MemoryPolicy(), seed=0
            )
            self.trainer = ParallelTrainer(
                whole.chunks, whole.optimizer, self.mesh, dtype=torch.float32, micro_sequences=micro, watch=watch
            )
            rows = self.sequences // layout.dp
            first = self.mesh.data_rank * rows
        generator = torch.Generator().manual_seed(1)
        tokens_BL = torch.randint(0, model.vocab_size, (self.sequences, spec["length"] + 1), generator=generator)
        tokens_BL = tokens_BL[first : first + rows]
        self.rows = Rows(tokens_BL, torch.zeros_like(tokens_BL, dtype=torch.int32), target_bytes=tokens_BL.numel())

    def step(self) -> dict[str, float]:
        start = time.perf_counter()
        self.trainer.step(self.steps, self.rows, sequences=self.sequences, lr_scale=0.1)
        self.steps += 1
        return {"start": start, "end": time.perf_counter()}

    def spans(self) -> list[list[Any]]:
        assert isinstance(self.trainer, ParallelTrainer)
        return [[s.action.op, s.action.stage, s.action.microbatch, s.start, s.end] for s in self.trainer.spans()]


def work(spec: dict[str, Any], group: dict[str, str], pipe: Connection) -> None:
    """`group`: what start_ranks reads of the environment. Until the pipe is closed."""
    os.environ |= group
    torch.set_num_threads(spec["threads"])
    if not spec["buckets"]:
        owned.BUCKET_BYTES, owned.UNDER_WAY = 0, 10**6
    ranks = start_ranks(timeout_s=1800)
    workers = {given["name"]: Worker(spec, given, ranks) for given in spec["candidates"]}
    model = ModelConfig.from_dict(spec["model"])
    while True:
        try:
            command, words = pipe.recv()
        except EOFError:
            break
        if command == "step":
            answer: Any = workers[words[0]].step()
        elif command == "spans":
            answer = workers[words[0]].spans()
        else:
            answer = getattr(operations, command)(model, ranks, *words)
        pipe.send(answer)
    stop_ranks()
