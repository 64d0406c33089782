"""Shards on the processes of one machine.

A worker that dies (out of memory, killed, a crash in native code) is replaced and its shard begun again; one that costs three
workers ends the work by name. A parent that dies leaves workers that end after their shard; the next one continues from the manifests.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.processing.executor import Tell, check_tasks
from abruzzi_jobs.data.processing.function import FunctionSpec
from abruzzi_jobs.data.processing.shard import ShardManifest, ShardTask, process_shard

DEATHS = 3
LOOK_SECONDS = 0.2


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: int | None = None


class LocalProcesses:
    """An Executor. With one worker the shards are done in this process."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"LocalProcesses: {workers} workers; at least one is needed")
        self._workers = workers

    def run(self, function: FunctionSpec, tasks: Sequence[ShardTask], out: Path, tell: Tell) -> list[ShardManifest]:
        sizes = check_tasks(tasks)
        if self._workers == 1 or len(tasks) == 1:
            return _run_here(function, tasks, sizes, out, tell)
        return _Pool(function, tasks, sizes, out, tell).run(min(self._workers, len(tasks)))


class _Pool:
    def __init__(
        self, function: FunctionSpec, tasks: Sequence[ShardTask], sizes: list[int], out: Path, tell: Tell
    ) -> None:
        self._function, self._tasks, self._sizes, self._out, self._tell = function, tasks, sizes, out, tell
        self._waiting = deque(range(len(tasks)))
        self._done: dict[int, ShardManifest] = {}
        self._deaths = [0] * len(tasks)
        self._running: list[_Worker] = []

    def run(self, workers: int) -> list[ShardManifest]:
        try:
            while len(self._done) < len(self._tasks):
                while len(self._running) < min(workers, len(self._tasks) - len(self._done)):
                    self._running.append(self._start())
                for worker in self._running:
                    self._give(worker)
                wait([w.pipe for w in self._running], timeout=LOOK_SECONDS)
                for worker in list(self._running):
                    self._look_at(worker)
                share = sum(self._sizes[i] for i in self._done)
                self._tell(share, sum(self._sizes), f"processing {len(self._done)} of {len(self._tasks)} shards")
        finally:
            for worker in self._running:
                worker.process.kill()
                worker.process.join()
                worker.pipe.close()
        return [self._done[i] for i in range(len(self._tasks))]

    def _start(self) -> _Worker:
        context = mp.get_context("spawn")  # threads of this process, such as a reporter's, do not live on in a worker
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, self._function, self._out), daemon=True)
        process.start()
        there.close()
        return _Worker(process=process, pipe=here)

    def _give(self, worker: _Worker) -> None:
        if worker.task is None and self._waiting:
            worker.task = self._waiting.popleft()
            try:
                worker.pipe.send((worker.task, self._tasks[worker.task]))
            except OSError:
                self._bury(worker)

    def _look_at(self, worker: _Worker) -> None:
        try:
            while worker in self._running and worker.pipe.poll():
                index, found = worker.pipe.recv()
                if isinstance(found, dict):
                    raise AbruzziError(**found)
                self._done[index] = found
                worker.task = None
        except (EOFError, OSError):
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        if worker not in self._running:
            return
        self._running.remove(worker)
        worker.pipe.close()
        worker.process.join()
        index, worker.task = worker.task, None
        if index is None:
            return
        self._deaths[index] += 1
        if self._deaths[index] >= DEATHS:
            raise AbruzziError(
                "worker_died",
                f"{self._tasks[index].parent}: {DEATHS} processes in turn died over this shard, the last with {_end_of(worker.process)}.",
                hint="Is there enough memory for it? Take fewer workers, or make the shards smaller.",
            )
        self._waiting.appendleft(index)


def _run_here(
    function: FunctionSpec, tasks: Sequence[ShardTask], sizes: list[int], out: Path, tell: Tell
) -> list[ShardManifest]:
    found = []
    for number, task in enumerate(tasks):
        tell(sum(sizes[:number]), sum(sizes), f"processing {number} of {len(tasks)} shards")
        found.append(process_shard(function, task, out))
    tell(sum(sizes), sum(sizes), f"processing {len(tasks)} of {len(tasks)} shards")
    return found


def _work(pipe: Connection, function: FunctionSpec, out: Path) -> None:
    """A worker: tasks come in, manifests go out; it ends when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    while True:
        try:
            index, task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            found: object = process_shard(function, task, out)
        except AbruzziError as error:
            found = {"code": error.code, "message": error.message, "hint": error.hint}
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            found = {
                "code": "shard_failed",
                "message": f"{task.parent}: {type(error).__name__}: {error}.",
                "hint": "The traceback is in the stage's log.",
            }
        try:
            pipe.send((index, found))
        except OSError:
            return


def _end_of(process: BaseProcess) -> str:
    code = process.exitcode
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
