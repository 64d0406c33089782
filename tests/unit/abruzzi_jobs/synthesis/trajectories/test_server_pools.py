"""Tool servers in conversations: one that crashes, hangs, floods or lies costs its conversation, not the stage."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import trajectory_lab as lab

from abruzzi.contracts.agent import PlannedCall, ProbeClause, ToolName
from abruzzi_jobs.synthesis.trajectories.engine import Machine
from abruzzi_jobs.synthesis.trajectories.servers import ANSWER_CHARACTERS, shortened

TWICE = [lab.use("double", n=2), lab.use("double", n=3), "4 and 6."]
CRASHES = "def call(message):\n    os._exit(3)"
HANGS = "import threading\ndef call(message):\n    threading.Event().wait()"
FLOODS = "def call(message):\n    sys.stdout.write('x' * (1 << 20)); sys.stdout.flush()"
LIES_IN_ITS_ANSWER = 'def call(message):\n    answer(message, {"content": [], "structuredContent": {"n": "four"}})'
LIES_ABOUT_ITS_ARGUMENTS = 'def call(message):\n    refuse(message, -32602, "n must be odd")'
REFUSES = 'def call(message):\n    refuse(message, -32000, "not today")'
BABBLES = "def call(message):\n    [print('noise', flush=True) for _ in range(100)]"


async def played(pools, *lines, numbers=(0,), rubric=(), **settings):
    async with pools as servers:
        engine = lab.engine(lambda _: lab.Lines(*lines), Machine(servers=servers), **settings)
        work = [lab.planned(number, [lab.DOUBLE], rubric=rubric) for number in numbers]
        return await lab.rows_of(engine, work)


async def test_a_real_tool_is_called_and_its_answer_told():
    (row,) = await played(lab.double_pools(), *TWICE)
    assert [(call["answer"], call["ok"], call["is_real"]) for call in row["calls"]] == [
        ("4", True, True),
        ("6", True, True),
    ]
    assert (row["fate"], row["world"]) == ("kept", None)


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        (CRASHES, "server_crashed"),
        (HANGS, "server_hung"),
        (FLOODS, "server_flooded"),
        (BABBLES, "server_garbled"),
        (LIES_IN_ITS_ANSWER, "server_lied"),
        (LIES_ABOUT_ITS_ARGUMENTS, "server_lied"),
        ("sys.exit(1)", "server_crashed"),
    ],
)
async def test_a_server_at_fault_ends_its_conversation_and_says_how(change, ended):
    patience = lab.HASTE if change == HANGS else lab.PATIENT
    (row,) = await played(lab.double_pools(change, patience=patience), *TWICE)
    assert (row["fate"], row["ended_by"]) == (ended, ended), row["why"]
    assert row["why"].startswith("The tool server"), "it says in words what happened"


async def test_a_refusal_is_an_answer():
    (row,) = await played(lab.double_pools(REFUSES), *TWICE)
    assert [call["ok"] for call in row["calls"]] == [False, False]
    assert "not today" in row["calls"][0]["answer"]
    assert row["ended_by"] == "user"


async def test_arguments_that_do_not_fit_are_told_and_not_sent():
    (row,) = await played(lab.double_pools(CRASHES), lab.use("double", n="two"), "I cannot.")
    assert [call["ok"] for call in row["calls"]] == [False]
    assert row["calls"][0]["answer"].startswith("invalid_arguments: ")
    assert row["ended_by"] == "user", "the server that would crash was never asked"


async def test_the_pool_goes_on_after_a_fault_and_leaves_a_kind_alone_after_three_in_a_row(tmp_path: Path):
    once = f"def call(message):\n    open({str(tmp_path / 'x')!r}, 'x'); os._exit(3)"
    after = f"{once}\nif os.path.exists({str(tmp_path / 'x')!r}):\n    def call(message): answer(message, {{'content': [], 'structuredContent': {{'n': 4}}}})"
    rows = await played(lab.double_pools(after), *TWICE, numbers=range(4), concurrency=1)
    assert [row["ended_by"] for row in rows] == ["server_crashed", "user", "user", "user"], [row["why"] for row in rows]
    pools = lab.double_pools(CRASHES)
    rows = await played(pools, *TWICE, numbers=range(5), concurrency=1)
    assert [row["fate"] for row in rows] == [*["server_crashed"] * 3, *["server_quarantined"] * 2]
    assert pools.started[lab.SOURCE] == 3


async def test_each_conversation_has_a_fresh_server_unless_it_keeps_nothing():
    counts = "CALLS = []\ndef call(message):\n    CALLS.append(1); answer(message, {'content': [{'type': 'text', 'text': str(len(CALLS))}], 'structuredContent': {'n': len(CALLS)}})"
    fresh = lab.double_pools(counts)
    rows = await played(fresh, *TWICE, numbers=range(3), concurrency=1)
    assert [[call["answer"] for call in row["calls"]] for row in rows] == [["1", "2"]] * 3
    assert fresh.started[lab.SOURCE] == 3
    again = lab.double_pools(counts, is_stateless=True)
    rows = await played(again, *TWICE, numbers=range(3), concurrency=1)
    assert [call["answer"] for row in rows for call in row["calls"]] == list("123456")
    assert again.started[lab.SOURCE] == 1


async def test_many_conversations_share_few_places_and_no_process_is_left(tmp_path: Path):
    tells = f"open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').close()"
    pools = lab.double_pools(tells, at_once=3)
    rows = await played(
        pools, [lab.use("double", n=1), lab.use("double", n=2)], "2 and 4.", numbers=range(8), concurrency=8
    )
    assert {row["fate"] for row in rows} == {"kept"}
    assert [[call["answer"] for call in row["calls"]] for row in rows] == [["2", "4"]] * 8
    started = [int(path.name) for path in tmp_path.iterdir()]
    assert len(started) == pools.started[lab.SOURCE] == 8
    assert [pid for pid in started if os.path.exists(f"/proc/{pid}")] == []


async def test_a_probe_is_asked_when_the_conversation_is_over():
    probe = ProbeClause(
        id="probe",
        text="Twice 21 is 42",
        call=PlannedCall(tool=ToolName(name="double", source=lab.SOURCE), arguments={"n": 21}),
        contains=("42",),
    )
    (row,) = await played(lab.double_pools(), *TWICE, rubric=[probe])
    assert (row["probes"], row["fate"]) == ([{"clause": "probe", "ok": True, "answer": "42"}], "kept")


async def test_a_stop_in_the_middle_leaves_no_server_behind(tmp_path: Path):
    tells = f"{HANGS}\nopen({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').close()"
    pools = lab.double_pools(tells, patience=None)
    task = asyncio.create_task(played(pools, *TWICE, numbers=range(2)))
    deadline = asyncio.get_running_loop().time() + 120
    while len(list(tmp_path.iterdir())) < 2:
        assert asyncio.get_running_loop().time() < deadline, "the servers never started"
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [path.name for path in tmp_path.iterdir() if os.path.exists(f"/proc/{path.name}")] == []


def test_a_long_answer_is_cut_and_says_so():
    assert shortened("x" * ANSWER_CHARACTERS) == "x" * ANSWER_CHARACTERS
    assert shortened("x" * (ANSWER_CHARACTERS + 7)).endswith("(cut: 7 characters more)")
