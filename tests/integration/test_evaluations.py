"""Evaluations over the API and in the command line: taken from reports as they are committed, listed, compared item by item."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serve
from typer.testing import CliRunner

from abruzzi.cli.main import app
from abruzzi.contracts.evaluation import Figure, SuiteSettings, SuiteSummary
from abruzzi.contracts.stage import DirectoryStore as StoreConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind, Role, StageKind
from abruzzi.evaluations import service as evaluations
from abruzzi.evaluations.leaderboard import leaderboard
from abruzzi.kit.db import transaction
from abruzzi.store import DirectoryStore, commit_artifact

BEFORE = {"one": 0.0, "two": 0.0, "three": 1.0, "four": 0.0, "five": 1.0, "six": None}
AFTER = {"one": 1.0, "two": 1.0, "three": 1.0, "four": 1.0, "five": 0.0, "six": 1.0}


@pytest.fixture
def server(database, tmp_path) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(database.url("app"), database.url("superuser"), tmp_path) as made:
        yield made


def summary_of(scores: dict[str, Any], *, tools: bool = False) -> dict[str, Any]:
    given = [score for score in scores.values() if score is not None]
    figure = Figure(value=sum(given) / len(given), low=0.1, high=0.9, items=len(given))
    return SuiteSummary(
        suite="sums@1", settings=SuiteSettings(tools=tools), items=len(scores), answers=len(scores), statuses={}, missing=len(scores) - len(given),
        score=figure, truncation_rate=0.0,
    ).model_dump(mode="json")  # fmt: skip


def report(
    server: ApiServer,
    folder: Path,
    scores: dict[str, Any],
    *,
    suites: Any = None,
    digest: str = "sha256:1",
    of_run: str = "",
    yarn: str = "",
) -> str:
    """A run whose stage commits a report of one suite, of a checkpoint that `of_run` made. Returns the run's id."""
    run_id, attempt_id = server.run_with_attempt()
    (folder / "scores.json").write_text(json.dumps({"sums@1": scores}))
    spec = StageSpec(
        project_id="default", run_id=run_id, stage_id="train", attempt_id=attempt_id, epoch=1, kind=StageKind.EVALUATE, config={},
        store=StoreConfig(root=str(server.store)), output_prefix=f"projects/default/runs/{run_id}/train/",
    )  # fmt: skip
    meta = {
        "suites": [summary_of(scores)] if suites is None else suites,
        "target": {"kind": "checkpoint", "digest": digest, "yarn": yarn or None}
        | ({"run_id": of_run, "step": 7} if of_run else {}),
    }
    key, manifest = commit_artifact(
        DirectoryStore(server.store),
        spec,
        kind=ArtifactKind.REPORT,
        name="report",
        files={"scores.json": folder / "scores.json"},
        meta=meta,
    )
    with server.client(server.token_of(attempt_id)) as stage:
        for _ in range(2):  # telling it twice is telling it once
            told = stage.post(
                f"attempts/{attempt_id}/artifacts", json={"manifest_key": key, "digest": manifest.digest()}
            )
            assert told.status_code == 202, told.text
    return run_id


def test_evaluations_are_listed_by_suite_and_target_and_compared_item_by_item(
    server: ApiServer, tmp_path: Path
) -> None:
    report(server, tmp_path, BEFORE)
    after_run = report(server, tmp_path, AFTER, digest="sha256:2")
    with server.client(server.token(Role.VIEWER)) as viewer:
        found = viewer.get("evaluations").json()["items"]
        assert [(e["suite"], e["target"], e["summary"]["missing"]) for e in found] == [
            ("sums@1", "sha256:2", 0),
            ("sums@1", "sha256:1", 1),
        ]
        after, before = (e["id"] for e in found)
        assert [e["id"] for e in viewer.get("evaluations", params={"target": "sha256:1"}).json()["items"]] == [before]
        assert [
            e["id"] for e in viewer.get("evaluations", params={"suite": "sums", "run": after_run}).json()["items"]
        ] == [after]
        assert viewer.get("evaluations", params={"suite": "sum"}).json()["items"] == []
        first = viewer.get("evaluations", params={"limit": 1}).json()
        second = viewer.get("evaluations", params={"limit": 1, "cursor": first["next_cursor"]}).json()
        assert [first["items"][0]["id"], second["items"][0]["id"], second["next_cursor"]] == [after, before, None]
        paired = viewer.get(f"evaluations/{after}/against/{before}").json()
        assert (paired["items"], paired["left_out"], paired["better"], paired["worse"]) == (5, 1, 3, 1)
        assert paired["difference"] == pytest.approx(0.4)
        assert paired["low"] < 0.4 < paired["high"]
        assert paired["p_value"] == pytest.approx(0.625)
        assert paired["changed"][0] == {"item": "five", "a": 1.0, "b": 0.0}
        assert viewer.get("evaluations/nobody").status_code == 404
    with server.client(server.token(Role.VIEWER, project="elsewhere")) as stranger:
        assert stranger.get("evaluations").json()["items"] == []
        assert stranger.get(f"evaluations/{after}").status_code == 404


