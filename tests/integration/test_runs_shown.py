"""A run that only queues is said to be pending, by its page, the list, its filter, its order and `why`. (The CLI: test_pool_queue.py.)"""

from __future__ import annotations

import itertools

from sqlalchemy import update

from abruzzi.contracts.states import AttemptState, RunState, StageState
from abruzzi.engine.view import Phase, Seen
from abruzzi.kit.db import transaction
from abruzzi.runs.listing import Sort, list_runs
from abruzzi.runs.models import AttemptRow
from abruzzi.runs.why import why

PAIR = "version = 1\nname = 'pair'\n" + "".join(
    f"[[stage]]\nid = '{name}'\nkind = 'container'\n[stage.container]\ncommand = ['true']\n" for name in ("one", "two")
)
QUEUED = Seen(Phase.PENDING, reason="It waits in queue 'h800'.")


async def listed(world, **how):
    async with transaction(world.sessions) as session:
        return [run for run, _ in await list_runs(session, now=world.clock.now(), limit=100, **how)]


async def test_a_queued_run_is_pending_until_it_runs(world):
    world.born = QUEUED
    run_id = await world.submit()
    await world.steps(run_id)
    world.clock.turn(1)
    await world.steps(run_id)
    run = await world.get(run_id)
    assert (run.state, run.detail[0].state) == (RunState.PENDING, StageState.PENDING)
    [summary] = await listed(world, states=["pending"])
    assert (summary.state, summary.stages[0]["state"]) == ("pending", "pending")
    assert await listed(world, states=["running"]) == []
    assert (await world.do(why, run_id)).state == "pending"

    world.seen[f"{run_id}-first-1"] = Seen(Phase.RUNNING)
    world.clock.turn(1)
    await world.steps(run_id)
    run = await world.get(run_id)
    assert (run.state, run.detail[0].state) == (RunState.RUNNING, StageState.RUNNING)
    [summary] = await listed(world, states=["running"])
    assert (summary.state, summary.stages[0]["state"]) == ("running", "running")
    assert await listed(world, states=["pending"]) == []


LIVES = [
    (AttemptState.CREATED, None), (AttemptState.STARTING, "No node takes it."), (AttemptState.RUNNING, "It is out of sight.")
]  # fmt: skip


async def test_the_list_filters_and_sorts_by_what_it_shows_whatever_a_runs_stages_do(world):
    for lives in itertools.product(LIVES, repeat=2):
        run_id = await world.submit(PAIR)
        await world.steps(run_id)
        async with transaction(world.sessions) as session:
            for stage, (state, reason) in zip(("one", "two"), lives, strict=True):
                change = update(AttemptRow).where(AttemptRow.id == f"{run_id}-{stage}-1")
                await session.execute(change.values(state=state, reason=reason))
    await world.submit(PAIR)  # nobody has looked at it
    shown = {run.id: run.state for run in await listed(world)}
    assert len(shown) == len(LIVES) ** 2 + 1
    assert {run_id: (await world.get(run_id)).state for run_id in shown} == shown
    pending = {run.id for run in await listed(world, states=["pending"])}
    assert pending == {run_id for run_id, state in shown.items() if state is RunState.PENDING}
    assert len(pending) == 2, "the one whose stages both wait, and the one that nobody has looked at"
    assert {run.id for run in await listed(world, states=["running"])} == shown.keys() - pending
    states = [run.state for run in await listed(world, sort=Sort.STATE, descending=False)]
    assert states == sorted(states)
