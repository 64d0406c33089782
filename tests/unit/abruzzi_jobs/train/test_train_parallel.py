"""The stage `pretrain` on pipeline and expert-parallel ranks: one rank's losses, and checkpoints that any layout goes on with."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_lab import Lab

from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.timeline import TIMELINE_FILE

LAYERS: dict[str, Any] = {"model": {"num_layers": 4, "init_std": 0.1}}
"""With weights as small as usual the scores of experts lie so close to each other that of 18,000 choices one may hang on a rounding, and fall another
way in another layout."""
STEPS = 24


def changes(ranks: int, **parallel: int) -> dict[str, Any]:
    return {
        **LAYERS,
        # In bfloat16, where a CPU has it, the last bits of a sum would show.
        "optimizer": {"newton_schulz_precision": "float32"},
        "schedule": {"tokens": STEPS * 256},
        "parallel": parallel,
        "resources": {"ranks": ranks},
        "telemetry": {"spectral_every_steps": 12, "held_out_every_steps": 12},
    }


def test_stopped_in_one_layout_and_resumed_in_another_ends_as_one_rank_does(tmp_path: Path) -> None:
    alone = Lab(tmp_path / "alone")
    one = alone.run(alone.spec(changes(1)))

    lab = Lab(tmp_path / "laid-out", dataset=tmp_path / "alone" / "dataset")
    first = lab.start(lab.spec(changes(4, pp=2, ep=2)), hold_at=9)
    first.until_held(9)
    first.signal(signal.SIGTERM)
    assert first.wait() == [143] * 4, first.log()
    assert 9 <= (lab.checkpoints()[0].step or 0) < STEPS
    second = lab.run(lab.spec(changes(2, pp=2, vpp=2), epoch=2))
    assert "resumed from" in second.log()

    (kept,) = [one for one in lab.kept(ArtifactKind.FILES) if one.epoch == 2]
    timeline = json.loads(lab.blob(kept, TIMELINE_FILE).read_text())
    assert (timeline["step"], timeline["microbatches"]) == (kept.step, 4)
    for rank, spans in enumerate(timeline["ranks"]):
        computed = sorted((op, stage, m) for op, stage, m, *_ in spans)
        assert computed == [(op, stage, m) for op in "FIW" for stage in (rank, rank + 2) for m in range(4)]
        assert all(start <= end <= timeline["seconds"] for *_, start, end in spans)
    ready = {(op, stage, m): end for spans in timeline["ranks"] for op, stage, m, _, end in spans}
    assert all(ready["F", stage, m] < ready["F", stage + 1, m] for stage in range(3) for m in range(4))
    assert timeline["seconds"] <= timeline["step_seconds"]

    losses = {**first.points()["train/loss"], **second.points()["train/loss"]}
    wanted = one.points()
    assert len(losses) == STEPS
    for step, loss in losses.items():
        assert loss == pytest.approx(wanted["train/loss"][step], rel=1e-5)
    for key in ("valid/loss", "train/spectral_norm/layer.03.k", "train/update_rms/muon", "train/update_rms/adamw"):
        for step, value in second.points()[key].items():
            assert value == pytest.approx(wanted[key][step], rel=1e-4), key
    for file in ("model.safetensors", "optimizer.safetensors"):
        theirs, ours = alone.weights(file=file), lab.weights(file=file)
        assert set(ours) == set(theirs)
        for name, tensor in theirs.items():
            assert ours[name].dtype == tensor.dtype
            scale = float(np.abs(tensor).max()) or 1.0
            np.testing.assert_allclose(ours[name], tensor, atol=2e-4 * scale, err_msg=name)
    bias = [name for name in alone.weights() if name.endswith("e_score_correction_bias")]
    assert len(bias) == 3
    for name in bias:
        assert (lab.weights()[name] == alone.weights()[name]).all()
