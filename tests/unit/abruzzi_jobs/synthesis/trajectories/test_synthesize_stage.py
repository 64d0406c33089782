"""The stage as the platform runs it: artifacts out, what was finished kept, the same rows whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from aiohttp import web
from synthesis_stage import Model, Stage, model_server

from abruzzi.contracts.agent import Task
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import SynthesizeStage
from abruzzi.contracts.states import ExitCode
from abruzzi.contracts.synthesis import SynthesisConfig
from abruzzi.store import open_store
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, Usage
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.synthesis.catalogue import read_catalogue
from abruzzi_jobs.synthesis.players import ScriptedAgent
from abruzzi_jobs.synthesis.trajectories.command import _replay, _told
from abruzzi_jobs.synthesis.trajectories.run import plan_of, worded_plan
from abruzzi_jobs.synthesis.trajectories.tools import stage_tools

PATIENCE = 240
NO_FAULTS = {"unavailable": 0.0, "rate_limited": 0.0, "lost_answer": 0.0, "partial": 0.0}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABRUZZI_SECRET_IT", "test-key")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Rows as an attempt makes them that nothing happens to, with the model of the tests."""
    with pytest.MonkeyPatch.context() as patch, model_server() as model:
        patch.setenv("ABRUZZI_SECRET_IT", "test-key")
        stage = Stage(tmp_path_factory.mktemp("undisturbed"), model.endpoint())
        stage.run()
        return rows_in(stage.files("trajectories"))


