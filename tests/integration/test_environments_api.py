"""Environments over the API: the shipped ones, one's own, and what stages tell of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from api_server import ApiServer, serve

from abruzzi.contracts.states import Role


@pytest.fixture
def server(database, tmp_path) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(database.url("app"), database.url("superuser"), tmp_path) as made:
        yield made


PLAYED = [
    {"name": "arithmetic", "families": ["addition"], "options": {"digits": 2}, "weight": 1.0, "reward": "environment"},
    {"name": "my.package:Gym"},
    {"name": "mathematics", "families": ["roots"], "reward": "environment"},
    {"name": "mathematics", "families": ["fractions"], "reward": "rubric"},
]
TOLD = {
    "rl/environment/arithmetic/reward": [0.25, 0.75],
    "rl/environment/arithmetic/trajectories": [96.0, 90.0],
    "rl/environment/arithmetic/steps": [96.0, 180.0],
    "rl/environment/my-package-gym/reward": [0.5, 1.0],
    "rl/environment/mathematics/reward": [0.5, 0.5],
    "rl/environment/mathematics/trajectories": [96.0, 96.0],
    "rl/environment/mathematics/steps": [96.0, 96.0],
    "rollout/held_sessions": [0.0, 3.0],
}


def test_each_environment_is_there_with_the_stages_that_play_it_and_what_they_tell(server: ApiServer) -> None:
    run_id, attempt_id = server.run_with_attempt()
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        config = json.dumps({"rl": {"environments": PLAYED}})
        connection.execute("UPDATE stages SET kind = 'rl', config = %s WHERE run_id = %s", (config, run_id))
    series = {key: {"steps": [1, 2], "values": values, "at": [0.0, 1.0]} for key, values in TOLD.items()}
    with server.client(server.token_of(attempt_id)) as stage:
        answer = stage.post(f"attempts/{attempt_id}/metrics", json={"series": series})
        assert answer.status_code == 202, answer.text
    with server.client(server.token(Role.VIEWER)) as viewer:
        found = {item["environment"]: item for item in viewer.get("environments").json()["items"]}
    arithmetic, own, logic = found["arithmetic@1"], found["my.package:Gym"], found["logic@1"]
    assert "comparison" in arithmetic["families"]
    (play,) = arithmetic["plays"]
    assert (play["run_id"], play["stage_id"], play["state"], play["families"]) == (
        run_id,
        "train",
        "running",
        ["addition"],
    )
    assert [play[key] for key in ("iterations", "mean_reward", "trajectories", "steps", "open_sessions", "seconds")] == [
        2, 0.75, 90.0, 180.0, 3.0, None,
    ]  # fmt: skip
    assert (own["is_shipped"], own["plays"][0]["mean_reward"], own["plays"][0]["reward"]) == (False, 1.0, "environment")
    twice = [
        (play["families"], play["iterations"], play["mean_reward"], play["trajectories"], play["steps"])
        for play in found["mathematics@1"]["plays"]
    ]
    assert twice == [(["roots"], 2, None, None, None), (["fractions"], 2, None, None, None)], (
        "what is told of both together is the figure of neither"
    )
    assert (logic["is_shipped"], logic["plays"]) == (True, [])
