"""The API's manners: problems, idempotency, cursors, ETags, telemetry, logs, streams."""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from api_server import RECIPE, ApiServer, serve
from httpx_sse import connect_sse

from abruzzi.contracts.resources import Problem
from abruzzi.contracts.stage import DirectoryStore as StoreConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.store import DirectoryStore, commit_artifact
from abruzzi_api.openapi import PATH, describe


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture
def client(server: ApiServer) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def test_the_committed_description_is_the_one_of_this_code() -> None:
    assert PATH.read_text() == describe(), "run `make openapi`"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "runs/nosuchrunx", None, 404, "not_found"),
        ("GET", "nosuchnoun", None, 404, "not_found"),
        ("PATCH", "runs", None, 405, "method_not_allowed"),
        ("POST", "runs", {"recipe": 1}, 422, "invalid_request"),
        ("POST", "runs", {"recipe_toml": "version = 1"}, 422, "recipe_invalid"),
        ("GET", "runs?cursor=garbage", None, 422, "bad_cursor"),
        ("GET", "runs?limit=0", None, 422, "invalid_request"),
        ("GET", "metrics?run=x&key=BAD KEY", None, 422, "invalid_request"),
        ("GET", "attempts/../../etc/passwd", None, 404, "not_found"),
        ("GET", "runs/%00", None, 404, "not_found"),
    ],
)
def test_every_refusal_is_a_problem_with_code_and_trace(
    client: httpx.Client, method: str, path: str, body: object, status: int, code: str
) -> None:
    answer = client.request(method, path, json=body)
    problem = Problem.model_validate(answer.json())
    assert (answer.status_code, problem.code) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(problem.trace_id) == 16


def test_a_bad_recipe_comes_back_with_lines_and_remedies(client: httpx.Client) -> None:
    problem = client.post("runs", json={"recipe_toml": RECIPE.replace("container]", "contaner]")}).json()
    assert problem["code"] == "recipe_invalid"
    assert {"line", "key", "message", "hint"} <= set(problem["errors"][0])
    valid = client.post("recipes/validate", json={"recipe_toml": RECIPE.replace('"true"', '"tru')}).json()
    assert valid["valid"] is False
    assert valid["errors"][0]["line"] > 1


def test_the_same_post_at_once_is_one_run(server: ApiServer) -> None:
    def post(_: int) -> str:
        with server.client() as client:
            return client.post(
                "runs", json={"recipe_toml": RECIPE, "name": "race"}, headers={"Idempotency-Key": "race"}
            ).json()["id"]

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(post, range(6)))) == 1
    with server.client() as client:
        assert len(client.get("runs", params={"q": "race"}).json()["items"]) == 1


def test_a_refused_post_does_not_burn_its_key(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "mended"}
    assert client.post("runs", json={"recipe_toml": "version = 1"}, headers=headers).status_code == 422
    assert client.post("runs", json={"recipe_toml": RECIPE}, headers=headers).status_code == 201


