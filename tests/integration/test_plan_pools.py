"""The dry run against a platform's pools: where each stage would go, whether it fits, behind whom; and nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from api_server import ApiServer, serve
from typer.testing import CliRunner

from abruzzi.cli.main import app
from abruzzi.contracts.pool import UNSEEN, Amounts, PoolSpec
from abruzzi.contracts.states import Role

K2 = (Path(__file__).parents[2] / "recipes" / "k2.toml").read_text()
RECIPE = """
version = 1
name = "planned"

[[stage]]
id = "one"
kind = "container"
[stage.container]
command = ["true"]
[stage.resources]
ranks = RANKS
"""


def pool(name: str, **fields: Any) -> PoolSpec:
    values = {
        "kind": "kubernetes", "flavor": "H800", "ranks_per_node": 8, "rank": Amounts(cpus=12.0, memory=1 << 30, gpus=1),
        "quota": Amounts(cpus=1000.0, memory=1 << 40, gpus=32), **fields,
    }  # fmt: skip
    return PoolSpec(name=name, **values)


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        with made.client() as admin, psycopg.connect(made.owner_url, autocommit=True) as connection:
            for spec in (pool("h800"), pool("busy"), pool("free", quota=None), pool("unseen")):
                answer = admin.put(f"pools/{spec.name}", json=spec.model_dump(mode="json"))
                assert answer.status_code == 200, answer.text
            kinds = json.dumps(
                {**UNSEEN, "ready": True, "kinds": ["Job", "PyTorchJob"], "used": {"nvidia.com/gpu": 24.0}}
            )
            connection.execute("UPDATE pools SET status = %s WHERE name IN ('h800', 'busy', 'free')", (kinds,))
            run_id, _ = made.run_with_attempt("somebody")
            connection.execute(
                "UPDATE attempts SET state = 'starting', pool = 'busy', gpus = 16, cpus = 16, waits_for = 'waits_for_quota' WHERE run_id = %s",
                (run_id,),
            )
        yield made


def plan(server: ApiServer, ranks: int, name: str | None, *, recipe: str = RECIPE, **body: Any) -> httpx.Response:
    with server.client(server.token(Role.VIEWER, project="tenant")) as client:
        return client.post("plan", json={"recipe_toml": recipe.replace("RANKS", str(ranks)), "pool": name, **body})


def placed(server: ApiServer, ranks: int, name: str | None) -> dict[str, Any]:
    (stage,) = plan(server, ranks, name).json()["stages"]
    return stage["placement"]


def test_a_stage_that_fits_is_told_its_nodes_pods_and_gpus(server: ApiServer) -> None:
    found = placed(server, 8, "h800")
    assert (found["verdict"], found["workload"], found["nodes"], found["pods"]) == ("fits", "Job", 1, 1)
    assert found["asked"] == {"cpus": 96.0, "memory": 8 << 30, "gpus": 8}
    assert found["sentence"] == "It would be let in at once: it asks for 8, and 8 of 32 GPUs of quota are free."


def test_a_stage_that_has_to_wait_is_told_for_what_and_why_there_is_no_estimate(server: ApiServer) -> None:
    found = placed(server, 20, "h800")
    assert (found["verdict"], found["workload"], found["nodes"], found["pods"]) == ("queues", "PyTorchJob", 3, 3)
    assert found["per_pod"]["gpus"] == 8
    assert (found["position"], found["eta_seconds"]) == (1, None)
    assert (
        "asks for 20, and 8 of 32 GPUs of quota are free (no estimate: what holds the quota is not Abruzzi's"
        in found["sentence"]
    )


def test_who_is_ahead_is_counted_and_not_named(server: ApiServer) -> None:
    answer = plan(server, 16, "busy")
    found = answer.json()["stages"][0]["placement"]
    assert (found["verdict"], found["position"]) == ("queues", 2)
    assert "behind 1 other:" in found["sentence"]
    assert "somebody" not in answer.text


@pytest.mark.parametrize(
    ("ranks", "name", "verdict", "says"),
    [
        (64, "h800", "never_fits", "64 ranks need 64 GPUs, but pool 'h800' has 32 at most"),
        (64, "free", "no_quota", "nobody queues"),
        (1, "h900", "no_pool", "Did you mean 'h800'?"),
        (2, None, "no_quota", "Pool 'local'"),
    ],
)
def test_what_would_be_refused_or_never_queues_is_said(
    server: ApiServer, ranks: int, name: str | None, verdict: str, says: str
) -> None:
    answer = plan(server, ranks, name).json()
    found = answer["stages"][0]["placement"]
    assert found["verdict"] == verdict
    assert says in found["sentence"]
    assert bool(answer["warnings"]) == (verdict in ("never_fits", "no_pool"))


def test_before_anybody_has_looked_at_a_cluster_no_kind_of_workload_is_claimed(server: ApiServer) -> None:
    assert placed(server, 16, "unseen")["workload"] is None


@pytest.mark.parametrize(
    ("ep", "says"),
    [
        (16, None),
        (8, "it fits only while the optimizer is shared"),
        (4, "a rank needs 116.2 GB at least; a GPU of flavor 'H800' has 80.0 GB"),
    ],
)
def test_the_memory_of_a_rank_is_held_against_the_flavors_gpu(server: ApiServer, ep: int, says: str | None) -> None:
    answer = plan(server, 0, "h800", recipe=K2, overrides={"stage.pretrain.parallel.ep": str(ep)}).json()
    pretrain = next(stage for stage in answer["stages"] if stage["kind"] == "pretrain")
    found = pretrain["placement"]
    assert (pretrain["pool"], found["verdict"]) == ("h800", "never_fits")
    assert (found["memory_there"], found["memory_of"]) == (80_000_000_000, "a GPU of flavor 'H800'")
    assert found["memory_least"] <= found["memory_most"]
    assert pretrain["training"]["assumptions"]["device"] == "H800"
    of_memory = [warning for warning in answer["warnings"] if " GB" in warning]
    assert [says in warning for warning in of_memory if says] == ([True] if says else [])
    assert bool(of_memory) == bool(says)


def test_a_dry_run_stores_nothing(server: ApiServer) -> None:
    def rows() -> list[Any]:
        with psycopg.connect(server.owner_url, autocommit=True) as connection:
            tables = (
                "runs",
                "stages",
                "attempts",
                "recipes",
                "events",
                "outbox",
                "audit",
                "queue_entries",
                "usage_days",
            )
            return [connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables]  # noqa: S608

    before = rows()
    assert plan(server, 8, "h800").status_code == 200
    assert rows() == before


def test_a_recipe_with_mistakes_is_refused_whatever_the_pool(server: ApiServer) -> None:
    assert plan(server, 0, "h800").json()["code"] == "recipe_invalid"
    assert plan(server, 0, "h800", recipe="this is = = no toml").json()["code"] == "recipe_invalid"
    assert plan(server, 8, "No Name").status_code == 422


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "planned.toml"
    path.write_text(RECIPE.replace("RANKS", "20"))
    return str(path)


def test_the_command_shows_the_platforms_answer(
    server: ApiServer, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABRUZZI_URL", server.url)
    monkeypatch.setenv("ABRUZZI_TOKEN", server.token(Role.VIEWER, project="tenant"))
    shown = CliRunner().invoke(app, ["plan", recipe, "--pool", "h800"])
    assert shown.exit_code == 0, shown.output
    assert "PyTorchJob" in shown.stdout
    assert "It would wait behind 0 others" in shown.stdout
    told = CliRunner().invoke(app, ["plan", recipe, "--pool", "h800", "--json"])
    assert json.loads(told.stdout)["stages"][0]["placement"]["nodes"] == 3


def test_without_a_platform_the_command_says_what_needs_one(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABRUZZI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ABRUZZI_URL", raising=False)
    monkeypatch.delenv("ABRUZZI_TOKEN", raising=False)
    shown = CliRunner().invoke(app, ["plan", recipe, "--pool", "h800", "--json"])
    assert shown.exit_code == 0, shown.output
    (stage,) = json.loads(shown.stdout)["stages"]
    assert stage["pool"] == "h800"
    assert "placement" not in stage
    assert "Nodes, pods, quota, queue and waiting time in pool 'h800' need a running platform" in shown.stderr
    monkeypatch.setenv("ABRUZZI_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ABRUZZI_TOKEN", "nobody")
    assert "need a running platform" in CliRunner().invoke(app, ["plan", recipe]).stderr
