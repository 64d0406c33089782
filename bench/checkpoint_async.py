"""Checkpoints of a training stage: what saving costs, and what it costs to go on in another layout.

    .venv/bin/python bench/checkpoint_async.py --out bench/results/checkpoint_async.json

The model's states are saved by one rank and by two (each its own part). In each round, beside each other: `raw`, the same bytes from as many processes
into the same directory or S3 server, by the fastest of several plain ways (write and fsync, through the page cache or past it; those of plain_s3.py);
`save`, from the end of the staging copy to the manifest; `memcpy`, one copy of as many bytes into memory that is mapped; `stall`, what the training loop
waits for a save.
Loads are timed on all ranks from the choice of the checkpoint to the last parameter: `plain` by the layout that saved it, the others by another one. Every
load counts the bytes that all ranks have read of the store's files.
An S3 server (MinIO) is started where ABRUZZI_CLUSTER_TOOLS has one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from interleaved import machine, report, summary
from plain_s3 import PART_WAYS, PlainS3
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import checkpoint_lab
from checkpoint_lab import Ground, newest
from rank_processes import fork_ranks
from s3_server import ACCESS, SECRET, S3Server, minio_binary

from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.store import DirectoryStore
from abruzzi.store.s3 import S3Store
from abruzzi_jobs.checkpoint import load_checkpoint, open_checkpoint
from abruzzi_jobs.distributed import Layout, Ranks
from abruzzi_jobs.memory import MemoryPolicy

PIPELINE, EXPERTS = Layout(pp=2), Layout(ep=2, dp=2)
BLOCK = 4096
LAYOUTS: dict[str, Layout | None] = {"one": None, "pp2": PIPELINE, "ep2": EXPERTS, "dp2": None}


def model_of(mebi: int) -> Any:
    """About as many MiB of states in float32: parameters, and Muon's momenta."""
    layers = max(2, round(mebi / 26))
    return replace(
        checkpoint_lab.MODEL, vocab_size=4096, hidden_size=256, num_layers=layers, num_heads=8, q_lora_rank=128, kv_lora_rank=128,
        qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64, intermediate_size=512, moe_intermediate_size=128, num_experts=32,
        num_experts_per_token=4,
    )  # fmt: skip


def timed(ranks: Ranks, act: Callable[[], Any]) -> float:
    """Seconds from when all ranks begin until all have ended."""
    ranks.barrier()
    began = time.perf_counter()
    act()
    ranks.barrier()
    return time.perf_counter() - began


def raw_ways(store: DirectoryStore | S3Store) -> dict[str, Callable[[str, memoryview], None]]:
    """Way → what writes one rank's file as plainly as can be."""
    if isinstance(store, DirectoryStore):
        return {
            way: lambda name, view, flag=flag: _write(store.root / name, view, flag)
            for way, flag in (("write", 0), ("write O_DIRECT", os.O_DIRECT))
        }
    plain = PlainS3(store._client, store.bucket)
    return {way: lambda name, view, way=way: plain.put(name, view, way) for way in PART_WAYS}


