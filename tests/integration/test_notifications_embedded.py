"""Without Redis and Celery: the controller of an embedded platform does the same side work, also when it is killed in the middle of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
from ports import free_port
from webhook_receiver import WebhookReceiver

from abruzzi.contracts.notification import Channel, DeliveryState, Topic
from abruzzi.contracts.states import RunState

pytestmark = pytest.mark.slow
RECIPE = """
version = 1
name = "embedded"
[[stage]]
id = "work"
kind = "container"
[stage.container]
command = ["true"]
"""


def test_an_embedded_platform_tells_of_a_run_and_shows_its_state_although_the_controller_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    metrics_port = free_port()
    killed: list[int] = []

    def disturb(number: int) -> int:
        if number == 1:  # the receiver has it, the controller cannot say so any more
            killed.append(disturbed.platform.children["controller"])
            os.kill(killed[0], signal.SIGKILL)
        return 204

    with WebhookReceiver(status=disturb) as receiver:
        monkeypatch.setenv("ABRUZZI_WEBHOOK_SCHEMES", '["http"]')
        monkeypatch.setenv("ABRUZZI_WEBHOOK_PORTS", f"[{receiver.port}]")
        monkeypatch.setenv("ABRUZZI_WEBHOOK_NETWORKS", '["127.0.0.0/8"]')
        monkeypatch.setenv("ABRUZZI_METRICS_PORT", str(metrics_port))
        disturbed = request.getfixturevalue("disturbed")
        with disturbed.client() as client:
            made = client.notifications.subscribe(Channel.WEBHOOK, receiver.url, [Topic.RUN_ENDED])
            receiver.secret = made.secret or ""
            run_id = disturbed.submit(RECIPE)
            assert disturbed.wait_end(run_id).state is RunState.SUCCEEDED
            disturbed.until(lambda: [d.state for d in client.notifications.deliveries()] == [DeliveryState.SENT])
            assert killed
            assert receiver.refused == []
            assert len(receiver.requests) == 2
            [body] = receiver.effects.values()
            assert body["data"]["run_id"] == run_id
            assert {"verification", "retention"} <= {chore.name for chore in client.notifications.chores()}
        disturbed.until(lambda: 'abruzzi_runs{state="succeeded"} 1.0' in _metrics(metrics_port))


def _metrics(port: int) -> str:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=120.0).text
    except httpx.TransportError:
        return ""
