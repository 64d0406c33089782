"""The GPU benches have the shape of their reports on a machine without a GPU, too: they measure what the trainer does, and say what they do not."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from abruzzi.contracts.training import MODEL_PRESETS
from abruzzi_jobs.models import ModelConfig

BENCH = Path(__file__).parents[4] / "bench"


def bench(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCH / "gpu" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_measures_packed_rows_and_plain_ones_and_states_the_machines_load() -> None:
    config = ModelConfig.from_dict(MODEL_PRESETS["nano"])
    result = json.loads(json.dumps(bench("train_step").measure(config, device="cpu", sequences=2, length=32, rounds=1)))
    for way in ("packed", "plain"):
        assert set(result[way]["median_s"]) == {"forward", "backward", "optimizer", "step"}
        assert result[way]["tokens_per_second"] > 0
    assert "load_before" in result["machine"]
    assert "always packs" in result["note"]


def test_a_slice_of_k2_has_its_true_shape_and_states_every_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    module = bench("k2_slice")
    assert module.K2.num_experts * module.EXPERT_PARALLEL == 384
    small = replace(
        module.K2, hidden_size=64, num_heads=2, q_lora_rank=32, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8,
        v_head_dim=16, moe_intermediate_size=32, num_experts=8, num_experts_per_token=2,
    )  # fmt: skip
    result = json.loads(json.dumps(module.measure(small, device="cpu", length=64, rounds=1, peer=False)))
    assert set(result["share_of_peak"]) == {"ours", "ours_accumulated"}
    assert result["tokens_by_expert"]["max"] >= 64 * 2 / 8 >= result["tokens_by_expert"]["min"]
    assert 0 < result["muonclip"]["share_of_step_on_32_nodes"] < 1
    assert result["muonclip"]["matrices"] == 5 + 1 + 3 * 8 + 3
    assert {"date", "device", "machine", "targets", "ok"} <= set(result)
