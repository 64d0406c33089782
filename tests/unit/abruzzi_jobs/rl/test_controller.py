"""The loop: its order, what it keeps through any death, where its time goes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_rl import Killed, World, attempt, config

from abruzzi.client.stage import Preempted
from abruzzi_jobs.rl.controller.cycle import ORDER, Phase, Position, next_position
from abruzzi_jobs.rl.controller.ledger import Cause, TimeLedger


def test_an_iteration_plays_scores_trains_and_hands_the_weights_over_before_the_next_begins() -> None:
    position, seen = Position(4), []
    while position.iteration == 4:
        seen.append(position.name)
        position = next_position(position, minibatches=2)
    assert seen == [
        "00-rollout", "01-collect", "02-score", "03-switch_to_training", "04-step-000", "04-step-001", "05-register",
        "06-switch_to_inference", "07-update", "08-verify",
    ]  # fmt: skip
    assert position == Position(5)
    assert seen == sorted(seen), "names sort as the phases do"


def test_each_trajectory_is_trained_on_once_and_every_transition_is_in_the_journal(tmp_path: Path) -> None:
    world = World(tmp_path)
    asyncio.run(attempt(world, config()))
    trained = [name for _, _, names in world.trained for name in names]
    assert len(trained) == len(set(trained)) == 4 * 2 * 2
    noted = world.journal.noted(3)
    assert [name.partition("-")[2] for name in noted if "step" not in name] == [
        p.value for p in ORDER if p is not Phase.STEP
    ]
    assert noted["05-register"]["checksum"] == world.checkpoints[4]


def test_seconds_by_cause_sum_to_the_wall_time_of_the_iteration(tmp_path: Path) -> None:
    world = World(tmp_path)
    asyncio.run(attempt(world, config()))
    for metrics in world.reports.values():
        causes = {key: value for key, value in metrics.items() if key.startswith("time/") and key != "time/iteration"}
        assert sum(causes.values()) == pytest.approx(metrics["time/iteration"])
        assert (causes["time/train"], causes["time/score"], causes["time/switch"]) == (6.0, 1.0, 2.0)
        assert [causes[f"time/{cause}"] for cause in ("infer", "environment", "idle")] == [1.25, 0.5, 0.25]


@given(
    deaths=st.lists(st.integers(0, 60), max_size=8),
    every=st.integers(1, 5),
    minibatches=st.integers(1, 2),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_killed_anywhere_any_number_of_times_nothing_is_lost_or_trained_twice(
    tmp_path_factory: pytest.TempPathFactory, deaths: list[int], every: int, minibatches: int
) -> None:
    world = World(tmp_path_factory.mktemp("world"), deaths=deaths)
    weights = ""
    while not weights:
        try:
            weights = asyncio.run(attempt(world, config(minibatches=minibatches), save_every=every))
        except Killed:
            continue
    by_trajectory: dict[str, set[tuple[int, str]]] = {}
    for version, before, names in world.trained:
        for name in names:
            by_trajectory.setdefault(name, set()).add((version, before))
    assert len(by_trajectory) == 16, "all that were collected"
    assert {len(places) for places in by_trajectory.values()} == {1}, (
        "again only from the same weights: the step that was lost"
    )
    replayed = "w0"
    for version in range(4):
        replayed = world.journal.noted(version)["05-register"]["checksum"]
    assert replayed == weights, "to the same bits as the attempt that noted them"


@pytest.mark.parametrize("place", ["1/rollout", "1/score", "1/switch_to_training", "1/step", "1/verify"])
def test_told_to_stop_it_saves_and_the_next_attempt_comes_to_the_same_end(tmp_path: Path, place: str) -> None:
    world = World(tmp_path, stop_at=place)
    with pytest.raises(Preempted, match="Told to stop"):
        asyncio.run(attempt(world, config(), save_every=100))
    begun = place.endswith(("switch_to_training", "step", "verify"))
    assert max(world.checkpoints) == (2 if begun else 1), "an iteration whose weights change is brought to its end"
    world.stop_at = ""
    weights = asyncio.run(attempt(world, config(), save_every=100))
    trained = [name for _, _, names in world.trained for name in names]
    assert len(trained) == len(set(trained)) == 16
    assert world.checkpoints[4] == weights


def test_weights_that_come_out_otherwise_than_an_attempt_before_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    world.journal.note(Position(0, ORDER.index(Phase.REGISTER)), {"checksum": "other"})
    with caplog.at_level(logging.WARNING):
        asyncio.run(attempt(world, config(iterations=1)))
    assert "iteration 1 was trained again to other bits" in caplog.text


def test_a_damaged_record_of_outcomes_is_scored_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    asyncio.run(attempt(world, config()))
    found = world.journal.outcomes(2)
    key = "p/journal/it-000002/scored.zst"
    world.store.put(key, world.store.get(key)[:-3])
    assert world.journal.outcomes(2) is None
    world.checkpoints = {2: world.checkpoints[3]}
    asyncio.run(attempt(world, config(iterations=3)))
    assert world.journal.outcomes(2) == found


def test_held_out_tasks_are_answered_before_now_and_then_and_after(tmp_path: Path) -> None:
    world = World(tmp_path)
    rl = config(held_out={"every_iterations": 3, "tasks": 5})
    asyncio.run(attempt(world, rl))
    assert [step for step, metrics in world.reports.items() if "rl/held_out_reward" in metrics] == [0, 3, 4]


def test_a_ledger_moves_no_more_than_there_is() -> None:
    now = [0.0]
    ledger = TimeLedger(clock=lambda: now[0])
    with ledger.of(Cause.INFER):
        now[0] += 2.0
        with ledger.of(Cause.SAVE):
            now[0] += 1.0
    now[0] += 4.0
    ledger.move(5.0, Cause.INFER, Cause.ENVIRONMENT)
    seconds, wall = ledger.take()
    assert wall == sum(seconds.values()) == 7.0
    assert (seconds[Cause.INFER], seconds[Cause.ENVIRONMENT], seconds[Cause.SAVE], seconds[Cause.IDLE]) == (
        0.0,
        2.0,
        1.0,
        4.0,
    )