def test_a_checkpoint_whose_positions_are_turned_otherwise_is_another_target(server: ApiServer, tmp_path: Path) -> None:
    report(server, tmp_path, BEFORE)
    report(server, tmp_path, AFTER, yarn="4x1024")
    with server.client(server.token(Role.VIEWER)) as viewer:
        rows = viewer.get("evaluations/leaderboard").json()["rows"]
        assert [row["target"] for row in rows] == ["sha256:1 yarn 4x1024", "sha256:1"]
        only = viewer.get("evaluations", params={"target": "sha256:1"}).json()["items"]
        assert [one["target_detail"]["yarn"] for one in only] == [None]


def test_the_leaderboard_has_the_newest_of_each_suite_with_tools_and_without(server: ApiServer, tmp_path: Path) -> None:
    first_run = report(server, tmp_path, BEFORE)
    report(server, tmp_path, AFTER)
    report(server, tmp_path, AFTER, suites=[summary_of(BEFORE, tools=True)])
    other_run = report(server, tmp_path, BEFORE, digest="sha256:2", of_run=first_run)
    with server.client(server.token(Role.VIEWER)) as viewer:

        def board(**query: str) -> dict[str, Any]:
            found: dict[str, Any] = viewer.get("evaluations/leaderboard", params=query).json()
            return found

        whole = board()
        assert (whole["suites"], whole["left_out"]) == (["sums@1"], 0)
        assert [row["target"] for row in whole["rows"]] == ["sha256:2", "sha256:1"]
        cells = {cell["tools"]: cell for cell in whole["rows"][1]["cells"]}
        assert [round(cells[tools]["score"]["value"], 3) for tools in (False, True)] == [0.833, 0.4]
        assert (cells[False]["score"]["items"], cells[True]["missing"], cells[False]["truncation_rate"]) == (6, 1, 0.0)
        assert [row["target"] for row in board(run=first_run)["rows"]] == ["sha256:2", "sha256:1"]
        assert [row["target"] for row in board(run=other_run)["rows"]] == ["sha256:2"]
        assert [row["target"] for row in board(q="SHA256:2")["rows"]] == ["sha256:2"]
        assert board(q="_") == board(recipe="nobody") == {"suites": [], "rows": [], "left_out": 0}
        assert len(board(recipe=whole["rows"][0]["recipe_name"])["rows"]) == 2
        assert [e["target"] for e in viewer.get("evaluations", params={"of_run": first_run}).json()["items"]] == [
            "sha256:2"
        ]
    with server.client(server.token(Role.VIEWER, project="elsewhere")) as stranger:
        assert stranger.get("evaluations/leaderboard").json()["rows"] == []


async def test_targets_beyond_the_limit_are_counted(world) -> None:  # type: ignore[no-untyped-def]
    run_id = await world.submit()
    await world.steps(run_id)
    for number in range(3):
        target = {"kind": "checkpoint", "digest": f"sha256:{number}"}
        await world.commit(
            f"{run_id}-first-1", "report", f"report-{number}", suites=[summary_of(BEFORE)], target=target
        )
    await world.end(f"{run_id}-first-1")
    async with transaction(world.sessions) as session:
        found = await leaderboard(session, most=2)
    assert (len(found.rows), found.left_out) == (2, 1)


