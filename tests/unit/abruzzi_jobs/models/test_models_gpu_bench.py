"""The GPU bench has the shape of its report on a machine without a GPU, too: it measures what the trainer does, and says what it does not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from abruzzi.contracts.training import MODEL_PRESETS
from abruzzi_jobs.models import ModelConfig

BENCH = Path(__file__).parents[4] / "bench" / "gpu" / "train_step.py"


def test_it_measures_packed_rows_and_plain_ones_and_states_the_machines_load() -> None:
    spec = importlib.util.spec_from_file_location("gpu_train_step", BENCH)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    config = ModelConfig.from_dict(MODEL_PRESETS["nano"])
    result = json.loads(json.dumps(bench.measure(config, device="cpu", sequences=2, length=32, rounds=1)))
    for way in ("packed", "plain"):
        assert set(result[way]["median_s"]) == {"forward", "backward", "optimizer", "step"}
        assert result[way]["tokens_per_second"] > 0
    assert "load_before" in result["machine"]
    assert "always packs" in result["note"]
