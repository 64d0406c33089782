"""Shards on the processes of one machine: workers are interpreters of their own (abruzzi_jobs.data.processing.worker), with a pipe each.

A worker that dies (out of memory, killed, a crash in native code) is replaced and its shard begun again; one that costs three
workers ends the work by name. A parent that dies leaves workers that end after their shard; the next one continues from the manifests.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.processing import worker as worker_module
from abruzzi_jobs.data.processing.executor import Tell, check_tasks
from abruzzi_jobs.data.processing.function import FunctionSpec
from abruzzi_jobs.data.processing.shard import ShardManifest, ShardTask, process_shard

DEATHS = 3
LOOK_SECONDS = 0.2


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
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
                worker.process.wait()
                worker.pipe.close()
        return [self._done[i] for i in range(len(self._tasks))]

    def _start(self) -> _Worker:
        here, there = mp.Pipe()
        command = [sys.executable, "-m", worker_module.__name__, str(there.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        process = subprocess.Popen(command, pass_fds=[there.fileno()], env=environment, stdin=subprocess.DEVNULL)
        there.close()
        return _Worker(process=process, pipe=here)

    def _give(self, worker: _Worker) -> None:
        if worker.task is None and self._waiting:
            worker.task = self._waiting.popleft()
            try:
                task = self._tasks[worker.task]
                order = {"function": asdict(self._function), "task": {**asdict(task), "parent": str(task.parent)}}
                worker.pipe.send_bytes(json.dumps({**order, "out": str(self._out)}).encode())
            except OSError:
                self._bury(worker)

    def _look_at(self, worker: _Worker) -> None:
        try:
            while worker in self._running and worker.pipe.poll():
                answer = json.loads(worker.pipe.recv_bytes())
                if "error" in answer:
                    raise AbruzziError(**answer["error"])
                if worker.task is not None:
                    self._done[worker.task] = ShardManifest(**answer["manifest"])
                worker.task = None
        except (EOFError, OSError):
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        if worker not in self._running:
            return
        self._running.remove(worker)
        worker.pipe.close()
        worker.process.wait()
        index, worker.task = worker.task, None
        if index is None:
            return
        self._deaths[index] += 1
        if self._deaths[index] >= DEATHS:
            raise AbruzziError(
                "worker_died",
                f"{self._tasks[index].parent}: {DEATHS} processes in turn died over this shard, the last with {_end_of(worker.process.returncode)}.",
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


def _end_of(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
