"""An actor's part in weight updates: in one group after the other, as members die and are replaced; what it has registered outlives groups."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence

from torch import Tensor

from abruzzi_jobs.rl.weights.collective import Collective
from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.mesh import address_of, listen
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.rl.weights.reload import Sink
from abruzzi_jobs.rl.weights.shared_memory import SharedMemory
from abruzzi_jobs.rl.weights.startup import File, start_from
from abruzzi_jobs.rl.weights.transport import Transport
from abruzzi_jobs.rl.weights.worker import CheckpointWorker, UpdateReport

MEET_SECONDS = 60.0
"""That members wait for each other."""


class Member:
    """Blocking. `sink`: the engine beside it, None in a trainer."""

    def __init__(self, sink: Sink | None) -> None:
        self._sink = sink
        self._listener: socket.socket | None = None
        self._folder = ""
        self._group: Group | None = None
        self._transport: Transport | None = None
        self._worker: CheckpointWorker | None = None
        self._registered: Registered | None = None

    def meet(self, host: str | None) -> str:
        """Where the others reach this one, until it joins. `host` None: all are on this machine."""
        self.leave()
        if host is None:
            self._folder = tempfile.mkdtemp(prefix="abruzzi-w-")
        self._listener = listen(f"{self._folder}/0" if host is None else f"{host}:0")
        return address_of(self._listener)

    def join(self, rank: int, addresses: Sequence[str], token: str) -> None:
        """All members do. Raises TimeoutError that names who has not come."""
        assert self._listener is not None
        listener, self._listener = self._listener, None
        group = Group.join(rank, addresses, token=token, seconds=MEET_SECONDS, listener=listener)
        first = addresses[0]
        transport = SharedMemory() if "/" in first else Collective("gloo", host=first.rsplit(":", 1)[0])
        self._group, self._transport = group, transport

    def start_from(self, files: Sequence[File], sink: Sink, version: int) -> UpdateReport:
        """All members begin with these weights, of which each reads a part."""
        group, transport = self._joined()
        try:
            return start_from(group, transport, files, sink, version=version)
        finally:
            self.leave()

    def register(self, version: int, tensors: Mapping[str, Tensor], *, copy: bool) -> Registered:
        self._registered = Registered(version, tensors, copy=copy)
        if self._worker is not None:
            self._worker.registered = self._registered
        return self._registered

    def update(self) -> UpdateReport:
        """As CheckpointWorker.update."""
        if self._worker is None:
            group, transport = self._joined()
            self._worker = CheckpointWorker(group, transport, sink=self._sink)
            if self._registered is not None:
                self._worker.registered = self._registered
        return self._worker.update()

    def registered(self) -> Registered:
        """Raises ValueError where there is nothing to give."""
        if self._registered is None:
            raise ValueError("nothing is registered here")
        return self._registered

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._group is not None:
            self._group.close()
        if self._listener is not None:
            self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            if self._folder:
                shutil.rmtree(self._folder)
        self._folder = ""
        self._group = self._transport = self._worker = self._listener = None

    def _joined(self) -> tuple[Group, Transport]:
        if self._group is None or self._transport is None:
            raise ValueError("this member has joined no group")
        return self._group, self._transport
