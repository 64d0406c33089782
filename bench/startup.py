"""Workers begin from one checkpoint: each byte read by one of them and broadcast, beside every worker reading the file for itself.

    .venv/bin/python bench/startup.py --out bench/results/startup.json

Bytes are counted twice: by the streams themselves, and by the kernel (`rchar`, all reads of the process; `read_bytes`, what came from the disk). The
page cache is dropped before every cold round (of this file only). Both end with all tensors in every worker; ours has verified the file's digest and
every tensor's checksum besides.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from interleaved import machine, report
from safetensors.torch import load_file, save_file

from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.shared_memory import SharedMemory
from abruzzi_jobs.rl.weights.startup import File, Weights, files_of_folder, start_from

MEBI = 1 << 20
SECONDS = 600.0


class Counted:
    """A stream whose bytes are counted as they are read."""

    def __init__(self, stream: BinaryIO, read: list[int]) -> None:
        self._stream, self._read = stream, read

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def readinto(self, buffer: Any) -> int:
        count = cast(Any, self._stream).readinto(buffer)
        self._read.append(count)
        return count


def counted(plain: File, read: list[int], digest: str) -> File:
    return File(plain.name, lambda start: cast(BinaryIO, Counted(plain.open_at(start), read)), digest)


def worker(pipe: Any, rank: int, folder: Path, digest: str) -> None:
    torch.set_num_threads(1)
    (plain,) = files_of_folder(folder)
    while (word := pipe.recv()) is not None:
        how, addresses = word
        read: list[int] = []
        before, began = _kernel_counts(), time.perf_counter()
        if how == "read once":
            file = counted(plain, read, digest)
            sink = Weights()
            start_from(
                Group.join(rank, addresses, seconds=SECONDS), SharedMemory(), [file], sink, version=1,
                deadline_seconds=SECONDS,
            )  # fmt: skip
            tensors = sink.tensors
        else:
            # As a rival without our code: whole files, copied out of the mapping so that every byte has been read.
            tensors = {name: tensor.clone() for name, tensor in load_file(folder / plain.name).items()}
        seconds = time.perf_counter() - began
        after = _kernel_counts()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        pipe.send((seconds, sum(read), {key: after[key] - before[key] for key in after}, size))
        del tensors


def _kernel_counts() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    counts = {key: int(value) for key, value in (line.split(": ") for line in lines)}
    return {key: counts[key] for key in ("rchar", "read_bytes")}


def drop_cache(path: Path) -> None:
    """Of one file; what is dirty is written first."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def checkpoint(folder: Path, size: int) -> Path:
    generator = torch.Generator().manual_seed(0)
    count = max(1, size // (4 * MEBI))
    tensors = {f"layers.{i}.weight": torch.randn(1024, 1024, generator=generator) for i in range(count)}
    path = folder / "model.safetensors"
    save_file(tensors, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="w-", dir=os.environ.get("TMPDIR")))
    try:
        report(_measured(arguments, folder), out=arguments.out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measured(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    path = checkpoint(folder, arguments.size_mib * MEBI)
    size = path.stat().st_size
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for rank in range(arguments.workers):
        here, there = context.Pipe()
        process = context.Process(target=worker, args=(there, rank, folder, digest), daemon=True)
        process.start()
        pipes.append(here)
        processes.append(process)
    rounds: dict[str, list[dict[str, Any]]] = {}
    load_before = os.getloadavg()
    for number in range(arguments.rounds + 1):
        hows = [("read once", True), ("every worker reads", True), ("read once", False), ("every worker reads", False)]
        for turn, (how, cold) in enumerate(hows if number % 2 == 0 else reversed(hows)):
            if cold:
                drop_cache(path)
            addresses = [f"{folder}/{number}-{turn}-{rank}" for rank in range(arguments.workers)]
            for pipe in pipes:
                pipe.send((how, addresses))
            answers = [pipe.recv() for pipe in pipes]
            if number:  # the first round is to warm up
                found = {
                    "seconds": max(seconds for seconds, *_ in answers),
                    "counted_ratio": sum(read for _, read, *_ in answers) / size,
                    "rchar_ratio": sum(kernel["rchar"] for *_, kernel, _ in answers) / size,
                    "disk_ratio": sum(kernel["read_bytes"] for *_, kernel, _ in answers) / size,
                }
                rounds.setdefault(f"{how}, {'cold' if cold else 'warm'}", []).append(found)
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join(30)
    medians = {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]} for name, found in rounds.items()
    }
    return {
        "bench": "startup",
        "machine": machine(threads=1) | {"load_average_before": list(load_before)},
        "workers": arguments.workers,
        "checkpoint_bytes": size,
        "bytes_read_of_size": medians["read once, cold"]["counted_ratio"],
        "medians": medians,
        "rounds": rounds,
        "note": "every worker reads: through a mapping, which rchar does not count",
    }


if __name__ == "__main__":
    main()
