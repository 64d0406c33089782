"""Celery as a doorbell: JSON only, bounded tasks, rings that expire, nothing kept in the broker. And importing it needs no broker."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydantic import SecretStr

from abruzzi.kit.settings import Settings

SETTINGS = {"ABRUZZI_REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture(scope="module")
def facts() -> dict[str, object]:
    """Of the app as a worker imports it, in a process of its own."""
    program = """
import json
from abruzzi.workers import app
conf = app.app.conf
limits = {name: task.time_limit or conf.task_time_limit for name, task in app.app.tasks.items() if name.startswith("abruzzi.")}
print(json.dumps({"accept": list(conf.accept_content), "serializer": conf.task_serializer, "ignore": conf.task_ignore_result,
  "backend": conf.result_backend, "prefetch": conf.worker_prefetch_multiplier, "limits": limits, "acks_late": conf.task_acks_late,
  "visibility": conf.broker_transport_options["visibility_timeout"], "beat": {n: e["task"] for n, e in conf.beat_schedule.items()},
  "expires": [e["options"]["expires"] for e in conf.beat_schedule.values()]}))
"""
    environment = {"PATH": "", **SETTINGS}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_messages_are_json_and_nothing_else_is_accepted(facts) -> None:  # type: ignore[no-untyped-def]
    assert (facts["accept"], facts["serializer"]) == (["json"], "json")


def test_the_broker_keeps_no_results_and_hands_out_nothing_in_advance(facts) -> None:  # type: ignore[no-untyped-def]
    assert (facts["ignore"], facts["backend"], facts["prefetch"], facts["acks_late"]) == (True, None, 1, False)


def test_every_task_is_bounded_and_no_message_comes_back_for_having_taken_long(facts) -> None:  # type: ignore[no-untyped-def]
    limits = facts["limits"]
    assert set(limits) == {"abruzzi.sweep", "abruzzi.messages", "abruzzi.deliveries", "abruzzi.chore"}
    assert max(limits.values()) <= 300
    assert facts["visibility"] >= 10 * max(limits.values())


def test_the_clock_rings_the_sweeper_only_and_its_rings_expire(facts) -> None:  # type: ignore[no-untyped-def]
    assert facts["beat"] == {"sweep": "abruzzi.sweep"}
    assert all(0 < expires < 10 for expires in facts["expires"])


def test_without_a_broker_it_says_which_setting_is_missing() -> None:
    with pytest.raises(SystemExit, match="ABRUZZI_REDIS_URL"):
        Settings().require("redis_url")
    assert Settings(redis_url=SecretStr("redis://x")).require("redis_url") == "redis://x"
