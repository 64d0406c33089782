"""The timeline of a step, from what the runtime of every rank notes anyway.

Shapes: P pipeline ranks, S spans of each: forward and both halves of backward of every micro-batch in every chunk, so as many on all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from abruzzi.contracts.timeline import Timeline
from abruzzi_jobs.distributed import Mesh
from abruzzi_jobs.distributed.pipeline import Span

_COMPUTES = ("F", "I", "W")


def gather(spans: Sequence[Span], mesh: Mesh, nodes: Sequence[str], *, step: int, step_seconds: float) -> Timeline:
    """Of the pipeline of the first data rank. All ranks call it with what their last run of an action table noted; `nodes`: of every rank.

    Ranks of one node have one clock; those of another one are set by the moment at which all leave a barrier, and are as far off as they leave it
    apart: well below a millisecond on a quick network.
    """
    ranks, device = mesh.ranks, mesh.ranks.device
    mine = [span for span in spans if span.action.op in _COMPUTES]
    clocks_R = torch.zeros(ranks.world_size, dtype=torch.float64, device=device)
    ranks.barrier()
    clocks_R[ranks.rank] = time.perf_counter()
    ranks.sum_(clocks_R)
    table_PS5 = torch.zeros(mesh.layout.pp, len(mine), 5, dtype=torch.float64, device=device)
    if mesh.data_rank == 0:
        rows = [(_COMPUTES.index(s.action.op), s.action.stage, s.action.microbatch, s.start, s.end) for s in mine]
        table_PS5[mesh.pp_rank] = torch.tensor(rows, dtype=torch.float64, device=device)
    ranks.sum_(table_PS5)
    clocks = clocks_R.tolist()
    firsts = [pp_rank * mesh.layout.dp for pp_rank in range(mesh.layout.pp)]
    ahead = [0.0 if nodes[rank] == nodes[0] else clocks[rank] - clocks[0] for rank in firsts]
    rows_of = [
        [(_COMPUTES[int(op)], int(stage), int(m), start - off, end - off) for op, stage, m, start, end in rows_S5]
        for off, rows_S5 in zip(ahead, table_PS5.tolist(), strict=True)
    ]
    began = min(start for rows in rows_of for *_, start, _ in rows)
    return Timeline(
        step=step,
        step_seconds=step_seconds,
        ranks=[[(op, stage, m, start - began, end - began) for op, stage, m, start, end in rows] for rows in rows_of],
    )
