"""Pools over REST: made by the platform's administrators, seen by everybody, held against what runs ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api_server import ApiServer, serve

from abruzzi.contracts.states import Role

RECIPE = """
version = 1
name = "pooled"
[[stage]]
id = "a"
kind = "container"
[stage.container]
command = ["true"]
[stage.resources]
pool = "POOL"
ranks = RANKS
"""
H800: dict[str, Any] = {
    "name": "h800", "kind": "kubernetes", "flavor": "H800", "ranks_per_node": 8, "rank": {"cpus": 12.0, "memory": "200 GiB", "gpus": 1},
    "quota": {"cpus": 384.0, "memory": "8 TiB", "gpus": 32},
}  # fmt: skip


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture
def admin(server: ApiServer) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def submit(client: httpx.Client, pool: str, ranks: int = 1) -> httpx.Response:
    return client.post("runs", json={"recipe_toml": RECIPE.replace("POOL", pool).replace("RANKS", str(ranks))})


def test_this_machine_is_a_pool_from_the_first_start_and_the_default(admin: httpx.Client) -> None:
    (local,) = [p for p in admin.get("pools").json()["items"] if p["name"] == "local"]
    assert local["spec"]["kind"] == "local"
    assert local["is_default"]
    assert local["status"]["ready"] is None


def test_a_pool_is_made_changed_by_its_etag_and_removed(admin: httpx.Client) -> None:
    made = admin.put("pools/h800", json=H800)
    assert made.status_code == 200, made.text
    assert made.json()["spec"]["quota"]["memory"] == 8 << 40
    first = made.headers["etag"]
    changed = admin.put("pools/h800", json={**H800, "flavor": "H800 SXM"}, headers={"If-Match": first})
    assert changed.json()["version"] == made.json()["version"] + 1
    stale = admin.put("pools/h800", json=H800, headers={"If-Match": first})
    assert (stale.status_code, stale.json()["code"]) == (412, "version_conflict")
    assert admin.delete("pools/h800").status_code == 204
    assert admin.get("pools/h800").status_code == 404


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "other"}, "The path says"),
        ({"colour": "red"}, "Extra inputs"),
        ({"ranks_per_node": "8"}, "valid integer"),
        ({"required_topology": "rack"}, "no level of the pool's topology"),
        ({"borrow": {"cpus": 1.0, "memory": 1, "gpus": 1}}, "only pools of a cohort can borrow"),
        ({"node_labels": {"a b": "c"}}, "pattern"),
    ],
)
def test_a_wrong_pool_is_refused_with_what_is_wrong(admin: httpx.Client, change: dict[str, Any], says: str) -> None:
    answer = admin.put("pools/h800", json=H800 | change)
    assert answer.status_code == 422
    assert says in answer.text


def test_only_the_platforms_administrators_make_pools_and_every_project_sees_them(server: ApiServer) -> None:
    with server.client(server.token(Role.ADMIN, project="tenant")) as tenant:
        assert tenant.put("pools/h800", json=H800).status_code == 403
        assert tenant.delete("pools/local").status_code == 403
        assert "local" in [p["name"] for p in tenant.get("pools").json()["items"]]


def test_a_run_on_a_pool_that_there_is_not_is_refused_with_the_nearest_name(admin: httpx.Client) -> None:
    answer = submit(admin, "lokal")
    assert (answer.status_code, answer.json()["code"]) == (422, "no_pool")
    assert "stage.a.resources.pool" in answer.json()["detail"]
    assert "'local'" in answer.json()["hint"]


def test_a_quota_that_can_never_fit_is_said_before_anything_is_stored(admin: httpx.Client) -> None:
    admin.put("pools/h800", json=H800)
    before = len(admin.get("runs").json()["items"])
    answer = submit(admin, "h800", ranks=64)
    assert (answer.status_code, answer.json()["code"]) == (422, "never_fits")
    assert "64 ranks need 64 GPUs, but pool 'h800' has 32 at most" in answer.json()["detail"]
    assert len(admin.get("runs").json()["items"]) == before
    assert submit(admin, "h800", ranks=32).status_code == 201


def test_ranks_of_all_projects_count_and_a_pool_in_use_stays(server: ApiServer, admin: httpx.Client) -> None:
    admin.put("pools/busy", json={**H800, "name": "busy"})
    with server.client(server.token(Role.ADMIN, project="tenant")) as tenant:
        run = submit(tenant, "busy", ranks=4)
        assert run.status_code == 201, run.text
    pool = admin.get("pools/busy").json()
    assert (pool["running_ranks"], pool["waiting_ranks"]) == (0, 4)
    refused = admin.delete("pools/busy")
    assert refused.status_code == 409
    assert "in use by 4 ranks" in refused.json()["detail"]


def test_the_default_pool_takes_what_says_local_and_the_recipe_stays_as_it_was(
    shared_database, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("api")
    monkeypatch.setenv("ABRUZZI_DEFAULT_POOL", "cluster")
    with (
        serve(shared_database.url("app"), shared_database.url("superuser"), folder) as server,
        server.client() as admin,
    ):
        admin.put("pools/cluster", json={"name": "cluster", "kind": "kubernetes"})
        run = submit(admin, "local").json()
        (stage,) = run["detail"]
        assert stage["config"]["resources"]["pool"] == "cluster"
        assert 'pool = "local"' in run["recipe_toml"]
        assert [p["name"] for p in admin.get("pools").json()["items"] if p["is_default"]] == ["cluster"]