def _write(path: Path, view: memoryview, flag: int) -> None:
    """Past the page cache only whole blocks can be written: the last few bytes are left out then."""
    view = view[: len(view) // BLOCK * BLOCK] if flag else view
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flag, 0o600)
    try:
        while view:
            view = view[os.write(descriptor, view[: 16 << 20]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def saves(
    ranks: Ranks, root: str, name: str, mebi: int, rounds: int, s3: dict[str, Any] | None
) -> dict[str, list[float]]:
    torch.set_num_threads(1)
    ground = grounded(ranks, root, name, mebi, s3)
    ways = raw_ways(ground.store)
    seconds: dict[str, list[float]] = {"memcpy": [], "stall": [], "save": [], **{f"raw {way}": [] for way in ways}}
    files = list(ground.checkpointer._files.values())
    sizes = [len(file.content) for file in files]
    source = torch.randint(0, 255, (sum(sizes) + BLOCK,), dtype=torch.uint8)
    source = source[-source.data_ptr() % BLOCK :][: sum(sizes)]
    target = torch.zeros_like(source)
    whole = memoryview(source.numpy())
    names = [f"raw-{os.getpid()}-{number}" for number in range(len(sizes))]
    for round_ in range(rounds + 1):
        found: dict[str, float] = {}

        def raw(way: str, found: dict[str, float] = found) -> None:
            write = ways[way]
            found[f"raw {way}"] = timed(
                ranks, lambda: [write(name, whole[:size]) for name, size in zip(names, sizes, strict=True)]
            )
            for name in names:
                ground.store.delete(name)

        def ours(found: dict[str, float] = found, step: int = round_ + 1) -> None:
            with torch.no_grad():
                for parameter in parameters(ground):
                    parameter.add_(1e-3)  # or the files would be those of the step before
            found["memcpy"] = timed(ranks, lambda: target.copy_(source))
            found["stall"] = timed(ranks, lambda: ground.save(step))
            ground.checkpointer.finish()
            found["save"] = (
                max(saved.write_seconds for saved in ground.checkpointer.take_reports()) if ranks.rank == 0 else 0
            )

        turns = [ours, *(lambda way=way: raw(way) for way in ways)]
        for act in turns if round_ % 2 else reversed(turns):
            act()
        if round_:  # the first one warms up
            for key, value in found.items():
                seconds[key].append(value)
    seconds["bytes"] = [float(sum(sizes))]
    return seconds


def loads(ranks: Ranks, root: str, saved: str, layouts: Sequence[str], mebi: int, rounds: int) -> dict[str, Any]:
    """Of the newest checkpoint in the directory, which `saved` has written: seconds by layout, and bytes read of all its bytes."""
    torch.set_num_threads(1)
    grounds = {name: grounded(ranks, root, name, mebi, None) for name in layouts}
    reference = newest(Path(root))
    seconds: dict[str, list[float]] = {name: [] for name in layouts}
    read: dict[str, int] = dict.fromkeys(layouts, 0)
    size = 0
    for round_ in range(rounds + 1):
        for name in layouts if round_ % 2 else reversed(layouts):
            ground = grounds[name]
            ground.context.spec = ground.context.spec.model_copy(update={"resume": reference})
            ground.store.read_bytes = 0

            def load(ground: Ground = ground) -> int:
                opened = open_checkpoint(ground.context, ranks)
                assert opened is not None
                load_checkpoint(opened, ground.model, ground.optimizer, ranks=ranks)
                return opened.manifest.size_bytes

            sizes: list[int] = []
            took = timed(ranks, lambda load=load, sizes=sizes: sizes.append(load()))
            size, read[name] = sizes[0], ground.store.read_bytes
            if round_:
                seconds[name].append(took)
    return {"saved_by": saved, "seconds": seconds, "read": read, "bytes": size}


def grounded(ranks: Ranks, root: str, name: str, mebi: int, s3: dict[str, Any] | None) -> Ground:
    checkpoint_lab.MODEL, checkpoint_lab.MEMORY = model_of(mebi), MemoryPolicy()
    ground = Ground(Path(root), ranks, LAYOUTS[name])
    if s3 is not None:
        os.environ.update(AWS_ACCESS_KEY_ID=ACCESS, AWS_SECRET_ACCESS_KEY=SECRET)
        ground.context.store = ground.store = S3Store(S3Config(**s3))  # type: ignore[assignment]
    return ground


def parameters(ground: Ground) -> list[Tensor]:
    return [part.tensor for part in checkpoint_lab.targets_of(ground.model)]


def of_saves(found: list[dict[str, list[float]]]) -> dict[str, Any]:
    first, size = found[0], sum(rank["bytes"][0] for rank in found)
    told = {key: summary(values) for key, values in first.items() if key != "bytes"}
    medians = {key: statistics.median(first[key]) for key in told}
    fastest = min((key for key in told if key.startswith("raw ")), key=lambda key: medians[key])
    medians["raw"] = medians[fastest]
    return {
        "bytes": int(size), **told, "raw": fastest.removeprefix("raw "),
        "raw_mb_per_s": size / 1e6 / medians["raw"], "save_mb_per_s": size / 1e6 / medians["save"],
        "save_of_raw": medians["raw"] / medians["save"], "stall_of_memcpy": medians["stall"] / medians["memcpy"],
    }  # fmt: skip


def of_loads(found: list[dict[str, Any]], plain: str) -> dict[str, Any]:
    seconds = found[0]["seconds"]
    base = statistics.median(seconds[plain])
    return {
        "saved_by": found[0]["saved_by"], "bytes": found[0]["bytes"],
        "layouts": {
            name: {
                **summary(values), "of_plain": statistics.median(values) / base,
                "read_of_size": sum(rank["read"][name] for rank in found) / found[0]["bytes"],
            }
            for name, values in seconds.items()
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=512, help="Of the states, about.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-s3", action="store_true")
    parser.add_argument("--folder", type=Path, help="On the disk that is meant; else the one of temporary files.")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    mebi, rounds = arguments.size_mib, arguments.rounds
    result: dict[str, Any] = {"machine_before": machine(threads=1), "save": {}, "load": {}}
    with ExitStack() as ending:
        folder = tempfile.mkdtemp(prefix="checkpoint-", dir=arguments.folder)
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        for count, name, others in ((1, "one", ["one"]), (2, "pp2", ["pp2", "ep2", "dp2"])):
            root = f"{folder}/{name}"
            result["save"][f"directory, {name}"] = of_saves(fork_ranks(count, saves, root, name, mebi, rounds, None))
            if count == 2:
                found = fork_ranks(1, loads, root, name, ["one"], mebi, rounds)
                result["load"]["pp2 by one rank"] = of_loads(found, "one")
            result["load"][name] = of_loads(fork_ranks(count, loads, root, name, others, mebi, rounds), name)
            shutil.rmtree(root)
        if minio_binary() is not None and not arguments.no_s3:
            server = ending.enter_context(S3Server(real=True))
            for count, name in ((1, "one"), (2, "pp2")):
                s3 = server.new_bucket().model_dump(exclude={"kind"})
                found = fork_ranks(count, saves, f"{folder}/s3", name, mebi, rounds, s3)
                result["save"][f"s3, {name}"] = of_saves(found)
    one = result["load"]["one"]["layouts"]["one"]["median_s"]
    result["load"]["pp2 by one rank"]["of_plain"] = (
        result["load"]["pp2 by one rank"]["layouts"]["one"]["median_s"] / one
    )
    report({**result, "machine_after": machine(threads=1)}, out=arguments.out)


if __name__ == "__main__":
    main()
