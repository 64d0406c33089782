"""Silent corruption: a step that is computed twice comes out the same, or nothing of it is used; and weights rest between updates, or none follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_lab import Lab

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ExitCode
from abruzzi_jobs.train.replay import fingerprint, refuse_difference

CORRUPTING_STAGE = Path(__file__).parents[3] / "corrupting_stage.py"
FLIPPING_STAGE = Path(__file__).parents[3] / "flipping_stage.py"
REPLAYED = {"telemetry": {"replay_every_steps": 3}}
GRADIENTS = {
    "embed": torch.from_numpy(np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)),
    "layers.0.experts": torch.zeros(4, 8, 8),
}


@given(st.sampled_from(sorted(GRADIENTS)), st.integers(0, 127), st.integers(0, 31))
def test_any_flipped_bit_of_any_gradient_is_seen_and_named(name: str, element: int, bit: int) -> None:
    flipped = {key: tensor.clone() for key, tensor in GRADIENTS.items()}
    flipped[name].view(-1)[element : element + 1].view(torch.int32).bitwise_xor_(-(1 << 31) if bit == 31 else 1 << bit)
    with pytest.raises(AbruzziError, match=f"the gradients of {name} differ") as caught:
        refuse_difference(7, fingerprint(GRADIENTS), fingerprint(flipped))
    assert caught.value.code == "corruption"


def test_the_same_gradients_are_no_corruption_not_even_where_they_are_no_numbers() -> None:
    nothing = {"embed": torch.full((2,), torch.nan)}
    for one in (GRADIENTS, nothing, {}):
        again = fingerprint({key: tensor.clone() for key, tensor in one.items()})
        assert again == fingerprint(one)
        refuse_difference(7, fingerprint(one), again)


def test_norms_of_devices_that_add_in_no_fixed_order_may_differ_by_a_thousandth() -> None:
    refuse_difference(7, {"embed": 1.0}, {"embed": 1.0005})
    with pytest.raises(AbruzziError):
        refuse_difference(7, {"embed": 1.0}, {"embed": 1.002})


@pytest.mark.slow
def test_a_corrupted_step_ends_the_attempt_before_the_weights_and_the_next_one_ends_as_if_there_had_been_none(
    tmp_path: Path,
) -> None:
    undisturbed = Lab(tmp_path / "undisturbed")
    undisturbed.run(undisturbed.spec())
    lab = Lab(tmp_path / "corrupted", dataset=tmp_path / "undisturbed" / "dataset")
    # Steps 2, 5 and 8 are computed twice: pass 10 is the first of step 8.
    attempt = lab.start(
        lab.spec(REPLAYED), program=CORRUPTING_STAGE, environment={"CORRUPT_AT": "10", "NODE_NAME": "gpu-7"}
    )
    assert attempt.wait() == [ExitCode.TRY_AGAIN], attempt.log()
    assert "Step 8: computed twice" in attempt.log()
    assert "gpu-7 is suspected of silent corruption" in attempt.log()
    assert lab.checkpoints()[0].step == 5
    lab.run(lab.spec(REPLAYED, epoch=2))
    assert lab.digests()["model.safetensors"] == undisturbed.digests()["model.safetensors"]
    assert lab.digests()["optimizer.safetensors"] == undisturbed.digests()["optimizer.safetensors"]


@pytest.mark.slow
def test_without_replay_the_same_flipped_bit_goes_unseen_into_the_weights(tmp_path: Path) -> None:
    undisturbed = Lab(tmp_path / "undisturbed")
    undisturbed.run(undisturbed.spec())
    lab = Lab(tmp_path / "corrupted", dataset=tmp_path / "undisturbed" / "dataset")
    attempt = lab.start(lab.spec(), program=CORRUPTING_STAGE, environment={"CORRUPT_AT": "9"})
    assert attempt.wait() == [0], attempt.log()
    assert lab.digests()["model.safetensors"] != undisturbed.digests()["model.safetensors"]


@pytest.mark.slow
def test_pipeline_and_expert_ranks_replay_steps_and_end_with_the_same_bits(tmp_path: Path) -> None:
    parallel = {
        "model": {"num_layers": 4},
        "parallel": {"pp": 2, "ep": 2},
        "resources": {"ranks": 4},
        "schedule": {"tokens": 8 * 256},
    }
    plain = Lab(tmp_path / "plain")
    plain.run(plain.spec(parallel))
    lab = Lab(tmp_path / "replayed", dataset=tmp_path / "plain" / "dataset")
    lab.run(lab.spec({**parallel, **REPLAYED}))
    weights = {file: digest for file, digest in lab.digests().items() if file.startswith("model-")}
    assert len(weights) == 4, "each rank's own"
    assert weights == {file: digest for file, digest in plain.digests().items() if file in weights}


def flipped(after: int, *, rank: int = 0, **more: str) -> dict[str, str]:
    return {"FLIP_AFTER": str(after), "FLIP_RANK": str(rank), "NODE_NAME": "gpu-7", **more}


@pytest.mark.slow
def test_a_bit_that_flips_in_a_weight_before_a_checkpoint_is_in_none_and_the_next_attempt_ends_as_if_it_never_had(
    undisturbed: dict[int, Lab], dataset_folder: Path, tmp_path: Path
) -> None:
    lab = Lab(tmp_path, dataset=dataset_folder)
    attempt = lab.start(lab.spec(REPLAYED), program=FLIPPING_STAGE, environment=flipped(10))
    assert attempt.wait() == [ExitCode.TRY_AGAIN], attempt.log()
    assert "flips a bit" in attempt.log()
    assert "q_a_proj.weight (model) of rank 0. gpu-7 is suspected of silent corruption" in attempt.log()
    assert [checkpoint.step for checkpoint in lab.checkpoints()] == [5], "not that of step 10"
    lab.run(lab.spec(REPLAYED, epoch=2))
    assert lab.digests()["model.safetensors"] == undisturbed[1].digests()["model.safetensors"]
    assert lab.digests()["optimizer.safetensors"] == undisturbed[1].digests()["optimizer.safetensors"]


@pytest.mark.slow
def test_a_bit_that_flips_on_a_rank_of_a_pipeline_between_replays_is_named_by_that_rank_before_the_next_update(
    lab: Lab,
) -> None:
    pipeline = {"model": {"num_layers": 4}, "parallel": {"pp": 2}, "resources": {"ranks": 2}}
    attempt = lab.start(lab.spec({**REPLAYED, **pipeline}), program=FLIPPING_STAGE, environment=flipped(6, rank=1))
    assert attempt.wait()[1] == ExitCode.TRY_AGAIN, attempt.log(1)
    assert "suspected" not in attempt.log(), "the other rank has lost a neighbour, and ends after it"
    assert "Step 6: changed since the last update" in attempt.log(1)
    assert "q_a_proj.weight (model) of rank 1. gpu-7 is suspected" in attempt.log(1)


@pytest.mark.slow
def test_an_update_that_came_out_different_on_one_of_two_data_parallel_ranks_is_found_before_it_is_saved(
    lab: Lab,
) -> None:
    attempt = lab.start(
        lab.spec({**REPLAYED, "resources": {"ranks": 2}}), program=FLIPPING_STAGE,
        environment=flipped(4, rank=1, FLIP_WHILE="updating"),
    )  # fmt: skip
    assert attempt.wait() == [ExitCode.TRY_AGAIN] * 2, attempt.log()
    assert "ranks 0 on gpu-7, 1 on gpu-7 do not hold the same" in attempt.log()
    assert lab.checkpoints() == []
