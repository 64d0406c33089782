"""The rl stage as a process: what it makes, that the reward rises, and that no death costs a trajectory or a bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rl_lab import RlLab, kill_at_random_points, make_policy

from abruzzi.client.stage import Reporter, StageContext, exit_code_of
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.states import ArtifactKind, ExitCode
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.rl.controller.stage import Reinforcement

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def lab(tmp_path: Path, policy: Path) -> RlLab:
    return RlLab(tmp_path, made=policy)


def test_the_reward_of_a_policy_that_knew_nothing_rises(lab: RlLab) -> None:
    changes = {"iterations": 24, "groups_per_iteration": 8, "held_out": {"every_iterations": 12}}
    attempt = lab.run(lab.reinforcing({"rl": changes, "checkpoint": {"every_steps": 100}}))
    points = attempt.points()
    rewards = points["rl/reward"]
    assert max(rewards[step] for step in range(15, 25)) > rewards[1] + 0.4, attempt.log()
    assert sorted(points["rl/held_out_reward"]) == [0, 12, 24]
    causes = [key for key in points if key.startswith("time/") and key != "time/iteration"]
    for step, wall in points["time/iteration"].items():
        assert sum(points[key][step] for key in causes) == pytest.approx(wall, abs=1e-4)
    assert max(points["rl/mismatch_kl"].values()) < 1e-9, "engine and trainer compute alike"
    rows = lab.rollouts()
    assert len(rows) == 24 * 8 * 4
    assert {row["fate"] for row in rows} == {"kept", "budget"}
    last = rows[-1]
    assert [segment["source"] for segment in last["segments"]] == ["prompt", "policy"]
    assert (last["iteration"], last["versions"], last["environment"]) == (24, [23], "rl_lab:Digits@1")
    assert lab.output(ArtifactKind.TOKENIZER).files[0].path == "chat_template.json"


def test_killed_at_random_points_it_loses_no_trajectory_trains_on_none_twice_and_ends_with_the_same_bits(
    tmp_path: Path, policy: Path
) -> None:
    found = kill_at_random_points(tmp_path, policy, kills=2, seed=1)
    assert found.kills == 2
    assert (found.lost, found.trained_twice) == (0, 0)
    assert found.ends_alike


@pytest.mark.prove
def test_two_hundred_times(tmp_path: Path, policy: Path) -> None:
    found = kill_at_random_points(tmp_path, policy, kills=200, seed=2)
    assert (found.kills, found.lost, found.trained_twice, found.ends_alike) == (200, 0, 0, True), found


def test_told_to_stop_in_a_rollout_it_keeps_partials_and_ends_with_143(lab: RlLab) -> None:
    # One group fits at a time. All six stand at three of their four tokens before the first goes on; when three are whole, the last stands there still.
    table = {"iterations": 4, "groups_per_iteration": 3, "over_provision": 2.0, "concurrency": 4, "iteration_tokens": 3}
    changes = {"rl": {**table, "budget": {"tokens": 4}}}
    attempt = lab.start(lab.reinforcing(changes), hold_at=1)
    attempt.until_held(1)
    attempt.signal(signal.SIGTERM)
    assert attempt.wait() == [ExitCode.PREEMPTED], attempt.log()
    assert "Told to stop" in attempt.log()
    assert [checkpoint.step for checkpoint in lab.checkpoints()] == [1]
    lab.run(lab.reinforcing(changes, epoch=2))
    rows = lab.rollouts()
    names = [row["id"] for row in rows]
    assert len(names) == len(set(names)) >= 4 * 3 * 4
    assert any(len(row["versions"]) > 1 for row in rows), "begun by one policy, ended by a later one"


def test_only_tasks_that_were_tried_and_found_to_be_of_the_wanted_difficulty_are_played(lab: RlLab) -> None:
    band = {"candidates": 6, "attempts": 2, "k": 1, "low": 0.0, "high": 1.0}
    changes = {"iterations": 1, "held_out": {"every_iterations": 0}, "difficulty": band}
    spec = lab.reinforcing({"rl": changes})
    attempt = lab.run(spec)
    assert "6 of 6 tasks have a pass@1" in attempt.log()
    assert attempt.points()["rl/difficulty_kept"] == {0: 1.0}
    lots = [json.loads(lab.store.get(key)) for key in lab.store.list(f"{spec.output_prefix}rl/difficulty/")]
    assert {row["task"] for row in lab.rollouts()} <= {tried["task"]["id"] for lot in lots for tried in lot}


BAD: dict[str, tuple[dict[str, Any], str, ExitCode]] = {
    "an environment that is not there": (
        {"rl": {"environments": [{"name": "arithmetics"}]}}, "no environment 'arithmetics'.*arithmetic", ExitCode.USER_ERROR,
    ),
    "a family that it does not have": (
        {"rl": {"environments": [{"name": "arithmetic", "families": ["additon"]}]}}, "no family 'additon'.*addition", ExitCode.USER_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence", "code"), BAD.values(), ids=list(BAD))
async def test_what_cannot_be_done_is_said_before_anything_is_played(
    lab: RlLab, changes: dict[str, Any], sentence: str, code: ExitCode
) -> None:
    spec = lab.reinforcing(changes)
    context = StageContext(spec, 0, 1, lab.root / "attempt", lab.store)
    stage = RlStage.model_validate(spec.config)
    alone = Ranks(0, 1, torch.device("cpu"))
    with pytest.raises(AbruzziError, match=sentence) as caught:
        await Reinforcement(context, Reporter.from_context(context), stage, alone).run()
    assert exit_code_of(caught.value) == code
