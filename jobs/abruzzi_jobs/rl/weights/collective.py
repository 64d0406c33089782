"""Transports by broadcasts of torch.distributed: gloo between processes of any machines, NCCL between GPUs.

The process group is this transport's own, built over a store of the group's rank 0; the trainer's default group is not touched. Every broadcast has
the group's deadline, and a watchdog may abort it, so no rank hangs for ever (reference/rl.md 6, pain 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.plan import Bucket
from abruzzi_jobs.rl.weights.registered import slice_of
from abruzzi_jobs.rl.weights.schedule import EXCHANGE_BUFFERS, Pipeline, choose
from abruzzi_jobs.rl.weights.transport import Traffic

_POLL_SECONDS = 2e-4


class Collective:
    """Two exchange buffers a member, and where the device is a GPU one more that the host copies into."""

    def __init__(
        self, backend: Literal["gloo", "nccl"], *, host: str = "127.0.0.1", engines_share_bus: bool = True
    ) -> None:
        """`host`: where rank 0 is reached by the others. `engines_share_bus`: whether copies from the host and broadcasts compete (PCIe), so that
        two stages are quicker than three (paper appendix G)."""
        self.name: str = backend
        self._host = host
        self._on_gpu = backend == "nccl"
        self.pipeline: Pipeline = choose(device_is_host=not self._on_gpu, engines_share_bus=engines_share_bus)
        self._opened = 0
        self._processes: Any = None
        self._work: Any = None

    def open(self, group: Group, bucket_bytes: int) -> None:
        self.close()
        self._group = group
        self._opened += 1
        device = torch.device("cuda", torch.cuda.current_device()) if self._on_gpu else torch.device("cpu")
        self._exchange = [torch.empty(bucket_bytes, dtype=torch.uint8, device=device) for _ in range(EXCHANGE_BUFFERS)]
        self._copied_in = torch.empty(bucket_bytes, dtype=torch.uint8, device=device) if self._on_gpu else None
        self._stream = torch.cuda.Stream() if self._on_gpu else None
        self._processes = self._meet(timedelta(seconds=max(1.0, group.seconds_left)))

    def start(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def copy_in(self, buckets: Sequence[Bucket]) -> None:
        own = [bucket for bucket in buckets if bucket.owner == self._group.rank]
        if self._copied_in is None or not own:
            return
        assert self._stream is not None
        # The broadcast that has just begun took its bucket out of the buffer on the current stream.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._traffic.source.pack(self._traffic.plan, own[0], self._copied_in)

    def begin(self, bucket: Bucket) -> None:
        buffer = self._buffer(bucket)
        if bucket.owner == self._group.rank:
            self._hand_over(bucket, buffer)
        options = dist.BroadcastOptions()
        options.rootRank = bucket.owner
        options.rootTensor = 0
        options.timeout = timedelta(seconds=max(0.001, self._group.seconds_left))
        self._work = self._processes.broadcast([buffer], options)

    def end(self, bucket: Bucket) -> list[Tensor]:
        # Not `wait`, which would sit out the deadline when another member has died: one that is gone or has failed ends this at once.
        while not self._work.is_completed():
            self._group.check(self._group.others)
            if self._group.seconds_left <= 0:
                raise TimeoutError("the broadcast has not ended within the deadline")
            self._group.listen(_POLL_SECONDS)
        self._work.wait()  # raises what it met
        buffer = self._buffer(bucket)
        return [slice_of(buffer, piece) for piece in bucket.pieces]

    def stays(self, bucket: Bucket) -> bool:
        return False

    def release(self, bucket: Bucket) -> None:
        """The same buffer is written two broadcasts later, in this member's own order."""

    def abort(self) -> None:
        if self._processes is not None:
            self._processes.abort()

    def close(self) -> None:
        if self._work is not None and not self._work.is_completed():
            self.abort()
        self._work = self._processes = None

    def _buffer(self, bucket: Bucket) -> Tensor:
        return self._exchange[bucket.index % EXCHANGE_BUFFERS][: bucket.nbytes]

    def _hand_over(self, bucket: Bucket, buffer_N: Tensor) -> None:
        if self._copied_in is None:
            self._traffic.source.pack(self._traffic.plan, bucket, buffer_N)
            return
        assert self._stream is not None
        torch.cuda.current_stream().wait_stream(self._stream)
        buffer_N.copy_(self._copied_in[: bucket.nbytes], non_blocking=True)

    def _meet(self, timeout: timedelta) -> Any:
        group = self._group
        if group.rank == 0:
            store = dist.TCPStore(self._host, 0, group.size, is_master=True, wait_for_workers=False, timeout=timeout)
            group.tell("store", self._opened, port=store.port)
        else:
            port = group.expect("store", self._opened, [0])[0]["port"]
            store = dist.TCPStore(
                self._host, port, group.size, is_master=False, wait_for_workers=False, timeout=timeout
            )
        if self._on_gpu:
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timeout
            return dist.ProcessGroupNCCL(store, group.rank, group.size, options)
        return dist.ProcessGroupGloo(store, group.rank, group.size, timeout)
