"""The whole of what ranks have parts of, at the first rank and back again: what a checkpoint holds does not depend on the layout.

Tensors have their logical names and whole shapes; a rank's part is some rows of the first dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from abruzzi_jobs.distributed.mesh import Mesh
from abruzzi_jobs.distributed.ranks import Ranks
from abruzzi_jobs.distributed.stages import named_parameters
from abruzzi_jobs.distributed.zero1 import ShardedMuonClip
from abruzzi_jobs.models import Decoder, DecoderConfig, YarnConfig


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a whole tensor, from `first` on."""

    name: str
    first: int
    tensor: Tensor


class WholeModel:
    """The chunks of all ranks as one state; `state_dict` is a collective."""

    def __init__(self, kind: type[Decoder], chunks: Mapping[int, Decoder], optimizer: ShardedMuonClip) -> None:
        self.chunks, self.optimizer = dict(chunks), optimizer
        self.config: DecoderConfig = optimizer.model
        self._names = set(kind(self.config, device="meta").state_dict())

    def set_yarn(self, yarn: YarnConfig | None) -> None:
        """As `Decoder.set_yarn`, on all chunks of this rank."""
        self.config = replace(self.config, yarn=yarn)
        for chunk in self.chunks.values():
            chunk.set_yarn(yarn)

    def state_dict(self) -> dict[str, Tensor]:
        """In main memory at the first rank; empty elsewhere."""
        mesh = self.optimizer.mesh
        parameters = named_parameters(self.chunks)
        parts = [
            Part(piece.name, self.optimizer.first_row(piece), parameters[piece.name].data[piece.first : piece.last])
            for piece in self.optimizer.own_pieces
        ]
        if mesh.data_rank == 0:
            parts += [Part(name, 0, buffer) for chunk in self.chunks.values() for name, buffer in chunk.named_buffers()]
        return gather_parts(parts, mesh.ranks)

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor], *, strict: bool = True) -> tuple[list[str], list[str]]:
        """Takes this rank's part of whole tensors; (missing, unknown) names, for which it raises RuntimeError when `strict`."""
        missing, unknown = sorted(self._names - set(tensors)), sorted(set(tensors) - self._names)
        if strict and (missing or unknown):
            raise RuntimeError(f"missing {missing[:3]}, unknown {unknown[:3]}")
        mesh = self.optimizer.mesh
        for chunk in self.chunks.values():
            for name, own in chunk.state_dict().items():
                if name in tensors:
                    own.copy_(rows_of(tensors[name], own, mesh, name))
        self.optimizer.own.take_masters()
        return missing, unknown


class WholeOptimizer:
    """The states of all owners as one; `state_dict` is a collective. The same names as MuonClip's."""

    def __init__(self, optimizer: ShardedMuonClip) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Tensor]:
        """In main memory at the first rank; empty elsewhere."""
        optimizer = self.optimizer
        firsts = {piece.name: optimizer.first_row(piece) for piece in optimizer.own_pieces}
        is_first = optimizer.mesh.ranks.rank == 0
        parts = [
            Part(key, 0 if key == "step" else firsts[key.partition(".")[2]], tensor)
            for key, tensor in optimizer.own.state_dict().items()
            if key != "step" or is_first
        ]
        return gather_parts(parts, optimizer.mesh.ranks)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes what this rank owns; then all have the new parameters. Raises ValueError where something is missing."""
        optimizer = self.optimizer
        firsts = {piece.name: optimizer.first_row(piece) for piece in optimizer.own_pieces}
        own = {}
        for key, tensor in optimizer.own.state_dict().items():
            if key not in state:
                raise ValueError(
                    f"optimizer state: missing {key}; it was saved by another model, optimizer kind or dtype"
                )
            first = firsts.get(key.partition(".")[2], 0)
            own[key] = state[key] if key == "step" else state[key][first : first + len(tensor)]
        optimizer.own.load_state_dict(own)
        optimizer.share()


def gather_parts(parts: Sequence[Part], ranks: Ranks) -> dict[str, Tensor]:
    """Whole tensors at the first rank, in its main memory; empty elsewhere. All ranks call it."""
    mine = [(part.name, part.first, tuple(part.tensor.shape), part.tensor.dtype) for part in parts]
    all_of: list[list[tuple[str, int, tuple[int, ...], torch.dtype]]] = [[] for _ in range(ranks.world_size)]
    dist.gather_object(mine, all_of if ranks.rank == 0 else None, dst=0)
    if ranks.rank > 0:
        for part in parts:
            dist.send(part.tensor.detach().contiguous(), 0)
        return {}
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for part in parts:
        found.setdefault(part.name, []).append((part.first, part.tensor.detach().to("cpu", copy=True)))
    for rank in range(1, ranks.world_size):
        for name, first, shape, dtype in all_of[rank]:
            buffer = torch.empty(shape, dtype=dtype, device=ranks.device)
            dist.recv(buffer, rank)
            found.setdefault(name, []).append((first, buffer.cpu()))
    return {name: _joined(rows) for name, rows in sorted(found.items())}


def rows_of(whole: Tensor, own: Tensor, mesh: Mesh, name: str) -> Tensor:
    """This rank's experts of a whole tensor; all of anything else. Raises ValueError where it does not fit."""
    if own.ndim == 3 and whole.shape[0] == own.shape[0] * mesh.layout.ep:
        whole = whole[mesh.ep_rank * own.shape[0] :][: own.shape[0]]
    if whole.shape != own.shape:
        raise ValueError(f"{name}: shape {tuple(whole.shape)}, expected {tuple(own.shape)}")
    return whole


def _joined(rows: list[tuple[int, Tensor]]) -> Tensor:
    if len(rows) == 1:
        return rows[0][1]
    return torch.cat([tensor for _, tensor in sorted(rows, key=lambda row: row[0])])
