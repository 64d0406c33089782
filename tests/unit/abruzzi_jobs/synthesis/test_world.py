"""The simulated world: transactions, invariants, faults by schedule, replay."""

from __future__ import annotations

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.tool import Condition, Term
from abruzzi_jobs.synthesis.evolution import evolve
from abruzzi_jobs.synthesis.evolution.tools_of import tools_of
from abruzzi_jobs.synthesis.world import BrokenTool, Schedule, World, difference, sample_call

SHOP = next(application for application in evolve() if application.name == "brokerage")
TOOLS = {tool.name: tool for tool in tools_of(SHOP)}


def world(**settings) -> World:
    return World(SHOP.state, **settings)


def test_state_stays_between_calls_and_a_transfer_loses_nothing():
    here = world(seed=5)
    made = here.call(TOOLS["create_account"], {"owner": "Nora Lind", "cash_cents": 500})
    number = made.answer["account_id"]
    assert made.answer["status"] == "active"
    assert here.call(TOOLS["raise_account_cash_cents"], {"account_id": number, "by": 250}).answer["cash_cents"] == 750
    before = sum(row["cash_cents"] for row in here.snapshot()["account"])
    moved = here.call(
        TOOLS["transfer_cash_cents_between_account"], {"from_account_id": number, "to_account_id": 1, "amount": 700}
    )
    assert moved.answer["source"]["cash_cents"] == 50
    assert sum(row["cash_cents"] for row in here.snapshot()["account"]) == before
    assert {(change["entity"], change["id"]) for change in moved.changes} == {("account", number), ("account", 1)}


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "said"),
    [
        ("get_account", {"account_id": 99}, "not_found", "account"),
        ("lower_account_cash_cents", {"account_id": 1, "by": 90000000}, "precondition_failed", "at least 0"),
        ("unfreeze_account", {"account_id": 1}, "precondition_failed", "it is frozen"),
        ("delete_account", {"account_id": 1}, "precondition_failed", "refers to it"),
        ("get_account", {"account_id": "1"}, "invalid_arguments", "not of type 'integer'"),
        ("create_account", {"owner": "\ud800"}, "invalid_arguments", "surrogate"),
    ],
)
def test_what_may_not_be_done_is_refused_with_its_reason_and_leaves_no_trace(tool, arguments, code, said):
    here = world()
    before = here.digest()
    outcome = here.call(TOOLS[tool], arguments)
    assert outcome.error == code
    assert said in outcome.answer["error"]["message"]
    assert here.digest() == before


def test_a_call_that_reads_takes_no_snapshot_and_one_that_writes_says_what_it_changed(monkeypatch):
    here = world()
    taken = []
    snapshot = here.tables.snapshot
    monkeypatch.setattr(here.tables, "snapshot", lambda: taken.append(1) or snapshot())
    for name in ("get_account", "find_account"):
        assert here.call(TOOLS[name], {"account_id": 1} if name == "get_account" else {}).changes == []
    assert taken == []
    assert [
        change["id"] for change in here.call(TOOLS["raise_account_cash_cents"], {"account_id": 1, "by": 1}).changes
    ] == [1]


def test_a_tool_that_says_it_reads_and_writes_is_broken_and_undone(monkeypatch):
    here = world()
    before = here.digest()
    rows = here.tables.rows

    def writing(*given):
        here.tables.change("account", 1, {"cash_cents": 7})
        return rows(*given)

    monkeypatch.setattr(here.tables, "rows", writing)
    with pytest.raises(BrokenTool, match="reads, but changed the state"):
        here.call(TOOLS["find_account"], {})
    monkeypatch.undo()
    assert here.digest() == before


def test_faults_come_by_the_schedule_and_a_lost_answer_was_done():
    only = {
        name: world(schedule=Schedule(**{name: 1.0}))
        for name in ("unavailable", "rate_limited", "lost_answer", "partial")
    }
    before = world().snapshot()
    rise = (TOOLS["raise_account_cash_cents"], {"account_id": 1, "by": 1})
    assert [only[name].call(*rise).error for name in only] == ["unavailable", "rate_limited", "timeout", None]
    assert (
        difference(before, only["unavailable"].snapshot()) == difference(before, only["rate_limited"].snapshot()) == []
    )
    assert len(difference(before, only["lost_answer"].snapshot())) == 1
    part = only["partial"].call(TOOLS["find_account"], {})
    assert (len(part.answer["items"]), part.answer["total"], part.answer["complete"]) == (4, 8, False)
    shares = [Schedule(seed=1, unavailable=0.2, lost_answer=0.1).fault(call) for call in range(2000)]
    assert 320 < shares.count("unavailable") < 480
    assert 140 < shares.count("lost_answer") < 260


def test_the_same_seed_and_calls_make_the_same_world_and_another_seed_another():
    def play(seed: int) -> tuple[str, list]:
        here = world(seed=seed, schedule=Schedule(seed=seed, unavailable=0.1, lost_answer=0.1, partial=0.1))
        told = []
        for tool in TOOLS.values():
            arguments = sample_call(here, tool, seed)
            told.append(here.call(tool, arguments) if arguments is not None else None)
        return here.digest(), told

    assert play(1) == play(1)
    assert play(1)[0] != play(2)[0]


def test_a_tool_that_does_not_keep_its_promise_is_found_out_and_undone():
    honest = TOOLS["freeze_account"]
    promise = Condition(
        text="its cash is gone",
        relation="=",
        left=Term(kind="field", entity="account", field="cash_cents", argument="account_id"),
        right=Term(kind="constant", value=-1),
    )
    simulation = honest.simulation.model_copy(update={"postconditions": (promise,)})
    broken = honest.model_copy(update={"simulation": simulation})
    here = world()
    before = here.digest()
    with pytest.raises(BrokenTool, match="does not hold afterwards: its cash is gone"):
        here.call(broken, sample_call(here, honest))
    unbounded = TOOLS["raise_account_cash_cents"]
    loose = unbounded.model_copy(update={"simulation": unbounded.simulation.model_copy(update={"preconditions": ()})})
    with pytest.raises(BrokenTool, match="breaks an invariant of the state: CHECK"):
        here.call(loose, {"account_id": 1, "by": 90000000})
    assert here.digest() == before


def test_a_tool_of_another_application_does_not_run_here():
    other = tools_of(evolve()[0])[0]
    with pytest.raises(AbruzziError, match="does not run in this world"):
        world().call(other, {})
