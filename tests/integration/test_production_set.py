"""docker-compose.yml for real, without containers: Debian's Postgres, Redis and Prometheus, MinIO, API, controller, Celery worker and beat."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import free_port
from production_set import ProductionSet, missing_programs, panels
from webhook_receiver import WebhookReceiver

from abruzzi.contracts.notification import Channel, DeliveryState, Topic
from abruzzi.contracts.states import ArtifactKind, RunState

pytestmark = pytest.mark.slow

RECEIVER_PORT = free_port()
STAGE = """
import pathlib, sys, time
from abruzzi.client.stage import Reporter, StageContext

context = StageContext.from_env()
made = pathlib.Path("made.txt")
made.write_text("made in production")
with Reporter.from_context(context) as reporter:
    step = 0
    while True:
        step += 1
        reporter.log({"train/loss": 1.0 / step, "train/tokens_per_second": 100.0, "train/step_seconds": 0.1}, step=step)
        if pathlib.Path(sys.argv[1]).exists():
            break
        time.sleep(0.1)
context.commit("files", "made", {"made.txt": made}, meta={"score": 1.0})
print("the stage has ended", flush=True)
"""
FAILS = """
version = 1
name = "fails"
[[stage]]
id = "tries"
kind = "container"
[stage.container]
command = ["sh", "-c", "exit 75"]
"""


def recipe(go_file: Path) -> str:
    return f"""
version = 1
name = "production"

[[stage]]
id = "work"
kind = "container"
[stage.container]
command = ["{sys.executable}", "-c", '''{STAGE}''', "{go_file}"]
"""


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductionSet]:
    if missing := missing_programs():
        pytest.skip(f"the production set needs {', '.join(missing)} (apt-get install {' '.join(missing)})")
    webhooks = {
        "ABRUZZI_WEBHOOK_SCHEMES": '["http"]',
        "ABRUZZI_WEBHOOK_PORTS": f"[{RECEIVER_PORT}]",
        "ABRUZZI_WEBHOOK_NETWORKS": '["127.0.0.0/8"]',
    }
    with ProductionSet(tmp_path_factory.mktemp("production"), webhooks) as made:
        if not made.s3_is_minio:
            warnings.warn(
                "S3 of the production set is moto's server: no MinIO on the PATH or in ABRUZZI_CLUSTER_TOOLS",
                stacklevel=1,
            )
        yield made


def test_a_run_is_made_and_told_once_although_the_worker_is_killed_and_redis_forgets_everything(
    production: ProductionSet, tmp_path: Path
) -> None:
    disturbances: list[str] = []

    def disturb(number: int) -> int:
        if number == 1:  # in the middle of the first delivery: the receiver has it, the worker cannot say so any more
            production.kill("worker")
            production.redis().flushall()
            production.start("worker")
            disturbances.append("killed and flushed")
        return 204

    go = tmp_path / "go"
    go.touch()
    with WebhookReceiver(status=disturb, listen_port=RECEIVER_PORT) as receiver, production.client() as client:
        made = client.notifications.subscribe(Channel.WEBHOOK, receiver.url, [Topic.RUN_ENDED])
        assert made.secret is not None
        receiver.secret = made.secret
        run = client.runs.wait(client.runs.submit(recipe(go)).id, timeout_seconds=240)
        assert run.state is RunState.SUCCEEDED, production.last_words()
        [delivery] = _until(production, lambda: list(client.notifications.deliveries()))
        _until(production, lambda: next(client.notifications.deliveries()).state is DeliveryState.SENT)
        assert disturbances == ["killed and flushed"]
        assert receiver.refused == []
        assert [delivery_id for delivery_id, _ in receiver.requests] == [delivery.id, delivery.id]
        [body] = receiver.effects.values()
        assert (body["type"], body["data"]["run_id"], body["data"]["state"]) == ("run.ended", run.id, "succeeded")
        assert next(client.notifications.deliveries()).tries == 2
        assert list(client.notifications.quarantine()) == []


def test_artifacts_logs_and_exports_lie_in_s3(production: ProductionSet, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.touch()
    with production.client() as client:
        run = client.runs.wait(client.runs.submit(recipe(go)).id, timeout_seconds=240)
        [made] = client.artifacts.list(run.id)
        assert client.artifacts.read(made.id, "made.txt") == b"made in production"
        asked = client.runs.export(run.id)
        [export] = _until(production, lambda: list(client.artifacts.list(run.id, kind=ArtifactKind.EXPORT)))
        assert export.name == asked.name
        paths = {entry.path for entry in client.artifacts.manifest(export.id).files}
        assert {"run.json", "recipe.toml", "events.jsonl", "metrics.parquet"} <= paths
    keys = list(production.objects().list(f"projects/default/runs/{run.id}/"))
    assert made.manifest_key in keys
    assert export.manifest_key in keys
    assert any("/logs/" in key for key in keys)


def test_redis_may_forget_everything_again_and_again(production: ProductionSet, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.touch()
    with WebhookReceiver(listen_port=RECEIVER_PORT) as receiver, production.client() as client:
        receiver.secret = (
            client.notifications.subscribe(Channel.WEBHOOK, receiver.url, [Topic.RUN_SUBMITTED]).secret or ""
        )
        asked = [client.runs.submit(recipe(go)).id for _ in range(3)]
        deadline = time.monotonic() + 240
        while len(receiver.effects) < 3:
            production.redis().flushall()
            time.sleep(0.2)
            assert time.monotonic() < deadline, production.last_words()
        assert sorted(body["data"]["run_id"] for body in receiver.effects.values()) == sorted(asked)
        for run_id in asked:
            assert client.runs.wait(run_id, timeout_seconds=240).state is RunState.SUCCEEDED


def test_an_operator_sees_what_a_policy_would_remove_before_it_does(production: ProductionSet) -> None:
    command = [sys.executable, "-m", "abruzzi.workers", "retention", "--dry-run"]
    default = json.loads(production.ask("worker", command))
    assert set(default) == {"artifacts", "idempotency_keys", "outbox", "deliveries", "tokens"}
    given = json.loads(production.ask("worker", command, ABRUZZI_RETENTION='{"log_days": 90, "outbox_days": null}'))
    assert set(given) == {"log_chunks", "artifacts", "idempotency_keys", "deliveries", "tokens"}
    assert set(given.values()) == {0}


def test_workers_go_on_after_redis_was_killed_and_started_again(production: ProductionSet, tmp_path: Path) -> None:
    """Celery's consumer can fall silent for ever after a lost connection; here it must be back, by itself or by its watchdog."""
    go = tmp_path / "go"
    go.touch()
    production.kill("redis")
    with WebhookReceiver(listen_port=RECEIVER_PORT) as receiver, production.client() as client:
        receiver.secret = (
            client.notifications.subscribe(Channel.WEBHOOK, receiver.url, [Topic.RUN_SUBMITTED]).secret or ""
        )
        run_id = client.runs.submit(recipe(go)).id
        production.start("redis")
        _until(production, lambda: [body for body in receiver.effects.values() if body["data"]["run_id"] == run_id])
        assert production.processes["worker"].poll() is None
        assert client.runs.wait(run_id, timeout_seconds=240).state is RunState.SUCCEEDED