def test_pages_hold_every_run_once_in_order(client: httpx.Client) -> None:
    made = [client.post("runs", json={"recipe_toml": RECIPE, "name": f"page-{i}"}).json()["id"] for i in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page = client.get("runs", params={"q": "page-", "limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        seen += [r["id"] for r in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


def test_steering_a_run_that_changed_meanwhile_is_refused(client: httpx.Client) -> None:
    run = client.post("runs", json={"recipe_toml": RECIPE})
    etag, run_id = run.headers["ETag"], run.json()["id"]
    assert client.post(f"runs/{run_id}/cancel", headers={"If-Match": '"999"'}).status_code == 412
    assert client.post(f"runs/{run_id}/cancel", headers={"If-Match": etag}).status_code == 202
    assert client.post(f"runs/{run_id}/cancel").status_code == 202
    assert client.post(f"runs/{run_id}/retry", json={}).json()["code"] == "run_not_ended"
    assert client.post(f"runs/{run_id}/cancel", headers={"If-Match": "x"}).status_code == 422


def test_metrics_survive_replay_and_reordering_and_lose_no_extremum(server: ApiServer, client: httpx.Client) -> None:
    run_id, attempt = server.run_with_attempt()
    rng = random.Random(7)
    truth = {step: rng.gauss(0, 1) for step in range(3000)}
    truth[1234], truth[77], truth[2048], truth[2999] = 1e6, -1e6, math.nan, math.inf
    steps = list(truth)
    rng.shuffle(steps)
    batches = [steps[i : i + 250] for i in range(0, len(steps), 250)]
    new = 0
    for chosen in [*batches, *rng.sample(batches, 4), steps[:900]]:
        values = [
            truth[s] if math.isfinite(truth[s]) else ("NaN" if math.isnan(truth[s]) else "Infinity") for s in chosen
        ]
        body = {"series": {"train/loss": {"steps": chosen, "values": values, "at": [float(s) for s in chosen]}}}
        answer = client.post(f"attempts/{attempt}/metrics", json=body)
        assert answer.status_code == 403, "people do not report"
        with server.client(server.token_of(attempt)) as stage:
            answer = stage.post(f"attempts/{attempt}/metrics", json=body)
        assert answer.status_code == 202, answer.text
        new += answer.json()["new"]
    assert new == 3000
    finite = [v for v in truth.values() if math.isfinite(v)]
    for max_points in (10_000, 500, 100, 10):
        (series,) = client.get("metrics", params={"run": run_id, "key": "train/loss", "max_points": max_points}).json()[
            "items"
        ]
        assert len(series["steps"]) <= max_points
        assert max(v for v in series["high"] if v is not None) == max(finite)
        assert min(v for v in series["low"] if v is not None) == min(finite)
        assert series["non_finite"] == [2048, 2999]
        assert series["steps"] == sorted(series["steps"])
        assert (series["tier"] == 1) == (max_points == 10_000)
        assert series["interval"] == 1.0
        weights = [end // series["tier"] - start // series["tier"] for start, end in zip(series["steps"], series["steps"][1:], strict=False)]  # fmt: skip
        assert all(weight == 1 for weight in weights)
    part = client.get(
        "metrics", params={"run": run_id, "key": "train/loss", "from_step": 1230, "to_step": 1240}
    ).json()["items"][0]
    assert part["steps"] == list(range(1230, 1241))
    assert part["values"] == [truth[s] for s in range(1230, 1241)]
    (key,) = client.get(f"runs/{run_id}/metrics/keys").json()["items"]
    assert (key["key"], key["last_step"]) == ("train/loss", 2999)


@pytest.mark.parametrize("points", [700, 2100, 9000])
@pytest.mark.parametrize("every", [1, 7])
def test_a_curve_has_a_quarter_of_the_points_asked_for_at_least_and_its_means_are_exact(
    server: ApiServer, client: httpx.Client, points: int, every: int
) -> None:
    run_id, attempt = server.run_with_attempt()
    rng = random.Random(points)
    truth = {step * every: rng.gauss(0, 1) for step in range(points)}
    with server.client(server.token_of(attempt)) as stage:
        for first in range(0, points, 3000):
            steps = list(truth)[first : first + 3000]
            column = {"steps": steps, "values": [truth[s] for s in steps], "at": [0.0] * len(steps)}
            assert stage.post(f"attempts/{attempt}/metrics", json={"series": {"train/loss": column}}).is_success
    asked = 600
    query = {"run": run_id, "key": "train/loss", "max_points": asked}
    (series,) = client.get("metrics", params=query).json()["items"]
    assert asked / 4 <= len(series["steps"]) <= asked
    assert series["interval"] == every
    members: dict[int, list[float]] = {}
    for step, value in truth.items():
        members.setdefault(step // series["tier"], []).append(value)
    assert series["means"] == pytest.approx([sum(m) / len(m) for m in members.values()])
    assert series["high"] == [max(m) for m in members.values()]


def test_values_near_the_largest_float_are_taken(server: ApiServer, client: httpx.Client) -> None:
    run_id, attempt = server.run_with_attempt()
    column = {"steps": list(range(64)), "values": [1.7e308] * 64, "at": [0.0] * 64}
    with server.client(server.token_of(attempt)) as stage:
        assert stage.post(f"attempts/{attempt}/metrics", json={"series": {"huge": column}}).is_success
    (series,) = client.get("metrics", params={"run": run_id, "key": "huge", "max_points": 10}).json()["items"]
    assert max(series["high"]) == 1.7e308


def test_columns_that_disagree_are_refused(server: ApiServer) -> None:
    _, attempt = server.run_with_attempt()
    with server.client(server.token_of(attempt)) as stage:
        body = {"series": {"a": {"steps": [1, 2], "values": [1.0], "at": [0.0, 0.0]}}}
        assert stage.post(f"attempts/{attempt}/metrics", json=body).status_code == 422
        assert (
            stage.post(
                f"attempts/{attempt}/metrics", json={"series": {"Bad Key": {"steps": [], "values": [], "at": []}}}
            ).status_code
            == 422
        )


def test_a_log_is_the_bytes_that_were_sent_whatever_is_sent_again(server: ApiServer, client: httpx.Client) -> None:
    _run_id, attempt = server.run_with_attempt()
    text = (
        "".join(f"line {i} {'x' * (i % 50)}\n" for i in range(400))
        + "progress 1\rprogress 2\rprogress 3\n<script>alert(1)</script>\nhalf a line"
    )
    data = text.encode()
    rng = random.Random(3)
    sent = 0
    with server.client(server.token_of(attempt)) as stage:
        while sent < len(data):
            start = max(0, sent - rng.choice([0, 0, 10, 100]))
            stop = min(len(data), sent + rng.randint(1, 3000))
            answer = stage.put(f"attempts/{attempt}/logs/0", params={"offset": start}, content=data[start:stop])
            assert answer.status_code == 200, answer.text
            sent = answer.json()["end_offset"]
            assert sent == stop
        gap = stage.put(f"attempts/{attempt}/logs/0", params={"offset": len(data) + 5}, content=b"x")
    assert (gap.status_code, gap.json()["code"], gap.json()["expected_offset"]) == (409, "log_gap", len(data))
    lines: list[str] = []
    offset = 0
    while True:
        page = client.get("logs", params={"attempt": attempt, "offset": offset, "limit": 150}).json()
        lines += [line["text"] for line in page["lines"]]
        if page["next_offset"] == offset:
            break
        offset = page["next_offset"]
    assert lines[:400] == text.split("\n")[:400]
    assert lines[400:] == ["progress 3", "<script>alert(1)</script>"]
    tail = client.get("logs", params={"attempt": attempt, "tail": 2}).json()
    assert [line["text"] for line in tail["lines"]] == ["progress 3", "<script>alert(1)</script>"]
    whole = client.get("logs", params={"attempt": attempt, "limit": 10_000}).json()["lines"]
    earlier: list[dict[str, object]] = []
    before = whole[-1]["offset"]
    while before > 0:
        page = client.get("logs", params={"attempt": attempt, "before": before, "limit": 33}).json()
        assert page["next_offset"] == before
        earlier = page["lines"] + earlier
        before = earlier[0]["offset"]
    assert earlier == whole[:-1]
    inside = client.get("logs", params={"attempt": attempt, "before": whole[7]["offset"] + 3, "limit": 1}).json()
    assert inside["lines"] == [whole[7]]
    assert client.get("logs", params={"attempt": attempt, "q": "LINE 399"}).json()["lines"] == [whole[399]]
    found = client.get("logs", params={"attempt": attempt, "q": "line 399"}).json()["lines"]
    assert [line["text"].split(" x")[0] for line in found] == ["line 399"]
    one = client.get("logs", params={"attempt": attempt, "offset": found[0]["offset"], "limit": 1}).json()["lines"]
    assert one == found


def test_a_stream_shows_every_event_once_though_commits_interleave_and_the_connection_breaks(server: ApiServer) -> None:
    run_id, _ = server.run_with_attempt()
    insert = "INSERT INTO events (project_id, run_id, kind, body) VALUES ('default', %s, 'test', %s) RETURNING id"
    numbers = iter(range(1000))

    def put(connection: psycopg.Connection) -> int:
        row = connection.execute(insert, (run_id, json.dumps({"n": next(numbers)}))).fetchone()
        assert row is not None
        return row[0]

    expected: list[int] = []
    seen: list[int] = []

    def write() -> None:
        for _ in range(6):
            with psycopg.connect(server.owner_url) as early, psycopg.connect(server.owner_url) as late:
                first, second = put(early), put(late)
                late.commit()  # the higher number is visible first
                with psycopg.connect(server.owner_url, autocommit=True) as third:
                    last = put(third)
                early.commit()
                expected.extend(sorted((first, second, last)))

    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        start = put(connection)
    writer = threading.Thread(target=write)
    writer.start()
    position = str(start)
    with server.client() as client:
        while len(seen) < 18:  # who asks for more would wait for ever
            with connect_sse(
                client, "GET", "events/stream", params={"run": run_id}, headers={"Last-Event-ID": position}
            ) as source:
                for event in source.iter_sse():
                    if not event.data or event.event == "ping":
                        continue  # the retry hint
                    seen.append(int(event.id))
                    position = event.id
                    if len(seen) % 4 == 0 or len(seen) >= 18:
                        break  # the connection is lost
    writer.join()
    assert seen == expected


def test_a_run_stream_begins_with_the_run_and_ends_with_it(server: ApiServer) -> None:
    run_id, _ = server.run_with_attempt()
    kinds: list[str] = []
    with server.client() as client, connect_sse(client, "GET", f"runs/{run_id}/stream") as source:
        for event in source.iter_sse():
            if not event.data or event.event == "ping":
                continue  # the retry hint
            kinds.append(event.event)
            if kinds == ["run", "metrics"]:
                with psycopg.connect(server.owner_url, autocommit=True) as connection:
                    connection.execute(
                        "UPDATE runs SET state = 'succeeded', version = version + 1 WHERE id = %s", (run_id,)
                    )
                    connection.execute("SELECT pg_notify('abruzzi_events', %s)", (run_id,))
            if event.event == "run" and len(kinds) > 2:
                assert json.loads(event.data)["state"] == "succeeded"
    assert kinds[-1] == "end"


def test_a_run_stream_does_not_end_before_the_last_event_though_an_older_writer_is_still_open(
    server: ApiServer,
) -> None:
    run_id, _ = server.run_with_attempt()
    insert = "INSERT INTO events (project_id, run_id, kind, body) VALUES ('default', %s, %s, '{}')"
    told: list[str] = []
    with (
        psycopg.connect(server.owner_url) as older,
        server.client() as client,
        connect_sse(client, "GET", f"runs/{run_id}/stream") as source,
    ):
        older.execute(insert, (run_id, "artifact.created"))
        for event in source.iter_sse():
            if event.event == "run" and json.loads(event.data)["state"] == "running":
                with psycopg.connect(server.owner_url) as ending:
                    ending.execute("UPDATE runs SET state = 'failed', version = version + 1 WHERE id = %s", (run_id,))
                    ending.execute(insert, (run_id, "run.state"))
                    ending.execute("SELECT pg_notify('abruzzi_events', %s)", (run_id,))
            elif event.event == "run":
                told.append("failed")
                older.commit()
            elif event.event == "event":
                told.append(json.loads(event.data)["kind"])
            elif event.event == "end":
                told.append("end")
    assert told == ["failed", "artifact.created", "run.state", "end"]


def test_a_run_stream_takes_a_shrinking_eta_for_no_news(server: ApiServer) -> None:
    run_id, attempt_id = server.run_with_attempt()
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ranks (attempt_id, rank, project_id, step, total_steps, phase, message, first_step, first_at, heartbeat_at) "
            "VALUES (%s, 0, 'default', 50, 100000, 'train', '', 0, now() - interval '100 s', now())",
            (attempt_id,),
        )
    told: list[str] = []

    def look(change: str, *values: str) -> None:
        """The stream looks at the run again: what is told then, comes before this event."""
        with psycopg.connect(server.owner_url) as connection:
            connection.execute(change, values)
            connection.execute("SELECT pg_notify('abruzzi_events', %s)", (run_id,))

    insert = "INSERT INTO events (project_id, run_id, kind, body) VALUES ('default', %s, 'look', '{}')"
    with server.client() as client, connect_sse(client, "GET", f"runs/{run_id}/stream") as source:
        for event in source.iter_sse():
            if event.event in ("run", "event"):
                told.append(event.event)
            if event.event == "run":
                assert json.loads(event.data)["detail"][0]["eta_seconds"] > 0
                if json.loads(event.data)["name"] == "renamed":
                    break
            if event.event in ("run", "event") and told.count("event") < 3:
                look(insert, run_id)
            elif event.event == "event":
                look("UPDATE runs SET name = 'renamed' WHERE id = %s", run_id)
    assert told == ["run", "event", "event", "event", "run"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: httpx.Client) -> None:
    assert client.post("recipes/validate", content=b"x" * (9 << 20)).status_code == 413


def test_the_page_carries_a_policy_and_unknown_addresses_of_it_still_open(server: ApiServer) -> None:
    with httpx.Client(base_url=server.url, timeout=120.0) as browser:
        answer = browser.get("/")
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert browser.get("/api/v1/openapi.json").json()["openapi"].startswith("3.1")
        assert browser.get("/healthz").json() == {"status": "ok"}
        assert "abruzzi_api_requests_total" in browser.get("/metrics").text
        assert "root:" not in browser.get("/assets/%2e%2e/%2e%2e/etc/passwd").text


def test_what_retention_removed_is_marked_at_the_next_checkpoint_not_only_at_the_end(
    server: ApiServer, client: httpx.Client, tmp_path: Path
) -> None:
    run_id, attempt_id = server.run_with_attempt()
    objects, source = DirectoryStore(server.store), tmp_path / "weights"
    spec = StageSpec(
        project_id="default", run_id=run_id, stage_id="train", attempt_id=attempt_id, epoch=1, kind=StageKind.CONTAINER, config={},
        store=StoreConfig(root=str(server.store)), output_prefix=f"projects/default/runs/{run_id}/train/",
    )  # fmt: skip
    keys = []
    with server.client(server.token_of(attempt_id)) as stage:
        for step in (10, 20):
            if keys:
                objects.delete(keys[0])
            source.write_text(str(step))
            key, manifest = commit_artifact(
                objects, spec, kind=ArtifactKind.CHECKPOINT, name=f"step-{step:08}", files={"w": source}, step=step
            )
            keys.append(key)
            body = {"manifest_key": key, "digest": manifest.digest()}
            assert stage.post(f"attempts/{attempt_id}/artifacts", json=body).status_code == 202
    made = client.get("artifacts", params={"run": run_id}).json()["items"]
    assert {a["name"]: a["deleted_at"] is not None for a in made} == {"step-00000010": True, "step-00000020": False}
