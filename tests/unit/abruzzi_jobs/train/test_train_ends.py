"""How a pretrain stage can end otherwise than well: the code, the last sentence, and what is left."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from training_lab import Lab

from abruzzi.client.stage import Reporter, StageContext, exit_code_of
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import PretrainStage
from abruzzi.contracts.states import ExitCode
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.train.pretraining import Pretraining

pytestmark = pytest.mark.slow


def last_line(log: str) -> str:
    return log.splitlines()[-1]


def test_divergence_exits_76_and_keeps_the_last_good_checkpoint(lab: Lab) -> None:
    attempt = lab.start(
        lab.spec({"optimizer": {"kind": "adamw", "peak_lr": 1e30, "max_grad_norm": None}, "schedule": {"warmup_steps": 0}, "checkpoint": {"every_steps": 1}})
    )  # fmt: skip
    assert attempt.wait() == [ExitCode.DIVERGENCE]
    assert "the loss is" in last_line(attempt.log())
    assert lab.checkpoints(), "the steps before it are saved"


@pytest.mark.parametrize(
    ("key", "parallel", "ranks"),
    [("pp", {"pp": 2}, 2), ("vpp", {"vpp": 4}, 1), ("ep", {"ep": 8}, 1)],
)
def test_parallelism_that_is_not_executed_is_refused_by_its_key(
    lab: Lab, key: str, parallel: dict[str, int], ranks: int
) -> None:
    spec = lab.spec({"parallel": parallel, "resources": {"pool": "h800", "ranks": ranks}})
    context = StageContext(spec, 0, ranks, lab.root, lab.store)
    stage = PretrainStage.model_validate(spec.config)
    with pytest.raises(AbruzziError, match=rf"parallel\.{key} = {parallel[key]} is not executed") as refused:
        Pretraining(context, Reporter.from_context(context), stage, Ranks(0, ranks, torch.device("cpu")))
    assert refused.value.code == "invalid_config"
    assert exit_code_of(refused.value) == ExitCode.USER_ERROR


def test_a_full_disk_stops_the_stage_before_it_is_full(lab: Lab) -> None:
    attempt = lab.start(lab.spec({"checkpoint": {"min_free_bytes": 1 << 60}}))
    assert attempt.wait() == [ExitCode.USER_ERROR]
    assert "GiB free" in last_line(attempt.log())
    assert "Free some space" in last_line(attempt.log())
    assert attempt.step() <= 0, "before any work is lost"


def test_a_checkpoint_of_another_model_is_refused_with_a_sentence(lab: Lab) -> None:
    attempt = lab.start(lab.spec())
    attempt.until(lambda: attempt.step() >= 6 and lab.checkpoints())
    attempt.signal(signal.SIGTERM)
    assert attempt.wait() == [ExitCode.PREEMPTED]
    wider = lab.start(lab.spec({"model": {"hidden_size": 32}}, epoch=2))
    assert wider.wait() == [ExitCode.BAD_DATA]
    assert "does not fit this stage" in last_line(wider.log())


def test_a_damaged_dataset_is_bad_data(lab: Lab) -> None:
    manifest = lab.store.get(lab.dataset.manifest_key)
    entry = next(e for e in json.loads(manifest)["files"] if e["path"] == "train-00000.bin")
    blob = lab.root / "store" / "projects/default/runs" / lab.run_id / "tokenize/blobs" / entry["digest"][7:]
    content = bytearray(blob.read_bytes())
    content[0] ^= 1
    blob.unlink()
    blob.write_bytes(content)
    attempt = lab.start(lab.spec())
    assert attempt.wait() == [ExitCode.BAD_DATA]
    assert "does not hash to its digest" in last_line(attempt.log())


def test_told_to_stop_before_the_first_step_it_saves_nothing(lab: Lab) -> None:
    attempt = lab.start(lab.spec())
    attempt.until(lambda: attempt.step() >= 0)  # signals are heard, torch is still being imported
    attempt.signal(signal.SIGTERM)
    assert attempt.wait() == [ExitCode.PREEMPTED]
    assert lab.checkpoints() == []
    assert "nothing new to save" in last_line(attempt.log())


def test_annealing_at_a_longer_context_resumes_in_the_middle_of_it(lab: Lab) -> None:
    changes = {
        "schedule": {"tokens": 4096, "anneal": [{"tokens": 4096, "end_lr_ratio": 0.05, "sequence_length": 64}]},
        "checkpoint": {"every_steps": 3},
        "model": {"max_position": 64},
    }
    attempt = lab.start(lab.spec(changes))
    attempt.until(lambda: attempt.step() >= 21)
    attempt.signal(signal.SIGKILL)
    attempt.wait()
    resumed = lab.run(lab.spec(changes, epoch=2))
    after = lab.digests()
    alone = lab.run(lab.spec(changes, epoch=3, resume=False))
    assert lab.digests(next(m for m in lab.checkpoints() if m.epoch == 3)) == after
    assert alone.points()["train/lr"][32] == pytest.approx(2e-3 * 0.05)
    assert "resumed from step" in resumed.log()


def test_the_logged_numbers_are_all_there(lab: Lab) -> None:
    points = lab.run(lab.spec()).points()
    every_step = {
        "train/loss", "train/bits_per_byte", "train/lr", "train/grad_norm", "train/tokens_per_second", "train/tokens",
        "train/step_seconds", "train/max_logit", "train/max_logit/layer.00", "train/max_logit/layer.01",
        "train/clipped_heads", "train/qk_clip_gamma_min", "train/expert_load/layer.01", "train/aux_loss",
    }  # fmt: skip
    assert all(sorted(points[key]) == list(range(1, 49)) for key in every_step)
    assert sorted(points["train/spectral_norm/layer.01.q"]) == sorted(points["train/sv_entropy/layer.00.k"]) == [20, 40]
    assert sorted(points["valid/loss"]) == [10, 20, 30, 40, 48]
    assert points["valid/loss"][48] < points["valid/loss"][10] - 1
    assert points["train/loss"][48] < 2.0 < 4.0 < points["train/loss"][1]
    assert all(0.15 < value < 0.3 for value in points["train/update_rms/muon"].values())
    assert sorted(points["checkpoint/stall_seconds"])[-1] == 48
