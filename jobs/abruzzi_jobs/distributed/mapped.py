"""Memory that other processes of this node map: what one of them has, none needs to send.

It is anonymous (memfd): it has no name that a crash could leave behind, and no limit of /dev/shm. Others open it by /proc/PID/fd, so they must be of the same
PID namespace and user.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

IS_POSSIBLE = hasattr(os, "memfd_create")
"""Linux."""


@dataclass(frozen=True, slots=True)
class Handle:
    """What another process needs to map it. `inode` and `device` tell that it has the same file."""

    number: int
    pid: int
    descriptor: int
    size_bytes: int
    inode: int
    device: int

    @classmethod
    def of(cls, descriptor: int, *, number: int = 0) -> Self:
        """Of a file that this process has open, and keeps open until it has been mapped."""
        told = os.fstat(descriptor)
        return cls(number, os.getpid(), descriptor, told.st_size, told.st_ino, told.st_dev)

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def open_elsewhere(handle: Handle) -> Tensor | None:
    """Another process's memory, uint8 [bytes]; None where it cannot be reached from here."""
    try:
        descriptor = os.open(f"/proc/{handle.pid}/fd/{handle.descriptor}", os.O_RDWR)
    except OSError:
        return None
    try:
        told = os.fstat(descriptor)
        if (told.st_ino, told.st_dev) != (handle.inode, handle.device):
            return None  # the same numbers in another PID namespace
        memory = mmap.mmap(descriptor, handle.size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    finally:
        os.close(descriptor)
    return torch.frombuffer(memory, dtype=torch.uint8)


def processes_here() -> str:
    """The same for all processes whose numbers mean the same: of one start of one machine, and one PID namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"process {os.getpid()}"  # nobody else's
