"""A worker program as the ranks of one process group, on this machine's CPU with a thread each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
