"""Roles of a stage: the log lies beside its outputs, so that the next attempt goes on from it; ranks share the budgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from abruzzi.client.stage import StageContext
from abruzzi.client.stage.exits import Preempted
from abruzzi.contracts.endpoint import ChatRole, RoleConfig, StandInEndpoint
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.store import open_store
from abruzzi_jobs.chat.failures import BudgetReached
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.chat.stage import stage_roles


def context(folder: Path, *, attempt: int, rank: int = 0) -> StageContext:
    spec = StageSpec(
        project_id="p", run_id="r", stage_id="ask", attempt_id=f"r-ask-{attempt}", epoch=attempt, kind="container", config={},
        store=DirectoryStore(root=str(folder / "store")), output_prefix="projects/p/runs/r/ask/", world_size=2,
    )  # fmt: skip
    return StageContext(spec, rank, 2, folder / f"attempt-{attempt}", open_store(spec.store))


async def test_the_next_attempt_and_other_ranks_go_on_from_what_is_there(tmp_path: Path) -> None:
    roles = {ChatRole.JUDGE: RoleConfig(endpoint="s", budget_calls=4)}
    endpoints = {"s": StandInEndpoint(kind="standin")}

    def ask(number: int) -> ChatRequest:
        return ChatRequest(messages=[{"role": "user", "content": str(number)}])

    async with stage_roles(context(tmp_path, attempt=1), roles, endpoints) as opened:
        await opened["judge"].complete(ask(0))
        await opened["judge"].complete(ask(1))
        with pytest.raises(BudgetReached, match="2 of its 2 calls"):  # of four, over two ranks
            await opened["judge"].complete(ask(2))
    async with stage_roles(context(tmp_path, attempt=2), roles, endpoints) as opened:
        assert (await opened["judge"].complete(ask(0))).is_cached
        with pytest.raises(BudgetReached):
            await opened["judge"].complete(ask(2))
    stopping = context(tmp_path, attempt=2, rank=1)
    async with stage_roles(stopping, roles, endpoints) as opened:
        assert (await opened["judge"].complete(ask(1))).is_cached
        assert not (await opened["judge"].complete(ask(2))).is_cached
        out = tmp_path / "out"
        out.mkdir()
        described = await opened.write_calls(out)
        assert described["roles"]["judge"]["calls"] == described["shards"][0]["records"] == 3
        assert described["roles"]["judge"]["teacher"] == "standin"
        stopping.stop_requested.set()
        assert (await opened["judge"].complete(ask(1))).is_cached
        with pytest.raises(Preempted, match="answers so far are kept"):
            await opened["judge"].complete(ask(3))
        await opened.discard_calls()
        assert not list((tmp_path / "store").rglob("*.zst"))
