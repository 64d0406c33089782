"""Who runs a function over shards. The work of one shard is `process_shard`, wherever it is done, so that all executors write
the same bytes; an executor adds places and retries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.processing.function import FunctionSpec
from abruzzi_jobs.data.processing.shard import ShardManifest, ShardTask

Tell = Callable[[int, int, str], None]
"""(bytes of finished shards, bytes of all, message); may raise to stop the work."""


class Executor(Protocol):
    def run(self, function: FunctionSpec, tasks: Sequence[ShardTask], out: Path, tell: Tell) -> list[ShardManifest]:
        """Manifests in the order of the tasks. What is finished in `out` already is not done again.

        Raises AbruzziError bad_data before any work where a shard is missing, empty or named twice; during it where one is unfit.
        """
        ...


def check_tasks(tasks: Sequence[ShardTask]) -> list[int]:
    """Bytes of each parent. A wrong path ends the work before it begins: nobody waits for what will not come."""
    if not tasks:
        raise AbruzziError("bad_data", "There is no shard to process.", hint="Check the sources.")
    names = [t.name for t in tasks]
    for task in tasks:
        if names.count(task.name) > 1:
            raise AbruzziError("bad_data", f"Two shards would be called {task.name}.", hint="Name each shard once.")
    sizes = []
    for task in tasks:
        if not task.parent.is_file():
            raise AbruzziError("bad_data", f"{task.parent}: there is no such shard.", hint="Make or fetch it again.")
        sizes.append(task.parent.stat().st_size)
        if not sizes[-1]:
            raise AbruzziError(
                "bad_data", f"{task.parent}: the shard is empty.", hint="Leave it out, or make it again."
            )
    return sizes
