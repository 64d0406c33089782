"""The rl stage with agents that are programs: what they ask by OpenAI's client is trained on, token for token, and the reward rises."""

from __future__ import annotations

from pathlib import Path

import pytest
from rl_lab import RlLab, make_policy

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(tmp_path: Path) -> RlLab:
    (tmp_path / "policy").mkdir()
    return RlLab(tmp_path, made=make_policy(tmp_path / "policy"))


@pytest.mark.parametrize("iterations", [2, pytest.param(24, marks=pytest.mark.prove)])
def test_agents_that_only_know_a_base_url_are_trained(lab: RlLab, iterations: int) -> None:
    changes = {
        "environments": [{"name": "agent_gym:DigitsByAgent"}],
        "iterations": iterations,
        "groups_per_iteration": 8 if iterations > 2 else 2,
        "held_out": {"every_iterations": 0},
    }
    attempt = lab.run(lab.reinforcing({"rl": changes, "checkpoint": {"every_steps": 100}}))
    points = attempt.points()
    assert max(points["rl/mismatch_kl"].values()) < 1e-9, "engine and trainer compute alike"
    rows = lab.rollouts()
    assert len(rows) == iterations * changes["groups_per_iteration"] * 4
    assert {row["environment"] for row in rows} == {"agent_gym:DigitsByAgent@1"}
    assert {row["fate"] for row in rows} <= {"kept", "budget"}
    if iterations > 2:
        rewards = points["rl/reward"]
        assert max(rewards[step] for step in range(15, 25)) > rewards[1] + 0.3, attempt.log()