def rows_in(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the records of calls, which say when and how long."""
    return {name: content for name, content in files.items() if name.startswith("trajectories")}


async def test_a_stage_makes_a_catalogue_and_trajectories_that_replay(tmp_path: Path):
    stage = Stage(tmp_path)
    await asyncio.to_thread(stage.run)
    described = json.loads(stage.files("trajectories")["trajectories.json"])
    assert (described["rows"], described["teacher"]) == (24, "standin")
    assert sum(described["fates"].values()) == 24
    assert stage.manifests["trajectories"].meta["fates"] == described["fates"]
    assert json.loads(stage.files("trajectories")["calls.json"])["roles"]["agent"]["calls"] > 0
    folder, tools = stage.pulled("trajectories"), stage.pulled("tools")
    rows = list(read_rows(folder, "trajectories"))
    assert {(row["generator"], row["is_llm"]) for row in rows} == {("standin-rule-v1", False)}
    points = json.loads(stage.files("tools")["coverage.json"])["points"]
    assert [(p["name"], p["source"]) for p in points] == [(tool.name, tool.source) for tool in read_catalogue(tools)]
    assert len({(p["x"], p["y"]) for p in points}) > len(points) // 2
    assert {row["source"] for row in rows} <= {tool.source for tool in read_catalogue(tools)}
    told = _told(await _replay(folder, tools, set(), simulated=True))
    assert (told["same"], told["replayed"]) == (24, 24), told["differs"]
    left = [
        key for part in ("parts/", "calls/") for key in open_store(stage.spec().store).list(f"{stage.prefix}{part}")
    ]
    assert left == [], "what lay there for a next attempt is gone"


def test_the_stand_in_follows_plans_and_errs_at_its_rate(tmp_path: Path):
    stage = Stage(tmp_path, {"kind": "standin", "error_rate": 0.4}, max_turns=30, faults=NO_FAULTS)
    stage.run()
    rows = list(read_rows(stage.pulled("trajectories"), "trajectories"))
    erring = {row["id"] for row in rows if ScriptedAgent(Task(**row["task"]), error_rate=0.4).mistake is not None}
    assert {row["id"] for row in rows if row["fate"] != "kept"} == erring
    assert {row["fate"] for row in rows} == {"kept", "rubric_failed"}
    assert 0.1 < len(erring) / len(rows) < 0.7
    assert {(row["generator"], row["is_llm"]) for row in rows} == {("standin-rule-v1", False)}


def test_what_no_role_words_well_stays_in_the_words_of_the_rule(tmp_path: Path):
    stage = Stage(tmp_path, words="model", tasks=6, agents=4)
    stage.run()
    described = json.loads(stage.files("trajectories")["trajectories.json"])
    assert list(described["left_as_they_were"]) == ["instructions"]
    assert sum(described["left_as_they_were"]["instructions"].values()) == described["rows"] == 6


class Writer:
    """A model that words what it is given a little otherwise."""

    async def complete(self, request: ChatRequest) -> ChatResponse:
        given = request.messages[-1]["content"].rsplit("\n\n", 1)[1]
        return ChatResponse(text=f"{given} Please.", usage=Usage(1, 1), model="m", generator="m", is_llm=True)


async def test_agents_and_tasks_in_a_models_words_belong_together():
    config = SynthesisConfig(synthetic=60, agents=8, tasks=24, words="model")
    found = await stage_tools(config, seed=0)
    roles = {"user": Writer(), "tool_author": Writer()}
    plain, (worded, left) = plan_of(found, config, seed=0), await worded_plan(found, config, roles, seed=0)
    assert left == {"prompts": {}, "instructions": {}}
    assert len(worded) == len(plain) == 24
    for planned in worded:
        assert planned.task.agent_id == planned.agent.id
        assert planned.agent.system_prompt.endswith(" Please.")
        assert planned.task.instruction.endswith(" Please.")
        assert planned.agent.is_llm
        assert planned.task.is_llm
        assert {call.tool for call in planned.task.plan} <= set(planned.agent.tools)


def test_two_runs_that_make_the_same_dataset_make_two_artifacts_with_the_same_rows(tmp_path: Path):
    first, second = Stage(tmp_path, run_id="aaaaaaaaaa"), Stage(tmp_path, run_id="bbbbbbbbbb")
    for stage in (first, second):
        stage.run()
    assert rows_in(first.files("trajectories")) == rows_in(second.files("trajectories"))
    assert first.files("tools") == second.files("tools")
    names = {(manifest.run_id, manifest.name) for stage in (first, second) for manifest in stage.manifests.values()}
    assert len(names) == 4


def test_a_stage_killed_in_the_middle_goes_on_and_ends_with_the_same_rows(tmp_path: Path, undisturbed):
    with model_server() as model:
        model.hold_from = 50
        stage = Stage(tmp_path, model.endpoint())
        process = stage.start(1)
        assert model.held.wait(PATIENCE), stage.log(1)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        store = open_store(stage.spec().store)
        assert list(store.list(f"{stage.prefix}parts/")), "it had finished some"
        answered = model.asked
        model.hold_from = None
        model.go.set()
        stage.run(2)
        asked = model.asked - answered
    assert rows_in(stage.files("trajectories", attempt=2)) == undisturbed
    assert asked < model.asked, "what was finished was not asked for again"


def _rate_limited(number: int) -> web.Response | None:
    return web.Response(status=429, headers={"Retry-After": "0"}) if number % 5 == 3 else None


def _broken(number: int) -> web.Response | None:
    return web.Response(status=500, text="oops") if number % 5 == 3 else None


def _garbage(number: int) -> web.Response | None:
    return web.Response(text="<html>no JSON</html>") if number % 7 == 3 else None


@pytest.mark.parametrize("trouble", [_rate_limited, _broken, _garbage])
def test_an_endpoint_in_trouble_changes_nothing_in_the_rows(tmp_path: Path, undisturbed, trouble, monkeypatch):
    monkeypatch.setattr("abruzzi_jobs.chat.endpoint.LONGEST_PAUSE_SECONDS", 0.01)
    with model_server() as model:
        model.instead = trouble
        stage = Stage(tmp_path, model.endpoint(max_tries=20))
        stage.run()
    assert rows_in(stage.files("trajectories")) == undisturbed


def test_an_endpoint_that_goes_down_ends_the_attempt_and_the_next_one_goes_on(tmp_path: Path, undisturbed):
    with model_server() as model:
        model.instead = lambda number: web.Response(status=503) if number >= 50 else None
        stage = Stage(
            tmp_path, model.endpoint(max_tries=2), concurrency=1
        )  # or it would be this question's fault: others were answered
        with pytest.raises(AbruzziError, match="no answer in 2 tries") as down:
            stage.run(1)
        assert (down.value.code, down.value.status) == ("endpoint_unavailable", 503)
        model.instead = lambda number: None
        before = model.asked
        stage.run(2)
        asked_again = model.asked - before
    assert rows_in(stage.files("trajectories", attempt=2)) == undisturbed
    assert asked_again > 0


def test_a_question_that_is_refused_costs_its_conversation_alone(tmp_path: Path):
    def refuse(number: int) -> web.Response | None:
        return web.Response(status=400, text='{"error": "too long"}') if number == 6 else None

    with model_server() as model:
        model.instead = refuse
        stage = Stage(tmp_path, model.endpoint())
        stage.run()
    fates = json.loads(stage.files("trajectories")["trajectories.json"])["fates"]
    assert sum(count for fate, count in fates.items() if fate.endswith("_refused")) <= 1
    assert sum(fates.values()) == 24


def test_a_request_to_stop_ends_it_as_preempted_and_nothing_finished_is_lost(tmp_path: Path, undisturbed):
    with model_server() as model:
        model.hold_from = 50
        stage = Stage(tmp_path, model.endpoint())
        process = stage.start(1)
        assert model.held.wait(PATIENCE), stage.log(1)
        process.send_signal(signal.SIGTERM)
        model.hold_from = None
        model.go.set()
        assert process.wait(PATIENCE) == ExitCode.PREEMPTED, stage.log(1)
        stage.run(2)
    assert rows_in(stage.files("trajectories", attempt=2)) == undisturbed


def test_a_damaged_part_is_played_again_and_another_plan_takes_over_none(tmp_path: Path, undisturbed):
    with model_server() as model:
        model.instead = lambda number: web.Response(status=503) if number >= 50 else None
        stage = Stage(tmp_path, model.endpoint(max_tries=2), concurrency=1)
        with pytest.raises(AbruzziError):
            stage.run(1)
        store = open_store(stage.spec().store)
        parts = list(store.list(f"{stage.prefix}parts/"))
        assert len(parts) >= 2, "two parts were finished"
        store.put(parts[0], store.get(parts[0])[:-7])
        other = store.get(parts[1])
        store.put(parts[1].replace("parts/", "parts/0"), other)
        model.instead = lambda number: None
        stage.run(2)
    assert rows_in(stage.files("trajectories", attempt=2)) == undisturbed


def test_the_stand_in_plays_beside_no_model(tmp_path: Path):
    model = Model()
    model.url = "http://127.0.0.1:9/v1"
    stage = Stage(tmp_path, model.endpoint())
    config = stage.stage.model_dump(mode="json")
    config["endpoint"]["rules"] = {"kind": "standin"}
    config["roles"]["user"] = "rules"
    stage.stage = SynthesizeStage.model_validate(config)
    with pytest.raises(AbruzziError) as mixed:
        stage.run()
    assert mixed.value.code == "mixed_teachers"
