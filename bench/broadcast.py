"""New weights from a trainer's process to an engine's: our transports beside a memory copy, torch's gloo broadcast, and Ray's object store.

    .venv/bin/python bench/broadcast.py --out bench/results/broadcast.json

Every candidate ends with the bytes in the receiver's parameters; ours also compares checksums and changes the version in all members. Candidates take
turns in one run, all of them warm. Rates are size ÷ seconds as the receiver's caller sees them (start to all parameters new).

Ours by shared memory, in three ways: `in place`, the trainer's parameters lie where the engine can read them (`share_memory(model)`); `a copy`, the
trainer copies them there first, and goes on; `ring`, neither, through buffers. `registering` means that the checksums at the sender (and the copy) are in
the time; otherwise they were made before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from interleaved import interleaved_seconds, machine, report, summary
from torch import Tensor

from abruzzi_jobs.rl.weights.collective import Collective
from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.rl.weights.segment import room_for
from abruzzi_jobs.rl.weights.shared_memory import SharedMemory
from abruzzi_jobs.rl.weights.worker import BUCKET_BYTES, CheckpointWorker

MEBI = 1 << 20
SECONDS = 600.0
IN_PLACE = "shared memory, in place"
IN_PLACE_REGISTERING = "shared memory, in place, registering"
A_COPY_REGISTERING = "shared memory, a copy, registering"
RING = "shared memory, ring, buckets of "
"""Candidates."""
MOVED = {
    "memcpy": "1 read + 1 write of each byte",
    IN_PLACE: "1 copy (read, write) + 1 read for the receiver's checksum, beside the copy; registering: + 1 read for the sender's",
    A_COPY_REGISTERING: "2 copies + 1 read for the receiver's checksum; the sender's is taken from the cache while it copies",
    RING: "2 copies + 1 read for the receiver's checksum; registering: + 1 read for the sender's",
}


class Parameters:
    """An engine's two sets of parameters: one that is served, and the one to come, filled in place."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.version = 0
        self.served = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        self._next = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

    def begin_update(self, version: int) -> None: ...

    def load_bucket(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in tensors:
            self._next[name].copy_(tensor)

    def load_piece(self, name: str, start: int, flat_N: Tensor) -> None:
        self._next[name].view(-1)[start : start + len(flat_N)].copy_(flat_N)

    def finish_update(self, version: int) -> None:
        self.served, self._next, self.version = self._next, self.served, version

    def abandon_update(self) -> None: ...


def tensors_of(size_bytes: int, tensor_bytes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = max(1, size_bytes // tensor_bytes)
    return {
        f"layers.{i}.weight": torch.randint(0, 256, (tensor_bytes,), dtype=torch.uint8, generator=generator)
        .view(torch.float32)
        .view(-1, 256)
        for i in range(count)
    }


def receiver(pipe: Any, folder: str, size: int, tensor_bytes: int, buckets: list[int]) -> None:
    """The engine's process: does what it is told, and answers when its parameters are new."""
    torch.set_num_threads(1)
    tensors = tensors_of(size, tensor_bytes)
    workers = _workers(1, folder, buckets, Parameters(tensors))
    processes = _gloo(1, folder)
    flat = torch.zeros(size, dtype=torch.uint8)
    while (word := pipe.recv()) is not None:
        if word == "gloo, one flat tensor":
            _broadcast(processes, flat)
        elif word == "gloo, a tensor at a time":
            for tensor in tensors.values():
                _broadcast(processes, tensor)
        else:
            workers[word].update()
        pipe.send("done")


def _workers(rank: int, folder: str, buckets: list[int], sink: Parameters | None) -> dict[str, CheckpointWorker]:
    found = {}
    transports: list[tuple[str, Any, int]] = [
        (name, SharedMemory(), BUCKET_BYTES) for name in (IN_PLACE, IN_PLACE_REGISTERING, A_COPY_REGISTERING)
    ]
    transports += [
        (f"{IN_PLACE}, buckets of {b / MEBI:g} MiB", SharedMemory(), b) for b in buckets if b != BUCKET_BYTES
    ]
    transports += [(f"{RING}{b / MEBI:g} MiB", SharedMemory(), b) for b in buckets]
    transports.append(("our gloo transport, buckets of 32 MiB", Collective("gloo"), 32 * MEBI))
    for name, transport, bucket in transports:
        group = Group.join(rank, [f"{folder}/{len(found)}-{r}" for r in (0, 1)], seconds=SECONDS)
        found[name] = CheckpointWorker(group, transport, sink=sink, bucket_bytes=bucket, deadline_seconds=SECONDS)
    return found


def _gloo(rank: int, folder: str) -> Any:
    store = dist.FileStore(f"{folder}/store", 2)
    return dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=SECONDS))


def _broadcast(processes: Any, tensor: Tensor) -> None:
    options = dist.BroadcastOptions()
    options.rootRank = options.rootTensor = 0
    processes.broadcast([tensor], options).wait()


def with_ray(size: int, tensors: dict[str, Tensor], ending: ExitStack) -> Callable[[], None]:
    """Put here + get there + copy into parameters there."""
    import ray

    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=3 * size + 256 * MEBI, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    ending.callback(ray.shutdown)

    class Receiver:
        def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
            torch.set_num_threads(1)
            self.parameters = {name: torch.zeros(shape) for name, shape in shapes.items()}

        def load(self, reference: list[Any]) -> None:
            arrays = ray.get(reference[0])
            for name, array in arrays.items():
                self.parameters[name].copy_(torch.from_numpy(array))

    remote: Any = ray.remote(num_cpus=0)(Receiver)
    actor = remote.remote({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}

    def run() -> None:
        reference = ray.put(arrays)
        ray.get(actor.load.remote([reference]))
        del reference

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--tensor-mib", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--buckets-mib", type=float, nargs="*", default=[1, 2, 4, 8, 16, 32, 64, 256])
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size, tensor_bytes = arguments.size_mib * MEBI, int(arguments.tensor_mib * MEBI)
    buckets = [int(b * MEBI) for b in arguments.buckets_mib]
    if BUCKET_BYTES not in buckets:
        buckets.append(BUCKET_BYTES)  # of the ring
    tensors = tensors_of(size, tensor_bytes)
    folder = tempfile.mkdtemp(prefix="w-")
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=receiver, args=(there, folder, size, tensor_bytes, buckets), daemon=True
    )
    process.start()
    try:
        report(_measured(arguments, tensors, here, folder, size, buckets), out=arguments.out)
        here.send(None)
    finally:
        process.join(30)
        shutil.rmtree(folder, ignore_errors=True)


