"""Groups of processes that update weights, for tests: members that may be killed at any bucket. Started from a server that has torch already."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from weights_tensors import InPieces as InPieces
from weights_tensors import Parameters as Parameters
from weights_tensors import sums as sums
from weights_tensors import weights as weights

from abruzzi_jobs.rl.weights import shared_memory
from abruzzi_jobs.rl.weights.collective import Collective
from abruzzi_jobs.rl.weights.group import Group, WeightUpdateFailed
from abruzzi_jobs.rl.weights.late import PullServer, pull
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.rl.weights.shared_memory import SharedMemory
from abruzzi_jobs.rl.weights.startup import File, Weights, files_of_folder, start_from
from abruzzi_jobs.rl.weights.transport import Transport
from abruzzi_jobs.rl.weights.worker import CheckpointWorker

SECONDS = 240.0
"""Any wait of a test; only a failure takes so long."""

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["abruzzi_jobs.rl.weights.late", "abruzzi_jobs.rl.weights.startup"])


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def meeting_place(size: int) -> Iterator[list[str]]:
    """Addresses of a group's members; short paths, as sockets need them."""
    folder = tempfile.mkdtemp(prefix="w-")
    try:
        yield [f"{folder}/{rank}" for rank in range(size)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def members(targets: list[Callable[..., Any]], *arguments: Any) -> Iterator[list[Any]]:
    """A process for each: `target(pipe, rank, addresses, *arguments)`; yields the pipes' other ends. All are ended afterwards."""
    with meeting_place(len(targets)) as addresses:
        pipes, processes = [], []
        for rank, target in enumerate(targets):
            here, there = PROCESSES.Pipe()
            process = PROCESSES.Process(target=_run, args=(target, there, rank, addresses, *arguments), daemon=True)
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        try:
            yield pipes
        finally:
            for process in processes:
                process.kill()
                process.join(SECONDS)


def heard(pipe: Any) -> Any:
    """What a member says next. Raises EOFError where it has died."""
    assert pipe.poll(SECONDS), "a member said nothing"
    return pipe.recv()


def _run(target: Callable[..., Any], *arguments: Any) -> None:
    torch.set_num_threads(1)
    target(*arguments)


def transport_of(name: str) -> Transport:
    """`in place`, `ring`: both through shared memory."""
    return Collective("gloo") if name == "gloo" else SharedMemory()


def trainer(pipe: Any, rank: int, addresses: list[str], transport: str, plan: dict[str, Any]) -> None:
    """Registers and updates, a version a word it hears. `kill` and `at`: which rank dies before it writes which bucket of version 2 (in place, where it
    writes none: while the others read); `flip`: a bit of version 2 changes after it was registered."""
    worker = _worker(rank, addresses, transport, plan, None)
    while (word := pipe.recv()) is not None:
        if isinstance(word, list):
            worker = _worker(rank, word, transport, plan, None)
            continue
        share = {name: t for i, (name, t) in enumerate(weights(word).items()) if i % plan["shares"] == rank}
        worker.register(
            word, share, copy=transport != "ring"
        )  # what lies in memory of its own only goes through the ring
        if word == 2 and plan.get("kill") == rank:
            dying = _DyingWhileOthersRead if transport == "in place" else _Dying
            worker.registered = dying(worker.registered, plan["at"])
        if word == 2 and plan.get("flip"):
            worker.registered.flat["embed.weight"][5000] ^= 1
        pipe.send(_updated(worker))


def replica(pipe: Any, rank: int, addresses: list[str], transport: str, plan: dict[str, Any]) -> None:
    """An engine that updates at every word; `kill` or `hang`, and `at`: which rank dies, or stands still, before it loads which bucket of version 2;
    `unreached`: which rank can map nobody's memory."""
    if plan.get("unreached") == rank:
        shared_memory.open_elsewhere = lambda handle: None
    sink = (InPieces if plan.get("pieces") else Parameters)(weights(0))
    worker = _worker(rank, addresses, transport, plan, sink)
    while (word := pipe.recv()) is not None:
        if isinstance(word, list):
            worker = _worker(rank, word, transport, plan, sink)
            continue
        if word == 2 and plan.get("kill") == rank:
            sink.at_load = lambda number: kill_self() if number == plan["at"] else None
        if word == 2 and plan.get("hang") == rank:
            sink.at_load = lambda number, worker=worker: _hang(worker) if number == plan["at"] else None
        pipe.send((*_updated(worker), sink.version, sink.sums()))


def _worker(
    rank: int, addresses: list[str], transport: str, plan: dict[str, Any], sink: Parameters | None
) -> CheckpointWorker:
    return CheckpointWorker(
        Group.join(rank, addresses, seconds=SECONDS),
        transport_of(transport),
        sink=sink,
        bucket_bytes=4096,
        deadline_seconds=plan["deadline"],
    )


def _hang(worker: CheckpointWorker) -> None:
    """The deadline passes while this member stands still."""
    worker.expire()
    threading.Event().wait(SECONDS)


def _updated(worker: CheckpointWorker) -> tuple[Any, ...]:
    """(report or None, what failed, seconds)."""
    began = time.monotonic()
    try:
        report = worker.update()
    except WeightUpdateFailed as error:
        return None, str(error), time.monotonic() - began
    return report, "", time.monotonic() - began


class _Dying(Registered):
    """Dies before it writes a bucket."""

    def __init__(self, other: Registered, at: int) -> None:
        vars(self).update(vars(other))
        self._left = at

    def pack(self, *arguments: Any) -> None:
        if not self._left:
            kill_self()
        self._left -= 1
        super().pack(*arguments)


class _DyingWhileOthersRead(_Dying):
    @property
    def sums(self) -> dict[str, str]:
        kill_self()
        return {}


def keeper(pipe: Any, rank: int, addresses: list[str], plan: dict[str, Any]) -> None:
    """A trainer that gives what it has registered to whoever joins late; `shares`: of so many trainers."""
    share = {name: t for i, (name, t) in enumerate(weights(3).items()) if i % plan["shares"] == rank}
    registered = Registered(3, share, copy=True)
    with PullServer(addresses[rank], lambda: registered, token="secret", deadline_seconds=SECONDS):
        pipe.send("listening")
        pipe.recv()


def newcomer(pipe: Any, rank: int, addresses: list[str], plan: dict[str, Any]) -> None:
    """A replica without weights."""
    sink = Parameters(weights(0))
    if plan.get("kill") == rank:
        sink.at_load = lambda number: kill_self() if number == plan["at"] else None
    pipe.recv()
    sources = addresses[: plan["shares"]]
    report = pull(sources, sink, token="secret", bucket_bytes=4096, deadline_seconds=SECONDS)
    pipe.send((report, sink.version, sink.sums()))


def starter(pipe: Any, rank: int, addresses: list[str], folder: Path, digests: dict[str, str]) -> None:
    """Begins from a checkpoint: (what failed, sums, bytes read by this member, by file)."""
    read: dict[str, int] = {}
    files = [counted(file, read, digests) for file in files_of_folder(folder)]
    sink = Weights()
    try:
        start_from(
            Group.join(rank, addresses, seconds=SECONDS), SharedMemory(), files, sink, version=1, bucket_bytes=4096,
            deadline_seconds=SECONDS,
        )  # fmt: skip
    except WeightUpdateFailed as error:
        pipe.send((str(error), sums(sink.tensors), read))
        return
    pipe.send(("", sums(sink.tensors), read))


def counted(file: File, read: dict[str, int], digests: dict[str, str]) -> File:
    """As `file`, with the digest that its name has, and its bytes counted as they are read."""

    class Counting:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            self._stream.close()

        def readinto(self, buffer: Any) -> int:
            count = self._stream.readinto(buffer)
            read[file.name] = read.get(file.name, 0) + count
            return count

    return File(file.name, lambda start: Counting(file.open_at(start)), digests.get(file.name))
