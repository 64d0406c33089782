"""Two gloo processes at the same global batch follow one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abruzzi_jobs.models import ModelConfig

pytestmark = pytest.mark.parity
WORKER = Path(__file__).parent / "data_parallel_worker.py"


def train(directory: Path, *, world_size: int, dtype: str, micro_batches: int) -> list[dict[str, Any]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(WORKER), str(directory), dtype, str(micro_batches)]
    processes = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(world_size)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    names = [f"world-{world_size}-rank-{rank}.json" for rank in range(world_size)]
    return [json.loads((directory / name).read_text()) for name in names]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 2e-2)])
def test_two_ranks_follow_one_rank(small: ModelConfig, tmp_path: Path, dtype: str, tolerance: float) -> None:
    (tmp_path / "model.json").write_text(json.dumps({**small.to_dict(), "vocab_size": 64, "init_std": 0.05}))
    (one,) = train(tmp_path, world_size=1, dtype=dtype, micro_batches=4)
    first, second = train(tmp_path, world_size=2, dtype=dtype, micro_batches=1)

    assert first["digest"] == second["digest"]
    assert one["history"][-1]["loss"] < one["history"][0]["loss"]
    for alone, together in zip(one["history"], first["history"], strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=tolerance)
        assert together["norm"] == pytest.approx(alone["norm"], rel=20 * tolerance)
        assert together["max_logit"] == pytest.approx(alone["max_logit"], rel=20 * tolerance)
        if dtype == "float32":
            assert together["counts"] == alone["counts"]
