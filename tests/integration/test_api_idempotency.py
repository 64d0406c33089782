"""An Idempotency-Key on any POST: the same answer again, headers and all, and nothing done twice."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from api_server import RECIPE, ApiServer, serve
from api_things import Things, asked, send

from abruzzi.identity.policy import POLICY
from abruzzi_api.app import ApiRoute, api_routes
from abruzzi_api.gatekeeper import PUBLIC

POSTS = [route for route in api_routes() if "POST" in route.methods and ("POST", route.path) not in PUBLIC]
"""The public one, the sign-in, comes before there is anybody whose key it could be; it changes nothing."""


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture(scope="module")
def things(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Things:
    return Things.make(server, "default", tmp_path_factory.mktemp("things"))


def allowed_token(things: Things, route: ApiRoute) -> str:
    assert route.permit is not None
    return next(
        t
        for role, t in (("admin", things.admin), ("attempt", things.attempt_token))
        if route.permit.action in POLICY[role]
    )  # type: ignore[index]


@pytest.mark.parametrize("route", POSTS, ids=lambda route: route.path)
def test_the_same_key_twice_is_one_deed_with_one_answer(things: Things, route: ApiRoute) -> None:
    request, token, key = asked("POST", route.path), allowed_token(things, route), f"twice {route.path}"
    body = request.body(things) if request.body else None
    first = send(things, "POST", route.path, token, body=body, key=key)
    assert first.status_code == request.status, first.text
    again = send(things, "POST", route.path, token, body=body, key=key, prepare=False)
    assert again.headers.get("Idempotency-Replayed") == "true", again.text
    assert again.status_code == first.status_code
    made = first.json()
    secret = made.get("token") or made.get("secret") or (made.get("admin") or {}).get("token")
    assert again.text == (first.text.replace(secret, "shown once") if secret else first.text)
    moves = {"date", "content-length", "idempotency-replayed"}
    assert [(n, v) for n, v in again.headers.items() if n not in moves] == [
        (n, v) for n, v in first.headers.items() if n not in moves
    ]


@pytest.mark.parametrize("route", POSTS, ids=lambda route: route.path)
def test_the_same_key_with_another_body_is_refused(things: Things, route: ApiRoute) -> None:
    request, token, key = asked("POST", route.path), allowed_token(things, route), f"other {route.path}"
    body = request.body(things) if request.body else {}
    assert send(things, "POST", route.path, token, body=body, key=key).status_code == request.status
    other = send(things, "POST", route.path, token, body=b'{"something": "else"}', key=key)
    if request.body is not None:  # a body of another shape is refused for that; the same shape with other values:
        other = send(things, "POST", route.path, token, body={**body, **_changed(body)}, key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused"), other.text


def _changed(body: dict[str, object]) -> dict[str, object]:
    """Still valid, and different."""
    changes: dict[str, object] = {
        "recipe_toml": RECIPE + "\n", "artifact_id": "another", "name": "another", "stage_id": "a", "step": 2,
        "manifest_key": "projects/another", "series": {}, "topics": ["run.failed"],
    }  # fmt: skip
    fitting = {name: value for name, value in changes.items() if name in body}
    return fitting or {"stage_id": "a"}


def test_a_key_belongs_to_its_token(things: Things, server: ApiServer) -> None:
    made = [server.submit(name="mine") for _ in range(1)]
    for token in (things.admin, server.admin):
        with server.client(token) as client:
            answer = client.post("runs", json={"recipe_toml": RECIPE}, headers={"Idempotency-Key": "ours"})
            assert answer.status_code == 201
            made.append(answer.json())
    assert len({run["id"] for run in made}) == 3


def test_no_secret_is_kept_for_a_replay(things: Things, server: ApiServer) -> None:
    with server.client() as admin:
        made = admin.post("tokens", json={"name": "ci", "role": "viewer"}, headers={"Idempotency-Key": "secret"}).json()
        tenant = admin.post(
            "projects", json={"id": "kept", "name": "Kept"}, headers={"Idempotency-Key": "tenant"}
        ).json()
    with psycopg.connect(server.owner_url) as connection:
        kept = str(connection.execute("SELECT response FROM idempotency_keys").fetchall())
    assert "shown once" in kept
    for secret in (made["token"], tenant["admin"]["token"]):
        assert secret.rsplit("_", 1)[-1][-20:] not in kept
