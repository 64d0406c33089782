"""Stages of one machine with real processes: those that do not fit wait, say why, and begin when others end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_bench import WAITS_FOR_FILE, Bench, open_bench

from abruzzi.contracts.pool import Capacity
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.stage import StageSpec
from abruzzi.engine.view import Phase


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Two processors, one for each stage."""
    with open_bench(tmp_path) as bench:
        bench.capacity = Capacity(cpus=2.0, memory=1 << 30, share=1.0)
        bench.renew()
        yield bench


def started(bench: Bench, specs: list[StageSpec]) -> list[bool]:
    return [(bench.directory(spec) / "launches.json").exists() for spec in specs]


async def test_the_third_waits_says_for_whom_and_runs_when_one_ends_also_under_another_executor(bench: Bench) -> None:
    specs = [bench.spec(WAITS_FOR_FILE) for _ in range(4)]
    for spec in specs:
        await bench.executor.create(spec)
    for spec in specs[:2]:
        await bench.until_printed(spec, "ready")
    seen = [await bench.look(spec) for spec in specs]
    assert [s.phase for s in seen] == [Phase.RUNNING, Phase.RUNNING, Phase.PENDING, Phase.PENDING]
    assert [s.waits_for for s in seen] == [None, None, Reason.WAITS_FOR_CPUS, Reason.WAITS_FOR_CPUS]
    assert seen[2].reason == (
        "It waits for processors: 2 of 2 are in use by stage 'work' of run 0123456789 and stage 'work' of run 0123456789. It asks for 1."
    )
    assert seen[3].reason is not None
    assert "1 is ahead of it" in seen[3].reason
    assert started(bench, specs) == [True, True, False, False]
    (bench.directory(specs[1]) / "go").touch()
    assert (await bench.until_exited(specs[1])).exit_code == 0
    bench.renew()  # this one repeats what it saw less than LOOK_AGAIN_SECONDS ago
    await bench.look(specs[3])  # whoever looks gives the turn to whose it is
    await bench.until_printed(specs[2], "ready")
    assert started(bench, specs) == [True, True, True, False]
    assert (await bench.look(specs[2])).reason is None


async def test_what_is_stopped_while_it_waits_ends_at_once_and_nothing_of_it_was_started(bench: Bench) -> None:
    specs = [bench.spec(WAITS_FOR_FILE) for _ in range(3)]
    for spec in specs:
        await bench.executor.create(spec)
    await bench.executor.stop(specs[2].attempt_id, grace_seconds=60)
    seen = await bench.look(specs[2])
    assert (seen.phase, seen.exit_code, seen.reason) == (Phase.EXITED, 143, "Stopped while it waited for its turn.")
    await bench.executor.remove(specs[2].attempt_id)
    assert started(bench, specs) == [True, True, False]
    assert sorted(await bench.executor.list_attempts()) == [specs[0].attempt_id, specs[1].attempt_id]


async def test_executors_that_race_for_one_turn_give_it_once(bench: Bench) -> None:
    bench.capacity = Capacity(cpus=1.0, memory=1 << 30, share=1.0)
    executors = []
    for _ in range(3):
        bench.renew()
        executors.append(bench.executor)
    specs = [bench.spec(WAITS_FOR_FILE) for _ in range(6)]
    await asyncio.gather(*(executors[n % 3].create(spec) for n, spec in enumerate(specs)))
    turns = [spec for spec in specs if (bench.directory(spec) / "turn.json").exists()]
    assert len(turns) == 1
    assert sum(started(bench, specs)) == 1


async def test_threads_that_a_recipe_names_count_and_one_larger_than_the_machine_runs_alone(bench: Bench) -> None:
    small = bench.spec(WAITS_FOR_FILE)
    config = json.loads(json.dumps(small.config)) | {"resources": {"threads": 8}}
    large, last = bench.spec(WAITS_FOR_FILE).model_copy(update={"config": config}), bench.spec(WAITS_FOR_FILE)
    for spec in (small, large, last):
        await bench.executor.create(spec)
    assert started(bench, [small, large, last]) == [True, False, False]
    seen = await bench.look(large)
    assert seen.reason is not None
    assert "It asks for 8." in seen.reason
    await bench.until_printed(small, "ready")
    (bench.directory(small) / "go").touch()
    await bench.until_exited(small)
    bench.renew()  # this one repeats what it saw less than LOOK_AGAIN_SECONDS ago
    await bench.look(last)
    await bench.until_printed(large, "ready")
    assert started(bench, [small, large, last]) == [True, True, False]
