"""Shards as the indices of one job (a Kubernetes Indexed Job, or the ranks of a laptop): index i of n makes every n-th shard from the i-th on.

The indices meet in the object store only. Each puts what it has made there, the manifest last; index 0 takes all and goes on alone. What lies
there outlives pods: an attempt that comes later makes what is missing, and the bytes are the same whoever made them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from abruzzi.contracts.errors import NotFound
from abruzzi.store import ObjectStore
from abruzzi_jobs.data.processing.executor import Tell, check_tasks
from abruzzi_jobs.data.processing.function import FunctionSpec
from abruzzi_jobs.data.processing.local import LocalProcesses
from abruzzi_jobs.data.processing.shard import ShardManifest, ShardTask, finished, write_atomic

LOOK_SECONDS = 1.0


class IndexedShards:
    """An Executor for index 0; the others only `make` what is theirs."""

    def __init__(
        self,
        objects: ObjectStore,
        prefix: str,
        *,
        index: int,
        count: int,
        workers: int = 1,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`prefix`: of keys that all indices, and later attempts, may write and read; it ends with /. `workers`: processes of this index."""
        self._objects, self._prefix = objects, prefix
        self._index, self._count, self._workers = index, count, workers
        self._sleep = sleep

    def run(self, function: FunctionSpec, tasks: Sequence[ShardTask], out: Path, tell: Tell) -> list[ShardManifest]:
        """All of them, once every index has made its own; `tell` is called while it waits."""
        sizes = check_tasks(tasks)
        self.make(function, tasks, out, tell)
        done: dict[int, ShardManifest] = {}
        while True:
            for number in [n for n in range(len(tasks)) if n not in done]:
                found = self._fetch(function, tasks[number], out)
                if found is not None:
                    done[number] = found
            tell(sum(sizes[n] for n in done), sum(sizes), f"collecting {len(done)} of {len(tasks)} shards")
            if len(done) == len(tasks):
                return [done[n] for n in range(len(tasks))]
            self._sleep(LOOK_SECONDS)

    def make(self, function: FunctionSpec, tasks: Sequence[ShardTask], out: Path, tell: Tell) -> None:
        """This index's shards, into the object store; what is there already is not made again."""
        sizes = check_tasks(tasks)
        mine = range(self._index, len(tasks), self._count)
        missing = [n for n in mine if self._fetch(function, tasks[n], out) is None]
        local, total = LocalProcesses(self._workers), sum(sizes[n] for n in mine)
        made = total - sum(sizes[n] for n in missing)
        for first in range(0, len(missing), self._workers):
            batch = missing[first : first + self._workers]
            tell(made, total, f"processing {first} of {len(missing)} shards of index {self._index}")
            for manifest in local.run(function, [tasks[n] for n in batch], out, lambda *_: None):
                self._put(function, manifest, out)
            made += sum(sizes[n] for n in batch)
        tell(total, total, f"processing {len(missing)} of {len(missing)} shards of index {self._index}")

    def remove(self) -> None:
        """Everything below the prefix: when what was made of it is committed."""
        for key in list(self._objects.list(self._prefix)):
            self._objects.delete(key)

    def _key(self, function: FunctionSpec, name: str) -> str:
        return f"{self._prefix}{function.digest().removeprefix('sha256:')[:16]}/{name}"

    def _put(self, function: FunctionSpec, manifest: ShardManifest, out: Path) -> None:
        for name in (*manifest.files, f"{manifest.name}.json"):
            self._objects.put(self._key(function, name), out / name)

    def _fetch(self, function: FunctionSpec, task: ShardTask, out: Path) -> ShardManifest | None:
        """Into `out`. None: nobody has made it, or what lies there is of another parent or damaged; then its index makes it."""
        name = f"{task.name}.json"
        try:
            written = self._objects.get(self._key(function, name))
            for file in json.loads(written)["files"]:
                if finished(function, task, out) is None:
                    write_atomic(out / file, self._objects.get(self._key(function, file)))
        except (NotFound, ValueError, KeyError, TypeError):
            return None
        write_atomic(out / name, written)
        return finished(function, task, out)
