"""A row is played again from itself: the same answers, states and verdicts, and whatever was changed in it is found."""

from __future__ import annotations

import copy
import random

import pytest
import trajectory_lab as lab
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.synthesis import FaultRates
from abruzzi_jobs.synthesis.trajectories.engine import Machine
from abruzzi_jobs.synthesis.trajectories.programs import PYTHON_TOOL, Programs
from abruzzi_jobs.synthesis.trajectories.replay import replay
from abruzzi_jobs.synthesis.trajectories.servers import is_deterministic
from abruzzi_jobs.synthesis.world import World, sample_call

FAULTS = FaultRates(unavailable=0.1, rate_limited=0.1, lost_answer=0.1, partial=0.1)


def known(*tools):
    return {(tool.source, tool.name): tool for tool in tools}


def lines_of(tools, seed: int) -> list:
    """Calls as an agent of this seed might make them: some fit the world, some are wrong, some come side by side."""
    draw = random.Random(f"lines/{seed}")
    world = World(tools[0].simulation.state, seed=seed)
    made = []
    for number in range(draw.randint(1, 6)):
        tool = draw.choice(tools)
        good = lab.use(tool.name, sample_call(world, tool, number) or {})
        made.append(draw.choice([good, good, lab.use(tool.name, "{"), lab.use("no_such"), [good, lab.use(tool.name)]]))
    world.close()
    return [*made, "Done."]


async def made(seed: int, **settings) -> tuple[dict, dict]:
    tools = lab.world_tools(seed % 7)
    engine = lab.engine(lab.Lines(*lines_of(tools, seed)), **settings)
    (row,) = await lab.rows_of(engine, [lab.planned(seed, tools, faults=FAULTS)])
    return row, known(*tools)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), max_turns=st.integers(1, 8))
async def test_every_seed_replays(seed, max_turns):
    row, tools = await made(seed, max_turns=max_turns, max_calls=2)
    outcome = await replay(row, tools, Machine(), is_deterministic)
    assert outcome.same, outcome
    assert outcome.calls == len(row["calls"])


@pytest.mark.parametrize("what", ["answer", "changes", "digest", "row", "verdict", "message", "seed", "ended_by"])
async def test_what_was_changed_in_a_row_is_found(what):
    row, tools = await made(5)
    row = copy.deepcopy(row)
    assert row["calls"], "there is something to change"
    if what == "answer":
        row["calls"][0]["answer"] = {"ok": True}
    elif what == "changes":
        row["calls"][0]["changes"] = [{"entity": "thing", "id": 1, "before": None, "after": None}]
    elif what == "digest":
        row["world"]["digest_after"] = "sha256:0"
    elif what == "row":
        next(iter(row["world"]["after"].values())).pop()
    elif what == "verdict":
        row["verdicts"][0]["passed"] = not row["verdicts"][0]["passed"]
    elif what == "message":
        next(m for m in row["messages"] if m["role"] == "tool")["content"] = "{}"
    elif what == "seed":
        row["task"]["ground"]["seed"] += 1
    else:
        row["ended_by"] = "broken_tool"
    outcome = await replay(row, tools, Machine(), is_deterministic)
    assert outcome.differs, f"nobody noticed that the {what} is another one"


async def test_a_row_of_another_catalogue_is_named():
    row, _ = await made(1)
    with pytest.raises(AbruzziError, match="is not in the catalogue"):
        await replay(row, {}, Machine(), is_deterministic)


@pytest.mark.parametrize("deterministic", [True, False])
async def test_real_answers_are_compared_where_they_do_not_depend_on_the_clock(deterministic):
    clock = "def call(message):\n    n = time.time_ns(); answer(message, {'content': [{'type': 'text', 'text': str(n)}], 'structuredContent': {'n': n}})"
    work = [lab.planned(0, [lab.DOUBLE])]
    async with lab.double_pools(clock) as servers:
        machine = Machine(servers=servers)
        (row,) = await lab.rows_of(lab.engine(lab.Lines(lab.use("double", n=1), "Now."), machine), work)
        outcome = await replay(row, known(lab.DOUBLE), machine, lambda *_: deterministic)
        skipped = await replay(row, known(lab.DOUBLE), Machine(), lambda *_: deterministic)
    assert (outcome.not_compared, bool(outcome.differs)) == ((0, True) if deterministic else (1, False))
    assert skipped.skipped


async def test_a_program_runs_in_its_own_folder_without_network_and_replays():
    tools = [*lab.world_tools()[:3], PYTHON_TOOL]
    network = "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), 3)\nexcept OSError as error:\n    print('no network')"
    lines = [
        lab.use("python", code="open('x', 'w').write('kept'); print(6 * 7)"),
        lab.use("python", code=f"print(open('x').read())\n{network}"),
        lab.use("python", code="raise SystemExit(3)"),
        lab.use("python", code=7),
        "Done.",
    ]
    machine = Machine(programs=Programs(), servers=lab.double_pools())
    (row,) = await lab.rows_of(lab.engine(lab.Lines(*lines), machine), [lab.planned(0, tools)])
    assert [call["ok"] for call in row["calls"]] == [True, True, False, False], row["calls"]
    assert [call["answer"] for call in row["calls"][:2]] == ["42\n", "kept\nno network\n"]
    assert "(exit code 3)" in row["calls"][2]["answer"]
    outcome = await replay(row, known(*tools), machine, is_deterministic)
    assert (outcome.same, outcome.not_compared) == (True, 0), outcome