def test_every_panel_of_every_dashboard_has_an_answer_from_prometheus(
    production: ProductionSet, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with production.client() as client, httpx.Client(base_url=production.prometheus_url, timeout=60.0) as prometheus:
        training = client.runs.submit(recipe(go)).id
        client.runs.submit(FAILS)  # fails, waits to be tried again, and so on: a queue and failed attempts

        def answer(query: str) -> list[Any]:
            now = time.time()
            asked = {"query": query.replace("$__rate_interval", "30s"), "start": now - 120, "end": now, "step": 1}
            told = prometheus.post("/api/v1/query_range", data=asked).json()
            assert told["status"] == "success", (query, told)
            return told["data"]["result"]

        queries = list(panels())
        assert len(queries) >= 20

        def trained_runs() -> set[str]:
            return {series["metric"]["run"] for series in answer("max by (run, stage) (abruzzi_training_loss)")}

        try:
            _until(production, lambda: training in trained_runs())
            _until(production, lambda: all(answer(query) for _, _, query in queries))
        finally:
            go.touch()

        def health() -> set[tuple[str, str]]:
            """By the last scrape, which a busy machine may have kept waiting for longer than its second."""
            targets = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
            return {(t["labels"]["job"], t["health"]) for t in targets}

        _until(production, lambda: health() == {("abruzzi-api", "up"), ("abruzzi-controller", "up")})
        assert client.runs.wait(training, timeout_seconds=240).state is RunState.SUCCEEDED


def _until(production: ProductionSet, question: Any) -> Any:
    """The first answer that is true."""
    answers: list[Any] = []

    def asked() -> bool:
        answers.append(question())
        return bool(answers[-1])

    production.until(asked, seconds=240)
    return answers[-1]
