"""What a stage's token reaches: its own attempt, in its own words, and after its end only what is left of its telemetry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from api_server import ApiServer, serve

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.stage import DirectoryStore as StoreConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.identity import service as identity
from abruzzi.runs import ownership
from abruzzi.store import DirectoryStore, commit_artifact, manifest_key


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        yield made


@dataclass
class Committed:
    """An attempt that has committed an artifact, and the other attempt that a forger would like to be."""

    server: ApiServer
    attempt_id: str
    victim: dict[str, Any]
    key: str
    manifest: Manifest

    def report(self, key: str, manifest: Manifest) -> httpx.Response:
        with self.server.client(self.server.token_of(self.attempt_id)) as stage:
            body = {"manifest_key": key, "digest": manifest.digest()}
            return stage.post(f"attempts/{self.attempt_id}/artifacts", json=body)

    def put(self, key: str, manifest: Manifest) -> None:
        DirectoryStore(self.server.store).put(key, manifest.canonical_bytes())

    def steps_of_ranks(self) -> list[int]:
        with self.server.client() as admin:
            return [rank["step"] for rank in admin.get(f"attempts/{self.attempt_id}").json()["ranks"]]

    def end(self, state: str = "failed") -> None:
        with psycopg.connect(self.server.owner_url, autocommit=True) as connection:
            connection.execute("UPDATE attempts SET state = %s WHERE id = %s", (state, self.attempt_id))


@pytest.fixture
def committed(server: ApiServer, tmp_path: Path) -> Committed:
    run_id, attempt_id = server.run_with_attempt()
    other_run, other_attempt = server.run_with_attempt()
    server.run_with_attempt("elsewhere")
    source = tmp_path / "weights"
    source.write_text("weights")
    spec = StageSpec(
        project_id="default", run_id=run_id, stage_id="train", attempt_id=attempt_id, epoch=1, kind=StageKind.CONTAINER, config={},
        store=StoreConfig(root=str(server.store)), output_prefix=f"projects/default/runs/{run_id}/train/",
    )  # fmt: skip
    key, manifest = commit_artifact(
        DirectoryStore(server.store), spec, kind=ArtifactKind.CHECKPOINT, name="final", files={"w": source}, step=3
    )
    victim = {
        "project_id": "elsewhere", "run_id": other_run, "stage_id": "evaluate", "attempt_id": other_attempt, "epoch": 9, "name": "renamed",
    }  # fmt: skip
    return Committed(server, attempt_id, victim, key, manifest)


def rows(server: ApiServer) -> list[tuple[Any, ...]]:
    with psycopg.connect(server.owner_url) as connection:
        return connection.execute("SELECT manifest_key FROM artifacts ORDER BY id").fetchall()


def test_an_attempts_own_manifest_is_registered(committed: Committed) -> None:
    answer = committed.report(committed.key, committed.manifest)
    assert answer.status_code == 202, answer.text
    assert answer.json()["artifact"]["run_id"] == committed.manifest.run_id


@pytest.mark.parametrize("field", ["project_id", "run_id", "stage_id", "attempt_id", "epoch", "name"])
def test_a_manifest_that_is_forged_in_any_field_plants_nothing(committed: Committed, field: str) -> None:
    forged = committed.manifest.model_copy(update={field: committed.victim[field]})
    key = committed.key.replace("/final/", "/forged/")
    committed.put(key, forged)
    before = rows(committed.server)
    answer = committed.report(key, forged)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_artifact"), answer.text
    assert rows(committed.server) == before


def test_a_manifest_at_another_attempts_place_is_not_even_read(committed: Committed) -> None:
    theirs = f"projects/default/runs/{committed.victim['run_id']}/train/"
    for key in (
        manifest_key(theirs, 1, "final"),
        manifest_key(f"projects/default/runs/{committed.manifest.run_id}/train/", 2, "final"),
    ):
        committed.put(key, committed.manifest)
        answer = committed.report(key, committed.manifest)
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_artifact"), answer.text


def beat_of(step: int) -> dict[str, Any]:
    return {"rank": 0, "step": step, "phase": "train", "at": 0.0}


def test_a_heartbeat_may_come_with_the_points(committed: Committed) -> None:
    path = f"attempts/{committed.attempt_id}"
    points = {"series": {"train/loss": {"steps": [7], "values": [0.1], "at": [0.0]}}}
    with committed.server.client(committed.server.token_of(committed.attempt_id)) as stage:
        answer = stage.post(f"{path}/metrics", json={**points, "heartbeat": beat_of(7)})
        assert answer.json() == {"accepted": 1, "new": 1, "attempt_ended": False, "heartbeat_refused": None}
    assert committed.steps_of_ranks() == [7]


def test_a_heartbeat_that_is_refused_takes_no_points_with_it(committed: Committed) -> None:
    points = {"series": {"train/loss": {"steps": [7], "values": [0.1], "at": [0.0]}}}
    body = {**points, "heartbeat": {**beat_of(7), "rank": 5}}
    with psycopg.connect(committed.server.owner_url, autocommit=True) as connection:
        connection.execute("UPDATE attempts SET spec = '{\"world_size\": 2}' WHERE id = %s", (committed.attempt_id,))
    with committed.server.client(committed.server.token_of(committed.attempt_id)) as stage:
        answer = stage.post(f"attempts/{committed.attempt_id}/metrics", json=body)
    assert (answer.status_code, answer.json()["new"]) == (202, 1), answer.text
    assert "has ranks 0 to 1, not 5" in answer.json()["heartbeat_refused"]
    assert committed.steps_of_ranks() == []


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "interrupted"])
def test_an_ended_attempt_may_send_the_rest_of_its_telemetry_and_nothing_else(committed: Committed, state: str) -> None:
    committed.end(state)
    path = f"attempts/{committed.attempt_id}"
    answer = committed.report(committed.key, committed.manifest)
    assert (answer.status_code, answer.json()["code"]) == (409, "attempt_ended")
    with committed.server.client(committed.server.token_of(committed.attempt_id)) as stage:
        beat = stage.post(f"{path}/heartbeats", json=beat_of(1))
        assert (beat.status_code, beat.json()["code"]) == (409, "attempt_ended")
        points = {"series": {"train/loss": {"steps": [1], "values": [0.1], "at": [0.0]}}}
        assert stage.post(f"{path}/metrics", json=points).json()["new"] == 1
        points["series"]["train/loss"]["steps"] = [2]
        both = stage.post(f"{path}/metrics", json={**points, "heartbeat": beat_of(2)}).json()
        assert both == {"accepted": 1, "new": 1, "attempt_ended": True, "heartbeat_refused": None}
        assert committed.steps_of_ranks() == []
        assert stage.put(f"{path}/logs/0", params={"offset": 0}, content=b"last words\n").status_code == 200


def test_what_a_superseded_attempt_still_reports_is_not_the_runs_headline(committed: Committed) -> None:
    def report(step: int, loss: float) -> dict[str, float]:
        points = {"series": {"train/loss": {"steps": [step], "values": [loss], "at": [0.0]}}}
        with committed.server.client(committed.server.token_of(committed.attempt_id)) as stage:
            assert stage.post(f"attempts/{committed.attempt_id}/metrics", json=points).json()["new"] == 1
        with committed.server.client() as admin:
            return admin.get(f"runs/{committed.manifest.run_id}").json()["headline"]

    committed.end()
    assert report(1, 0.5) == {"train/loss": 0.5}
    with psycopg.connect(committed.server.owner_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO attempts (id, project_id, run_id, stage_id, number, epoch, state, created_at) "
            "VALUES (%s, 'default', %s, 'train', 2, 2, 'running', now())",
            (f"{committed.manifest.run_id}-train-2", committed.manifest.run_id),
        )
    assert report(2, 9.0) == {"train/loss": 0.5}


async def test_a_token_dies_an_hour_after_its_attempts_outcome_and_one_issued_later_lives_no_longer(world) -> None:  # type: ignore[no-untyped-def]
    run_id = await world.submit()
    await world.steps(run_id)
    attempt_id = f"{run_id}-first-1"
    token = await world.do(ownership.issue_token, attempt_id)

    async def is_valid(shown: str) -> bool:
        try:
            await world.do(identity.authenticate, shown)
        except identity.Unauthenticated:
            return False
        return True

    world.clock.turn(timedelta(days=20).total_seconds())
    assert await is_valid(token)
    await world.end(attempt_id, exit_code=137)
    world.clock.turn(3599)
    assert await is_valid(token)
    world.clock.turn(2)
    assert not await is_valid(token)
    late = await world.do(ownership.issue_token, attempt_id)
    assert await is_valid(late)
    world.clock.turn(3601)
    assert not await is_valid(late)
