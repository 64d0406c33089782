"""Notifications as people meet them: over REST and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from api_server import ApiServer, serve
from typer.testing import CliRunner, Result

from abruzzi.cli.main import app
from abruzzi.contracts.states import Role
from abruzzi.kit.ids import new_id

HOOK = {"channel": "webhook", "target": "https://hooks.example.org/abruzzi", "topics": ["run.failed", "run.ended"]}


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture
def project() -> str:
    """A new one for each test."""
    return new_id()


@pytest.fixture
def token(server: ApiServer, project: str) -> str:
    return server.token(Role.ADMIN, project=project)


@pytest.fixture
def admin(server: ApiServer, token: str) -> Iterator[httpx.Client]:
    with server.client(token) as client:
        yield client


def subscribe(admin: httpx.Client, **changed: Any) -> dict[str, Any]:
    answer = admin.post("notifications", json={**HOOK, **changed})
    assert answer.status_code == 201, answer.text
    return answer.json()


def execute(server: ApiServer, statement: str, *values: str) -> None:
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute(statement, values)  # type: ignore[arg-type]


def test_a_subscription_is_made_with_a_secret_that_is_shown_once_listed_and_ended(admin: httpx.Client) -> None:
    made = subscribe(admin)
    assert made["secret"].startswith("whsec_")
    assert made["topics"] == ["run.ended", "run.failed"]
    listed = admin.get("notifications")
    assert [item["id"] for item in listed.json()["items"]] == [made["id"]]
    assert made["secret"] not in listed.text
    assert admin.delete(f"notifications/{made['id']}").status_code == 204
    assert admin.get("notifications").json()["items"] == []
    assert admin.delete(f"notifications/{made['id']}").status_code == 404


def test_a_repeated_request_makes_one_subscription_and_keeps_no_secret(
    admin: httpx.Client, server: ApiServer, project: str
) -> None:
    key = {"Idempotency-Key": "one"}
    first, second = (admin.post("notifications", json=HOOK, headers=key).json() for _ in range(2))
    assert first["id"] == second["id"]
    assert second["secret"] == "shown once"
    with psycopg.connect(server.owner_url) as connection:
        [(kept,)] = connection.execute(
            "SELECT response FROM idempotency_keys WHERE project_id = %s", [project]
        ).fetchall()
    assert first["secret"] not in kept


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"target": "http://hooks.example.org/"}, "bad_target", "scheme must be https"),
        ({"target": "https://127.0.0.1/"}, "bad_target", "not a public address"),
        ({"target": "https://2130706433/"}, "bad_target", "not a public address"),
        ({"target": "https://[::ffff:169.254.169.254]/latest"}, "bad_target", "not a public address"),
        ({"target": "https://hooks.example.org:25/"}, "bad_target", "port must be 443 or 8443"),
        ({"channel": "email", "target": "team@example.org"}, "bad_target", "no mail server"),
        ({"topics": []}, "invalid_request", "topics"),
        ({"topics": ["run.exploded"]}, "invalid_request", "run.submitted"),
        ({"channel": "pigeon"}, "invalid_request", "webhook"),
        ({"surprise": 1}, "invalid_request", "surprise"),
    ],
)
def test_what_cannot_be_subscribed_to_is_refused_with_a_reason(
    admin: httpx.Client, changed: dict[str, Any], code: str, said: str
) -> None:
    answer = admin.post("notifications", json={**HOOK, **changed})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert said in answer.json()["detail"]
    assert answer.json()["hint"]


def test_a_project_has_a_limited_number_of_subscriptions(admin: httpx.Client, server: ApiServer, project: str) -> None:
    execute(
        server,
        "INSERT INTO subscriptions (id, project_id, channel, target, topics, created_by, created_at) "
        "SELECT 'x' || n, %s, 'webhook', 'https://example.org', '{run.ended}', 'me', now() FROM generate_series(1, 50) n",
        project,
    )
    answer = admin.post("notifications", json=HOOK)
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many")


def test_what_was_quarantined_is_shown_with_its_error_and_tried_again_by_hand(
    admin: httpx.Client, server: ApiServer, project: str
) -> None:
    made = subscribe(admin)
    delivery = admin.post(f"notifications/{made['id']}/test").json()
    assert delivery["state"] == "pending"
    assert admin.post(f"notifications/deliveries/{delivery['id']}/retry").status_code == 409
    execute(
        server, "UPDATE deliveries SET state = 'quarantined', tries = 8, last_error = 'hooks.example.org answered 500.'"
    )
    [shown] = admin.get("notifications/deliveries", params={"state": "quarantined"}).json()["items"]
    assert (shown["id"], shown["tries"], shown["error"]) == (delivery["id"], 8, "hooks.example.org answered 500.")
    again = admin.post(f"notifications/deliveries/{delivery['id']}/retry").json()
    assert (again["state"], again["tries"]) == ("pending", 0)
    execute(
        server,
        "INSERT INTO outbox (project_id, kind, body, tries, last_error, quarantined_at) "
        "VALUES (%s, 'run.ended', '{}', 6, 'KeyError: run_id', now())",
        project,
    )
    [message] = admin.get("notifications/quarantine").json()["items"]
    assert (message["kind"], message["error"]) == ("run.ended", "KeyError: run_id")
    assert admin.post(f"notifications/quarantine/{message['id']}/retry").status_code == 200
    assert admin.get("notifications/quarantine").json()["items"] == []
    assert admin.post(f"notifications/quarantine/{message['id']}/retry").status_code == 404


def test_chores_are_shown_to_maintainers(admin: httpx.Client, server: ApiServer, project: str) -> None:
    execute(server, "INSERT INTO chores (name, failures, last_error) VALUES ('grafana', 3, 'Client Error 403: no')")
    [chore] = [c for c in admin.get("notifications/chores").json()["items"] if c["name"] == "grafana"]
    assert (chore["name"], chore["failures"], chore["error"]) == ("grafana", 3, "Client Error 403: no")
    with server.client(server.token(Role.MEMBER, project=project)) as member:
        assert member.get("notifications/chores").status_code == 403


def test_another_project_sees_and_touches_nothing(admin: httpx.Client, server: ApiServer) -> None:
    made = subscribe(admin)
    delivery = admin.post(f"notifications/{made['id']}/test").json()
    with server.client(server.token(Role.ADMIN, project="elsewhere")) as stranger:
        assert stranger.get("notifications").json()["items"] == []
        assert stranger.get("notifications/deliveries").json()["items"] == []
        assert stranger.post(f"notifications/{made['id']}/test").status_code == 404
        assert stranger.post(f"notifications/deliveries/{delivery['id']}/retry").status_code == 404
        assert stranger.delete(f"notifications/{made['id']}").status_code == 404
    assert len(admin.get("notifications").json()["items"]) == 1


def test_changes_are_in_the_audit_log_without_the_secret(admin: httpx.Client) -> None:
    made = subscribe(admin)
    admin.delete(f"notifications/{made['id']}")
    told = admin.get("audit").json()["items"]
    assert {"POST /api/v1/notifications", "DELETE /api/v1/notifications/{subscription_id}"} <= {
        a["action"] for a in told
    }
    assert made["secret"] not in str(told)


def test_an_export_is_asked_for_over_rest(admin: httpx.Client, server: ApiServer, project: str) -> None:
    run_id, _ = server.run_with_attempt(project)
    asked = admin.post(f"runs/{run_id}/export")
    assert asked.status_code == 202
    assert (asked.json()["run_id"], asked.json()["stage_id"]) == (run_id, "train")


def test_the_command_line_subscribes_tests_shows_and_ends(server: ApiServer, token: str, project: str) -> None:
    def command(*arguments: str) -> Result:
        return CliRunner().invoke(
            app, ["notifications", *arguments], env={"ABRUZZI_URL": server.url, "ABRUZZI_TOKEN": token}
        )

    said = command("subscribe", "https://hooks.example.org/x", "--topic", "run.failed")
    assert "whsec_" in said.output, said.output
    [made] = json.loads(command("list", "--json").output)
    assert made["topics"] == ["run.failed"]
    assert made["target"] in command("list").output
    delivery = json.loads(command("test", made["id"], "--json").output)
    assert delivery["id"] in command("deliveries").output
    execute(
        server,
        "UPDATE deliveries SET state = 'quarantined', last_error = 'answered 500.' WHERE project_id = %s",
        project,
    )
    assert "answered 500." in command("deliveries", "--state", "quarantined").output
    assert "is tried again" in command("retry", delivery["id"]).output
    execute(server, "INSERT INTO chores (name, last_error) VALUES ('verification', 'the store is away')")
    assert "the store is away" in command("work").output
    assert set(json.loads(command("work", "--json").output)) == {"chores", "quarantined"}
    assert "is ended" in command("unsubscribe", made["id"]).output
    assert json.loads(command("list", "--json").output) == []
