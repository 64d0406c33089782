"""The rl stage on a real Ray of this machine. Its shortened twin, without Ray, is test_rl_actors.py."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from rl_lab import RlLab, make_policy
from training_lab import Ranks

from abruzzi.contracts.states import ArtifactKind

pytestmark = [pytest.mark.slow, pytest.mark.prove, pytest.mark.timeout(3000)]

TABLE: dict[str, Any] = {
    "rl": {"iterations": 6, "groups_per_iteration": 4, "budget": {"tokens": 32}},
    "checkpoint": {"every_steps": 1},
}
ON_RAY: dict[str, Any] = {**TABLE, "resources": {"framework": "ray", "threads": 1}}
ACTOR = b"ray::Hosted"
"""Of the title that Ray gives an actor's process."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    lab = RlLab(tmp_path_factory.mktemp("one-process"), made=policy)
    lab.run(lab.reinforcing(TABLE))
    return results(lab)


def results(lab: RlLab) -> tuple[dict[str, str], list[dict[str, Any]]]:
    tensors = {name: digest for name, digest in lab.digests().items() if name.endswith(".safetensors")}
    return tensors, lab.rollouts()


def on_ray(lab: RlLab, *, replicas: int, epoch: int = 1) -> Any:
    """One process of the launcher's, as rank 0 of the stage; the other ranks are places."""
    changes = {**ON_RAY, "resources": {**ON_RAY["resources"], "ranks": replicas}}
    return lab.reinforcing(changes, epoch=epoch)


def actors_of(attempt: Ranks) -> list[int]:
    """Processes of actors below the stage's: its descendants with the title of one."""
    parents: dict[int, int] = {}
    titles: dict[int, bytes] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                titles[int(entry.name)] = (entry / "cmdline").read_bytes()
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
    root = attempt.processes[0].pid

    def is_below(pid: int) -> bool:
        while pid in parents:
            if pid == root:
                return True
            pid = parents[pid]
        return False

    return sorted(pid for pid, title in titles.items() if title.startswith(ACTOR) and is_below(pid))


@pytest.mark.parametrize("replicas", [1, 2])
def test_on_ray_it_comes_to_the_bits_of_one_process(
    tmp_path: Path, policy: Path, expected: tuple[dict[str, str], list[dict[str, Any]]], replicas: int
) -> None:
    lab = RlLab(tmp_path, made=policy)
    attempt = lab.run(on_ray(lab, replicas=replicas))
    print(attempt.log())
    assert results(lab) == expected
    assert "inference replicas on 1 nodes" in attempt.log()


@pytest.mark.parametrize("seed", range(3))
def test_actors_killed_at_random_points_cost_no_trajectory_and_no_bit(
    tmp_path: Path, policy: Path, expected: tuple[dict[str, str], list[dict[str, Any]]], seed: int
) -> None:
    """SIGKILL to any of trainer, two replicas and two workers, three times, whenever the loop has gone on by a phase or two."""
    draw, lab = random.Random(seed), RlLab(tmp_path, made=policy)
    attempt, killed = lab.start(on_ray(lab, replicas=2)), 0
    attempt.until(lambda: attempt.phase() == "rollout")
    for step in (0, 2, 4):
        attempt.until(lambda step=step: attempt.step() >= step)
        alive = actors_of(attempt)
        os.kill(draw.choice(alive), signal.SIGKILL)
        killed += 1
    assert attempt.wait() == [0] * len(attempt.processes), attempt.log()
    print(attempt.log())
    assert killed == 3
    assert results(lab) == expected
    names = [row["id"] for row in lab.rollouts()]
    assert len(names) == len(set(names)) == 6 * 4 * 4


def test_the_stage_itself_killed_goes_on_in_another_attempt(
    tmp_path: Path, policy: Path, expected: tuple[dict[str, str], list[dict[str, Any]]]
) -> None:
    lab = RlLab(tmp_path, made=policy)
    attempt = lab.start(on_ray(lab, replicas=2))
    attempt.until(lambda: attempt.step() >= 3)
    attempt.signal(signal.SIGKILL, rank=0)
    attempt.wait()
    lab.run(on_ray(lab, replicas=2, epoch=2))
    assert results(lab) == expected
    assert lab.output(ArtifactKind.TOKENIZER).epoch == 2
