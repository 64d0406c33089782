"""Training steps over pipeline, expert and data-parallel ranks: the same losses and updates as trainer.py on one rank (tests/parity).

Shapes: Y layers, H heads, M expert layers, E experts, B rows of this rank's part of the batch, L sequence length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from abruzzi.contracts.training import ParallelConfig
from abruzzi.plan.pipeline import Action, forward_table, training_table
from abruzzi_jobs.distributed import Layout, Mesh
from abruzzi_jobs.distributed.pipeline import MicroBatch, PipelineRuntime, Span
from abruzzi_jobs.distributed.stages import build_stages, named_parameters
from abruzzi_jobs.distributed.whole import WholeModel
from abruzzi_jobs.distributed.zero1 import ShardedMuonClip
from abruzzi_jobs.memory import MemoryPolicy
from abruzzi_jobs.models import IGNORE, Decoder, DecoderConfig, ForwardOutput
from abruzzi_jobs.optim import OptimizerConfig
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import HeldOut, Rows
from abruzzi_jobs.train.replay import fingerprint, refuse_difference
from abruzzi_jobs.train.trainer import StepResult, bits_per_byte, micro_batches


def schedule_of(layout: Layout, microbatches: int, *, offload: bool = False) -> list[list[Action]]:
    """As it is planned: weight gradients run while the inputs' are under way; one more warm-up where experts are exchanged; what goes to the host
    comes back under the computes before its backward (paper section 2.4). Raises ValueError."""
    parallel = ParallelConfig(pp=layout.pp, vpp=layout.vpp, ep=layout.ep, dp=layout.dp)
    return training_table(parallel, microbatches, offload=offload)


def build_parallel(
    kind: type[Decoder],
    model: DecoderConfig,
    optimizer: OptimizerConfig,
    mesh: Mesh,
    *,
    layers: Sequence[range],
    memory: MemoryPolicy,
    seed: int | None,
) -> WholeModel:
    """A rank's chunks and its part of the optimizer; `layers` of every stage (abruzzi.plan.layout: `layer_ranges`). Raises ValueError where model
    and layout do not fit."""
    chunks = build_stages(kind, model, mesh, layers=layers, dtype=memory.compute_dtype, seed=seed)
    for chunk in chunks.values():
        chunk.activations.policy = memory
    mine = sorted(layer for stage in chunks for layer in layers[stage])
    sharded = ShardedMuonClip(named_parameters(chunks), optimizer, model=model, layers=mine, mesh=mesh)
    return WholeModel(kind, chunks, sharded)


class ParallelTrainer:
    """Every rank of the mesh calls each method together."""

    def __init__(
        self,
        chunks: Mapping[int, Decoder],
        optimizer: ShardedMuonClip,
        mesh: Mesh,
        *,
        dtype: torch.dtype,
        micro_sequences: int | None,
        watch: DivergenceWatch,
    ) -> None:
        """`micro_sequences`: rows of one forward pass on a rank; None: all of its share."""
        self.chunks, self.optimizer, self.mesh, self.watch = dict(chunks), optimizer, mesh, watch
        self._micro_sequences = micro_sequences
        self._offloads = mesh.layout.pp > 1 and any(c.activations.policy.offload_activations for c in chunks.values())
        """By the table; a rank that has all layers does as they run."""
        for chunk in chunks.values():
            chunk.activations.offloads_itself = not self._offloads
        self._runtime = PipelineRuntime(chunks, mesh, dtype=dtype)
        self._tables: dict[tuple[bool, int], list[Action]] = {}
        config = next(iter(chunks.values())).config
        self._num_layers, self._num_heads = config.num_layers, config.num_heads
        self._expert_layers = [layer for layer in range(config.num_layers) if config.is_moe(layer)]
        self._num_experts = getattr(config, "num_experts", 0)

    def step(
        self, step: int, rows: Rows, *, sequences: int, lr_scale: float, measure: bool = False, replay: bool = False,
        before_update: Callable[[], None] = lambda: None,
    ) -> StepResult:  # fmt: skip
        """One update from this data rank's rows of `sequences` in all. Raises AbruzziError `divergence` and, where it is to `replay` its gradients,
        `corruption`, both before the weights are touched, and what `before_update` raises, once the gradients are there. What a rank computes wrong,
        its neighbours in the pipeline differ by, too."""
        ranks = self.mesh.ranks
        global_targets = rows.global_targets
        if global_targets is None:
            global_targets = sequences * (rows.tokens_BL.shape[1] - 1)
        batches = self._batches(rows)
        seconds = self.mesh.own_work.read()
        first = None
        if replay:
            self._gradients(batches, sequences, global_targets)
            first = fingerprint(self.optimizer.own_gradients())
            self.optimizer.zero()
        self.mesh.own_work.begin()
        totals, max_logit_YH, counts_ME = self._gradients(batches, sequences, global_targets)
        if first is not None:
            refuse_difference(step, first, fingerprint(self.optimizer.own_gradients()))
        before_update()
        if self.mesh.pp_rank == self.mesh.layout.pp - 1:
            totals[2] = rows.target_bytes
        shared = torch.zeros(3 + ranks.world_size, dtype=torch.float64, device=ranks.device)
        shared[:3], shared[3 + ranks.rank] = totals, seconds
        loss_sum, aux_loss, target_bytes, *rank_seconds = ranks.sum_(shared).tolist()
        mean = loss_sum / global_targets
        norm = self.optimizer.reduce()
        self.watch.check(step, mean, norm)
        limit = self.optimizer.config.max_grad_norm
        scale = min(1.0, limit / (norm + 1e-6)) if limit is not None else 1.0
        self.optimizer.step(lr_scale, grad_scale=scale, measure=measure)
        ranks.max_(max_logit_YH)
        ranks.sum_(counts_ME)
        clip = self.optimizer.clip_qk(max_logit_YH)
        self.optimizer.share()
        if measure:
            self.optimizer.statistics()  # while all are here: whoever reports them is alone
        for stage, chunk in self.chunks.items():
            mine = [self._expert_layers.index(layer) for layer in self._layers(stage) if layer in self._expert_layers]
            chunk.update_router_bias(counts_ME[mine])
        return StepResult(
            loss=mean, bits_per_byte=bits_per_byte(loss_sum, target_bytes), aux_loss=aux_loss, grad_norm=norm,
            max_logit_YH=max_logit_YH, expert_counts_ME=counts_ME, clip=clip, rank_seconds=tuple(rank_seconds),
        )  # fmt: skip

    def _gradients(
        self, batches: Sequence[MicroBatch], sequences: int, global_targets: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Accumulated. Returns this rank's part of: (sum of losses, auxiliary loss, 0), largest logits [Y, H], experts' counts [M, E]."""
        device = self.mesh.ranks.device
        totals = torch.zeros(3, dtype=torch.float64, device=device)
        max_logit_YH = torch.full((self._num_layers, self._num_heads), -math.inf, device=device)
        counts_ME = torch.zeros(len(self._expert_layers), self._num_experts, dtype=torch.int64, device=device)

        def loss(stage: int, m: int, out: ForwardOutput) -> Tensor:
            share = len(batches[m].tokens_BL) / sequences
            totals[1] += out.aux_loss.detach().double() * share
            layers = self._layers(stage)
            max_logit_YH[layers] = torch.maximum(max_logit_YH[layers], out.max_logit_per_layer.detach())
            expert_layers = [self._expert_layers.index(layer) for layer in layers if layer in self._expert_layers]
            counts_ME[expert_layers] += out.expert_counts
            total = out.aux_loss * share
            if out.loss_sum is not None:
                totals[0] += out.loss_sum.detach().double()
                total = total + out.loss_sum / global_targets
            return total

        self._runtime.run(self._table(len(batches)), batches, loss, after_gradients=self.optimizer.accumulate)
        return totals, max_logit_YH, counts_ME

    def spans(self) -> list[Span]:
        """When this rank did what of the last step's action table."""
        return self._runtime.spans

    @torch.no_grad()
    def held_out_loss(self, held_out: HeldOut) -> tuple[float, float]:
        """(mean cross-entropy in nats a token, bits a byte) over the held-out rows of all data ranks."""
        ranks = self.mesh.ranks
        batches = self._batches(held_out.rows)
        # Where rows do not come out even, a rank looks at nothing in a row of its own: its neighbours exchange tokens with it.
        most = int(ranks.max_(torch.tensor(len(batches), device=ranks.device)))
        length = held_out.rows.tokens_BL.shape[1] - 1
        tokens_1L = torch.zeros(1, length, dtype=torch.int64, device=ranks.device)
        nothing = MicroBatch(tokens_1L, torch.full_like(tokens_1L, IGNORE), torch.zeros_like(tokens_1L))
        batches += [nothing] * (most - len(batches))
        totals = torch.zeros(2, dtype=torch.float64, device=ranks.device)
        if self.mesh.pp_rank == self.mesh.layout.pp - 1:
            totals[1] = held_out.rows.target_bytes

        def loss(stage: int, m: int, out: ForwardOutput) -> None:
            if out.loss_sum is not None:
                totals[0] += out.loss_sum.double()

        self._runtime.run(self._table(len(batches), backward=False), batches, loss)
        loss_sum, target_bytes = ranks.sum_(totals).tolist()
        return loss_sum / held_out.targets, bits_per_byte(loss_sum, target_bytes)

    def _layers(self, stage: int) -> list[int]:
        return [int(layer) for layer in self.chunks[stage].layers]

    def _batches(self, rows: Rows) -> list[MicroBatch]:
        size = self._micro_sequences or len(rows.tokens_BL)
        return [MicroBatch(*parts) for parts in micro_batches(rows, size, self.mesh.ranks.device)]

    def _table(self, microbatches: int, *, backward: bool = True) -> Sequence[Action]:
        key = (backward, microbatches)
        if key not in self._tables:
            layout = self.mesh.layout
            if backward:
                table = schedule_of(layout, microbatches, offload=self._offloads)
            else:
                table = forward_table(layout.pp, microbatches, chunks=layout.vpp)
            self._tables[key] = table[self.mesh.pp_rank]
        return self._tables[key]
