"""One step of one rank in a pipeline schedule."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Op(StrEnum):
    F = "F"
    """Forward of a micro-batch through a stage."""
    I = "I"
    """Gradient of the stage's input."""
    W = "W"
    """Gradients of the stage's weights."""
    SEND_F = "SEND_F"
    """The output of F, to the next stage. Sending does not block."""
    RECV_F = "RECV_F"
    """The input of F. Receiving is begun here, and waited for by F."""
    SEND_I = "SEND_I"
    """The output of I, to the stage before."""
    RECV_I = "RECV_I"
    ALL_TO_ALL_F = "ALL_TO_ALL_F"
    """What F sends to the ranks of the experts and takes back: F's result is there when it ends, the next compute may begin before."""
    ALL_TO_ALL_I = "ALL_TO_ALL_I"
    OFFLOAD = "OFFLOAD"
    """What F keeps for backward goes to the host's memory."""
    ONLOAD = "ONLOAD"
    """It comes back, for I and W."""

    @property
    def computes(self) -> bool:
        return self in (Op.F, Op.I, Op.W)


class Action(NamedTuple):
    op: Op
    stage: int
    """Of all stages in order, the chunks of one rank counting each: rank r of P has stages r, r + P, r + 2P, …"""
    microbatch: int

    def __str__(self) -> str:
        """As torch.distributed.pipelining writes it: `2F3`, `2SEND_F3`."""
        return f"{self.stage}{self.op}{self.microbatch}"
