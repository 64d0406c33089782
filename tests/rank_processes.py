"""A worker program as the ranks of one process group, on this machine's CPU with a thread each."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from ports import free_port


def run_ranks(worker: Path, *words: str, world_size: int) -> None:
    """To its end on all ranks; what one that fails has written to standard error is the assertion's message."""
    environment = {
        **os.environ, "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), *words],
            env={**environment, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()


def forking(module: str) -> ForkServerContext:
    """Its processes are forked from one that has imported the module, which the first call of this process starts. Python 3.11 starts that one without
    this process's sys.path, and says nothing of a module that it does not find: each rank would import torch for itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    return context


def fork_ranks(world_size: int, work: Callable[..., Any], *given: Any, **named: Any) -> list[Any]:
    """`work(ranks, *given, **named)` on the ranks of one process group, in processes that are forked from one that has imported torch: what each returns,
    or its exit code where it was killed. `work` is a function of a module that can be imported."""
    context = forking(work.__module__)
    port = free_port()
    ends, processes = [], []
    for rank in range(world_size):
        here, there = context.Pipe(duplex=False)
        given_all = (there, rank, world_size, port, partial(work, **named), given)
        processes.append(context.Process(target=_rank, args=given_all, daemon=True))
        processes[-1].start()
        there.close()
        ends.append(here)
    found: list[Any] = []
    try:
        for end, process in zip(ends, processes, strict=True):
            try:
                failed, told = end.recv()
            except EOFError:
                process.join()
                failed, told = False, process.exitcode
            assert not failed, told
            found.append(told)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return found


def _rank(end: Connection, rank: int, world_size: int, port: int, work: Callable[..., Any], given: Any) -> None:
    from abruzzi_jobs.distributed import start_ranks, stop_ranks

    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        found = work(start_ranks(), *given)
        end.send((False, found))
        stop_ranks()
    except BaseException:
        end.send((True, f"rank {rank}: {traceback.format_exc()}"))