def test_the_papers_tables_are_served_and_what_it_lacks_is_not_there(server: ApiServer) -> None:
    with server.client(server.token(Role.VIEWER)) as viewer:
        table = viewer.get("evaluations/paper/instruct").json()
        rows = {row["benchmark"]: row for row in table["rows"]}
        assert table["models"][0] == "K2"
        assert (rows["AIME 2024"]["setting"], rows["AIME 2024"]["values"]["V3-0324"]) == ("Avg@64", "59.4*")
        assert (rows["tau2 retail"]["suites"], rows["tau2 retail"]["subtask"]) == (["tau2"], "retail")
        assert "GPT-4.1" not in rows["SWE-V agentic multi"]["values"]
        assert viewer.get("evaluations/paper/nobodys").status_code == 422


def test_a_report_that_tells_nonsense_is_an_artifact_all_the_same(server: ApiServer, tmp_path: Path) -> None:
    for suites in ("none", [], [{"suite": "sums@1"}], [3], {"a": 1}):
        run_id = report(server, tmp_path, BEFORE, suites=suites)
        with server.client() as client:
            assert [a["name"] for a in client.get("artifacts", params={"run": run_id}).json()["items"]] == ["report"]
            assert client.get("evaluations").json()["items"] == []


NO_SUMMARIES: dict[str, dict[str, Any]] = {
    "a score above one": {"score": {"value": 1.5, "items": 5}},
    "a score below zero": {"score": {"value": -0.1, "items": 5}},
    "a score that is no number": {"score": {"value": float("nan"), "items": 5}},
    "fewer items than none": {"items": -1},
    "more items than the table holds": {"items": 2**31},
    "no name": {"suite": ""},
    "the character 0 in the name": {"suite": "su\x00ms@1"},
    "no version": {"suite": "sums"},
}


def test_a_summary_that_the_table_does_not_take_is_passed_over_alone(server: ApiServer, tmp_path: Path) -> None:
    good = summary_of(BEFORE)
    for what, values in NO_SUMMARIES.items():
        run_id = report(server, tmp_path, BEFORE, suites=[good | values, good | {"suite": "words@1"}])
        with server.client() as client:
            assert [a["name"] for a in client.get("artifacts", params={"run": run_id}).json()["items"]] == ["report"]
            found = client.get("evaluations", params={"run": run_id}).json()["items"]
        assert [e["suite"] for e in found] == ["words@1"], what


async def test_what_postgres_refuses_is_undone_alone(world) -> None:  # type: ignore[no-untyped-def]
    run_id = await world.submit()
    await world.steps(run_id)
    _, manifest = await world.commit(
        f"{run_id}-first-1", "report", "report", suites=[summary_of(BEFORE)], target={"kind": "standin"}
    )
    async with transaction(world.sessions) as session:
        assert await evaluations.record(session, "no artifact", manifest) == 0
        assert await evaluations.list_evaluations(session, run_id=run_id) == []
    await world.end(f"{run_id}-first-1")
    async with transaction(world.sessions) as session:
        assert [e.suite for e in await evaluations.list_evaluations(session, run_id=run_id)] == ["sums@1"]


def test_the_character_0_is_replaced(server: ApiServer, tmp_path: Path) -> None:
    odd = summary_of(BEFORE) | {"subtasks": {"a\x00b": {"value": 0.5, "items": 2}}}
    report(server, tmp_path, BEFORE, suites=[odd], digest="sha\x00")
    with server.client() as client:
        [found] = client.get("evaluations").json()["items"]
    assert (found["target"], list(found["summary"]["subtasks"])) == ("sha\ufffd", ["a\ufffdb"])


def test_the_command_line_lists_shows_and_compares(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(server, tmp_path, BEFORE)
    report(server, tmp_path, AFTER, digest="sha256:2")
    monkeypatch.setenv("ABRUZZI_URL", server.url)
    monkeypatch.setenv("ABRUZZI_TOKEN", server.admin)
    listed = json.loads(CliRunner().invoke(app, ["evaluations", "list", "--json"]).output)
    after, before = (one["id"] for one in listed)
    shown = CliRunner().invoke(app, ["evaluations", "show", before])
    assert (shown.exit_code, "40.0%" in shown.output) == (0, True), shown.output
    compared = CliRunner().invoke(app, ["evaluations", "compare", after, before])
    assert "+40.0% on 5 common items" in compared.output
    assert "p = 0.625: not significant" in compared.output
    assert "1 items are left out: a side has no score of them." in compared.output
