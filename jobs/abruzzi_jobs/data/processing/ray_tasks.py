"""Shards as tasks of a Ray cluster. A task gets the packed shard and gives the files that it made, so workers need no access to the
object store; the driver writes them, the manifest last. Which node does which, and how often, changes nothing in what is written.
Why not Ray Data: ADR 13 (bench/ray_data.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.processing.executor import Tell, check_tasks
from abruzzi_jobs.data.processing.function import FunctionSpec
from abruzzi_jobs.data.processing.shard import ShardManifest, ShardTask, finished, read_verified, write_atomic
from abruzzi_jobs.data.processing.worker import answer_to
from abruzzi_jobs.data.ray_session import RETRIES

AHEAD = 2
"""Tasks in flight for each CPU of the cluster: none waits for the driver, and shards do not pile up in memory."""
LOOK_SECONDS = 0.5


class RayTasks:
    """An Executor on a connected Ray (abruzzi_jobs.data.ray_session)."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.nodes: set[str] = set()
        """Ids of the nodes that have made something."""

    def run(self, function: FunctionSpec, tasks: Sequence[ShardTask], out: Path, tell: Tell) -> list[ShardManifest]:
        ray, sizes = self._ray, check_tasks(tasks)
        make = ray.remote(_make).options(num_cpus=1, scheduling_strategy="SPREAD", max_retries=RETRIES)
        files = ray.put({name: read_verified(out / name, digest) for name, digest in function.files.items()})
        window = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        done = {n: m for n, task in enumerate(tasks) if (m := finished(function, task, out)) is not None}
        waiting = [n for n in range(len(tasks)) if n not in done]
        running: dict[Any, int] = {}
        while True:
            share = sum(sizes[n] for n in done)
            tell(share, sum(sizes), f"processing {len(done)} of {len(tasks)} shards")
            while waiting and len(running) < window:
                number = waiting.pop(0)
                task = tasks[number]
                packed = read_verified(task.parent, task.digest)
                order = (asdict(function), task.name, task.parent.name, task.digest, packed, files)
                running[make.remote(*order)] = number
            if not running:
                return [done[n] for n in range(len(tasks))]
            ready, _ = ray.wait(list(running), timeout=LOOK_SECONDS)
            for reference in ready:
                done[running.pop(reference)] = self._take(ray.get(reference), out)

    def describe(self) -> str:
        alive = sum(node["Alive"] for node in self._ray.nodes())
        return f"shards made on {len(self.nodes)} of {alive} nodes of Ray"

    def _take(self, answer: dict[str, Any], out: Path) -> ShardManifest:
        self.nodes.add(answer["node"])
        if "error" in answer:
            raise AbruzziError(**answer["error"])
        manifest = ShardManifest(**answer["manifest"])
        for name, content in answer["files"].items():
            write_atomic(out / name, content)
        write_atomic(out / f"{manifest.name}.json", manifest.to_json().encode())
        return manifest


def _make(
    function: dict[str, Any], name: str, parent: str, digest: str, packed: bytes, files: dict[str, bytes]
) -> dict[str, Any]:
    """On a worker. Plain values only: an error of ours goes as its parts."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    with tempfile.TemporaryDirectory(prefix="abruzzi-shard-") as folder:
        source, out = Path(folder) / parent, Path(folder) / "out"
        out.mkdir()
        source.write_bytes(packed)
        for file, content in files.items():
            (out / file).write_bytes(content)
        task = {"name": name, "parent": str(source), "digest": digest}
        answer = answer_to({"function": function, "task": task, "out": str(out)})
        if "error" in answer:
            answer["error"]["message"] = answer["error"]["message"].replace(f"{folder}/", "")
            return {"node": node, **answer}
        made = {file: (out / file).read_bytes() for file in answer["manifest"]["files"]}
    return {"node": node, "files": made, **answer}
