"""The process group of a stage, from the environment that the launcher sets; everything works with one process and no group."""

from __future__ import annotations

import datetime
import os
import socket
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among the data-parallel ranks."""

    rank: int
    world_size: int
    device: torch.device

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add over ranks, in place: expert counts, target counts, losses."""
        return self._all_reduce_(tensor, dist.ReduceOp.SUM)

    def max_(self, tensor: Tensor) -> Tensor:
        """Maximum over ranks, in place: attention logits."""
        return self._all_reduce_(tensor, dist.ReduceOp.MAX)

    def texts(self, mine: str, *, room: int) -> list[str]:
        """Every rank's, in order, of at most `room` bytes; all ranks must call it. Raises ValueError for a longer one."""
        if self.world_size == 1:
            return [mine]
        content = mine.encode()
        if len(content) > room:
            raise ValueError(f"a rank's text takes {len(content)} bytes, there is room for {room}")
        table = torch.zeros(self.world_size, room, dtype=torch.uint8)
        table[self.rank, : len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        table = self.sum_(table.to(self.device)).cpu()
        return [bytes(row.tolist()).rstrip(b"\0").decode() for row in table]

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def _all_reduce_(self, tensor: Tensor, op: dist.ReduceOp.RedOpType) -> Tensor:
        if self.world_size > 1:
            dist.all_reduce(tensor, op=op)
        return tensor


def start_ranks(*, timeout_s: float = 600.0) -> Ranks:
    """Join the group that RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT describe: NCCL with CUDA, gloo without."""
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group(
            backend="nccl" if device.type == "cuda" else "gloo",
            rank=rank,
            world_size=world_size,
            timeout=datetime.timedelta(seconds=timeout_s),
        )
    return Ranks(rank=rank, world_size=world_size, device=device)


def node_name() -> str:
    """Of this process: the cluster's name for the machine, or the machine's own."""
    return os.environ.get("NODE_NAME") or socket.gethostname()


def lone_rank() -> Ranks:
    """A process that is no rank of its stage, whatever its environment says."""
    return Ranks(rank=0, world_size=1, device=_device(0))


def _device(number: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def stop_ranks() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
