"""The real Trainer: two gloo processes at the same global batch follow one process, and micro-batches the whole batch, also while heads are clipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rank_processes import run_ranks

from abruzzi_jobs.models import ModelConfig

pytestmark = pytest.mark.parity
WORKER = Path(__file__).parent / "data_parallel_worker.py"
CLIPPING = 0.2
"""A threshold that some heads' logits exceed."""


def train(
    directory: Path, name: str, *, world_size: int, dtype: str, micro_sequences: int, threshold: float
) -> list[dict[str, Any]]:
    words = (str(directory), name, dtype, str(micro_sequences), str(threshold))
    run_ranks(WORKER, *words, world_size=world_size)
    return [json.loads((directory / f"{name}-rank-{rank}.json").read_text()) for rank in range(world_size)]


@pytest.mark.parametrize("threshold", [100.0, CLIPPING])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 2e-2)])
def test_two_ranks_and_micro_batches_follow_one_rank(
    small: ModelConfig, tmp_path: Path, dtype: str, tolerance: float, threshold: float
) -> None:
    (tmp_path / "model.json").write_text(json.dumps({**small.to_dict(), "vocab_size": 64, "init_std": 0.05}))
    common: dict[str, Any] = {"dtype": dtype, "threshold": threshold}
    (one,) = train(tmp_path, "one", world_size=1, micro_sequences=4, **common)
    (micro,) = train(tmp_path, "micro", world_size=1, micro_sequences=1, **common)
    first, second = train(tmp_path, "two", world_size=2, micro_sequences=1, **common)

    assert first["digest"] == second["digest"], "weights, masters and momenta of both ranks, bit for bit"
    assert first["history"] == second["history"]
    assert one["history"][-1]["loss"] < one["history"][0]["loss"]
    clipped = [step["clip"]["clipped_heads"] for step in one["history"]]
    assert (sum(clipped) > 0) is (threshold == CLIPPING)
    for other in (micro, first):
        for alone, together in zip(one["history"], other["history"], strict=True):
            assert together["loss"] == pytest.approx(alone["loss"], rel=tolerance)
            assert together["norm"] == pytest.approx(alone["norm"], rel=20 * tolerance)
            np.testing.assert_allclose(together["max_logit"], alone["max_logit"], rtol=20 * tolerance)
            assert together["clip"]["gamma_min"] == pytest.approx(alone["clip"]["gamma_min"], rel=20 * tolerance)
            if dtype == "float32":
                assert together["counts"] == alone["counts"]
                assert together["clip"]["clipped_heads_per_layer"] == alone["clip"]["clipped_heads_per_layer"]