def _measured(
    arguments: argparse.Namespace, tensors: dict[str, Tensor], pipe: Any, folder: str, size: int, buckets: list[int]
) -> dict[str, Any]:
    workers = _workers(0, folder, buckets, None)
    processes = _gloo(0, folder)
    flat = torch.cat([tensor.view(-1).view(torch.uint8) for tensor in tensors.values()])
    target = torch.zeros_like(flat)
    version = 0
    broadcasts: dict[str, list[float]] = {}

    def update(name: str) -> None:
        nonlocal version
        version += 1
        pipe.send(name)
        if name == A_COPY_REGISTERING:
            workers[name].register(version, tensors)
        elif name == IN_PLACE_REGISTERING:
            workers[name].register(version, shared, copy=False)
        else:
            workers[name].registered.version = version  # the same tensors: registering is timed apart
        done = workers[name].update()
        broadcasts.setdefault(name, []).append(done.seconds["broadcast"])
        pipe.recv()

    def gloo(name: str, content: Iterable[Tensor]) -> None:
        pipe.send(name)
        for tensor in content:
            _broadcast(processes, tensor)
        pipe.recv()

    def two_threads() -> None:
        torch.set_num_threads(2)
        target.copy_(flat)
        torch.set_num_threads(1)

    shared = {}
    rooms = room_for([tensor.nbytes for tensor in tensors.values()])
    for (name, tensor), room in zip(tensors.items(), rooms, strict=True):
        shared[name] = room.view(tensor.dtype).view(tensor.shape).copy_(tensor)
    in_place, not_shared = Registered(1, shared, copy=False), Registered(1, tensors, copy=False)
    for name, worker in workers.items():
        worker.registered = in_place if name.startswith(IN_PLACE) else not_shared
    candidates: dict[str, Callable[[], Any]] = {
        "memcpy, 1 thread": lambda: target.copy_(flat),
        "memcpy, 2 threads": two_threads,
        **{name: lambda name=name: update(name) for name in workers},
        "gloo, one flat tensor": lambda: gloo("gloo, one flat tensor", [flat]),
        "gloo, a tensor at a time": lambda: gloo("gloo, a tensor at a time", tensors.values()),
    }
    load_before = os.getloadavg()
    with ExitStack() as ending:
        if not arguments.no_ray:
            candidates["ray put + get + copy"] = with_ray(size, tensors, ending)
        seconds = interleaved_seconds(candidates, rounds=arguments.rounds)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rates = {name: size / median / 1e9 for name, median in medians.items()}
    gloo_best = min(median for name, median in medians.items() if name.startswith("gloo"))
    ratios = {}
    for name in (IN_PLACE, IN_PLACE_REGISTERING, A_COPY_REGISTERING, f"{RING}{BUCKET_BYTES / MEBI:g} MiB"):
        ratios[name] = {
            "of memcpy, 1 thread": medians["memcpy, 1 thread"] / medians[name],
            "of memcpy, 2 threads": medians["memcpy, 2 threads"] / medians[name],
            "times gloo's best": gloo_best / medians[name],
        }
        if not arguments.no_ray:
            ratios[name]["times ray"] = medians["ray put + get + copy"] / medians[name]
    return {
        "bench": "broadcast",
        "machine": machine(threads=1) | {"load_average_before": list(load_before)},
        "size_bytes": size,
        "tensor_bytes": int(arguments.tensor_mib * MEBI),
        "bytes_moved": MOVED,
        "ratios": ratios,
        "gigabytes_per_second": rates,
        "broadcast_and_reload_s": {name: statistics.median(times[2:]) for name, times in broadcasts.items()},
        "seconds": {name: summary(times) for name, times in seconds.items()},
        "checkpoint-engine": "0.4.2 does not run without a GPU",
    }


if __name__ == "__main__":
    main()
