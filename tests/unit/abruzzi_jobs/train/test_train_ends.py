"""How a pretrain stage can end otherwise than well: the code, the last sentence, and what is left."""

from __future__ import annotations

import json
import re
import shutil
import signal
from typing import Any

import pytest
from pydantic import ValidationError
from training_lab import Lab, merged

from abruzzi.contracts.states import ExitCode
from abruzzi.store import Setback, list_manifests

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


def test_after_a_divergence_it_goes_on_from_before_it_with_other_data_and_a_kill_then_changes_no_bit(lab: Lab) -> None:
    calm: dict[str, Any] = {
        "optimizer": {"kind": "adamw", "peak_lr": 1e-3},
        "checkpoint": {"every_steps": 1, "keep_last": 4},
    }
    first = lab.start(lab.spec(calm), hold_at=6)
    first.until_held(6)
    first.signal(signal.SIGTERM)
    first.wait()
    stopped = lab.checkpoints()[0].step or 0
    wild = merged(calm, {"optimizer": {"peak_lr": 1e30, "max_grad_norm": None}})
    assert lab.start(lab.spec(wild, epoch=2)).wait() == [ExitCode.DIVERGENCE]
    note = next(m for _, m in list_manifests(lab.store, lab.spec(calm).output_prefix) if m.name == "divergence")
    diverged = note.meta["diverged_at_step"]
    assert note.meta["data_step"] == diverged + 1 > stopped

    spec = lab.spec(calm, epoch=3, diverged=1)
    assert spec.data_step == diverged + 1
    shutil.copytree(lab.root / "store", lab.root / "kept")
    whole = lab.run(spec)
    resumed = int(re.search(r"at step (\d+)", whole.log())[1])  # type: ignore[index]
    assert resumed < diverged
    assert f"the data of {diverged + 1 - resumed} steps, up to step {diverged + 1}, is passed over" in whole.log()
    digests, state = lab.digests(), json.loads(lab.blob(lab.checkpoints()[0], "state.json").read_text())
    assert state["loader"]["shift"] == diverged + 1 - resumed

    shutil.rmtree(lab.root / "store")
    shutil.copytree(lab.root / "kept", lab.root / "store")
    shutil.rmtree(lab.root / "attempts" / spec.attempt_id)
    killed = lab.start(spec, hold_at=resumed + 8)
    killed.until_held(resumed + 8)
    killed.signal(signal.SIGKILL)
    killed.wait()
    again = lab.spec(calm, epoch=4, setbacks=[Setback(3, resumed)])
    assert again.data_step is None
    lab.run(again)
    assert lab.digests()["model.safetensors"] == digests["model.safetensors"]
    assert lab.digests()["optimizer.safetensors"] == digests["optimizer.safetensors"]


def test_the_damaged_checkpoint_of_a_branch_is_replaced_by_no_other(lab: Lab) -> None:
    parent = lab.start(lab.spec({"checkpoint": {"every_steps": 2}}), hold_at=6)
    parent.until_held(6, lambda: len(lab.checkpoints()) >= 2)
    parent.signal(signal.SIGTERM)
    parent.wait()
    chosen = lab.spec(epoch=2).resume
    damaged = lab.blob(lab.checkpoints()[0], "model.safetensors")
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    branch = lab.spec(epoch=1, resume=False).model_copy(
        update={
            "run_id": "branch0123", "attempt_id": "branch0123-pretrain-1", "resume": chosen,
            "output_prefix": "projects/default/runs/branch0123/pretrain/",
        }
    )  # fmt: skip
    attempt = lab.start(branch)
    assert attempt.wait() == [ExitCode.BAD_DATA]
    assert "that this run was branched from is damaged" in last_line(attempt.log())


@pytest.mark.parametrize(
    ("parallel", "said"),
    [
        ({"vpp": 4}, r"parallel\.vpp: 4 chunks a rank need a pipeline"),
        ({"ep": 8}, r"parallel\.ep: 8 does not divide the 1 ranks"),
    ],
)
def test_parallelism_that_cannot_be_laid_out_is_refused_with_the_recipe(
    lab: Lab, parallel: dict[str, int], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        lab.spec({"parallel": parallel, "resources": {"pool": "h800", "ranks": 1}})


def test_a_full_disk_stops_the_stage_before_it_is_full(lab: Lab) -> None:
    attempt = lab.start(lab.spec({"checkpoint": {"min_free_bytes": 1 << 60}}))
    assert attempt.wait() == [ExitCode.USER_ERROR]
    assert "GiB free" in last_line(attempt.log())
    assert "Free some space" in last_line(attempt.log())
    assert attempt.step() <= 0, "before any work is lost"


def test_a_checkpoint_of_another_model_is_refused_with_a_sentence(lab: Lab) -> None:
    attempt = lab.start(lab.spec(), hold_at=6)
    attempt.until_held(6, lab.checkpoints)
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
    attempt = lab.start(lab.spec(), hold_at=0)
    attempt.until_held(0)  # signals are heard, torch is still to be imported
    attempt.signal(signal.SIGTERM)
    assert attempt.wait() == [ExitCode.PREEMPTED]
    assert lab.checkpoints() == []
    assert "nothing new to save" in last_line(attempt.log())


YARN = {"factor": 4.0, "original_max_position": 32}


def test_annealing_at_a_longer_context_resumes_in_the_middle_of_it(lab: Lab) -> None:
    """Length, sequences, rate and YaRN all change with the phase."""
    phase = {"tokens": 4096, "end_lr_ratio": 0.05, "sequence_length": 64, "sequences": 2, "yarn": YARN}
    changes = {
        "schedule": {"tokens": 4096, "anneal": [phase]},
        "checkpoint": {"every_steps": 3},
        "model": {"max_position": 128},
    }
    attempt = lab.start(lab.spec(changes), hold_at=21)
    attempt.until_held(21, lambda: lab.checkpoints() and (lab.checkpoints()[0].step or 0) > 16)
    attempt.signal(signal.SIGKILL)
    attempt.wait()
    resumed = lab.run(lab.spec(changes, epoch=2))
    after = lab.digests()
    alone = lab.run(lab.spec(changes, epoch=3, resume=False))
    assert lab.digests(next(m for m in lab.checkpoints() if m.epoch == 3)) == after
    assert alone.points()["train/lr"][48] == pytest.approx(2e-3 * 0.05)
    assert max(alone.points()["train/lr"]) == 48, "16 steps of 8 x 32 tokens, 32 of 2 x 64"
    assert "resumed from step" in resumed.log()
    assert "anneal-1: positions turn by YaRN, factor 4" in alone.log()


def test_a_checkpoint_says_which_positions_its_weights_were_trained_with(lab: Lab) -> None:
    phase = {"tokens": 2048, "sequence_length": 64, "yarn": YARN}
    lab.run(
        lab.spec(
            {"schedule": {"tokens": 4096, "anneal": [phase]}, "checkpoint": {"every_steps": 16, "keep_every_steps": 16}}
        )
    )
    tables = {
        m.step: json.loads(lab.blob(m, "state.json").read_text())["config"]["model"]["yarn"] for m in lab.checkpoints()
    }
    assert tables[16] is None, "before the first step of the phase"
    assert {key: tables[24][key] for key in YARN} == YARN


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
