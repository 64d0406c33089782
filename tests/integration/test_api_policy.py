"""Every route, asked by everybody, answers as the policy table says. Routes come from the router: a new one is tested by being there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_server import ApiServer, serve
from pydantic import SecretStr

from abruzzi.contracts.states import Role
from abruzzi.identity.policy import POLICY, Action
from abruzzi.kit.settings import Settings
from abruzzi_api.app import ApiRoute, api_routes, check_permissions, create_app
from abruzzi_api.gatekeeper import CSRF_HEADER, PUBLIC

APP = create_app(Settings(database_url=SecretStr("postgresql://nobody@localhost/none"), signing_key=SecretStr("none")))
ROUTES = [
    (method, route) for route in api_routes() for method in sorted(route.methods) if (method, route.path) not in PUBLIC
]
PEOPLE = [Role.VIEWER, Role.MEMBER, Role.MAINTAINER, Role.ADMIN]


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture(scope="module")
def tokens(server: ApiServer) -> dict[str, str]:
    _, attempt = server.run_with_attempt()
    return {
        **{role.value: server.token(role) for role in PEOPLE},
        "expired": server.token(Role.ADMIN, expired=True),
        "revoked": server.token(Role.ADMIN, revoked=True),
        "stranger": server.token(Role.ADMIN, project="elsewhere"),
        "other attempt": server.token(Role.ATTEMPT, attempt=attempt),
    }


def ask(server: ApiServer, method: str, path: str, token: str | None, ids: dict[str, str]) -> httpx.Response:
    """A request whose ids exist; bodies are empty objects, which is enough to get past the door."""
    filled = path.replace("{path:path}", "file.txt")
    for name, value in ids.items():
        filled = filled.replace("{" + name + "}", value)
    query = (
        {"run": ids["run_id"], "attempt": ids["attempt_id"], "key": "train/loss", "offset": "0"}
        if "stream" not in path
        else {}
    )
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    with httpx.Client(base_url=server.url, headers=headers, timeout=20.0) as client:
        if path.endswith("/stream"):
            with client.stream(method, filled, params={"attempt": ids["attempt_id"]}) as answer:
                if not answer.is_success:
                    answer.read()
                return answer
        return client.request(method, filled, params=query, json={} if method in ("POST", "PUT") else None)


@pytest.fixture
def ids(server: ApiServer) -> dict[str, str]:
    run_id, attempt_id = server.run_with_attempt()
    return {
        "run_id": run_id,
        "attempt_id": attempt_id,
        "artifact_id": server.artifact(run_id),
        "rank": "0",
        "token_id": "nosuchtoken",
        "subscription_id": "nosuchsubscription",
        "delivery_id": "nosuchdelivery",
        "message_id": "0",
    }


def test_every_route_of_the_api_is_here() -> None:
    described = {(method.upper(), path) for path, item in APP.openapi()["paths"].items() for method in item}
    here = {(method, route.path.replace(":path", "")) for route in api_routes() for method in route.methods}
    assert here == described, here ^ described
    assert len(ROUTES) >= 30
    assert {route.permit.action for _, route in ROUTES} == set(Action)


@pytest.mark.parametrize(("method", "route"), ROUTES, ids=lambda x: x if isinstance(x, str) else x.path)
def test_each_identity_is_answered_as_the_policy_says(
    server: ApiServer, tokens: dict[str, str], ids: dict[str, str], method: str, route
) -> None:  # type: ignore[no-untyped-def]
    action = route.permit.action
    for name, token in (
        ("nobody", None),
        ("garbage", "x"),
        ("half", "abruzzi_abcdefghjkmn_"),
        ("expired", tokens["expired"]),
        ("revoked", tokens["revoked"]),
    ):
        answer = ask(server, method, route.path, token, ids)
        assert answer.status_code == 401, (name, answer.status_code)
        assert answer.headers["content-type"] == "application/problem+json"
    for role in PEOPLE:
        answer = ask(server, method, route.path, tokens[role.value], ids)
        if action in POLICY[role]:
            assert answer.status_code not in (401, 403), (role, answer.status_code)
        else:
            assert answer.status_code == 403, (role, answer.status_code)
        assert answer.status_code < 500
    own = server.token(Role.ATTEMPT, attempt=ids["attempt_id"])
    expected_denied = action not in POLICY[Role.ATTEMPT]
    answer = ask(server, method, route.path, own, ids)
    assert (answer.status_code == 403) == expected_denied, ("own attempt", answer.status_code)
    answer = ask(server, method, route.path, tokens["other attempt"], ids)
    assert (answer.status_code == 403) == (expected_denied or action is Action.REPORT), (
        "other attempt",
        answer.status_code,
    )


@pytest.mark.parametrize(
    ("method", "route"),
    [(m, r) for m, r in ROUTES if "{" in r.path and "token_id" not in r.path],
    ids=lambda x: x if isinstance(x, str) else x.path,
)
def test_another_projects_things_do_not_exist(
    server: ApiServer, tokens: dict[str, str], ids: dict[str, str], method: str, route
) -> None:  # type: ignore[no-untyped-def]
    answer = ask(server, method, route.path, tokens["stranger"], ids)
    assert answer.status_code in (403, 404, 422), answer.status_code
    assert ids["run_id"] not in answer.text.replace(answer.json().get("instance", ""), "").replace(
        answer.json().get("detail", ""), ""
    )


def test_a_route_without_permission_stops_the_start() -> None:
    with pytest.raises(RuntimeError, match="GET /api/v1/open declares no permission"):
        check_permissions([ApiRoute("/api/v1/open", frozenset({"GET"}), None)])


def test_lists_show_nothing_of_another_project(server: ApiServer, tokens: dict[str, str]) -> None:
    mine = server.submit()
    with server.client(tokens["stranger"]) as client:
        assert client.get("runs").json()["items"] == []
        assert client.get("events").json()["items"] == []
        assert client.get("recipes").json()["items"] == []
        assert [p["id"] for p in client.get("projects").json()["items"]] == ["elsewhere"]
        assert client.get(f"runs/{mine['id']}").status_code == 404


def test_a_cookie_is_not_enough_to_change_something_from_another_site(server: ApiServer) -> None:
    with httpx.Client(base_url=server.url) as browser:
        signed_in = browser.post("/api/v1/session", json={"token": server.admin})
        assert signed_in.status_code == 200
        cookie = signed_in.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert browser.get("/api/v1/runs").status_code == 200
        body = {"recipe_toml": "", "overrides": {}}
        assert browser.post("/api/v1/recipes/validate", json=body).status_code == 403
        assert browser.post("/api/v1/recipes/validate", json=body, headers={CSRF_HEADER: "1"}).status_code == 200
        foreign = {CSRF_HEADER: "1", "Origin": "http://evil.example"}
        assert browser.post("/api/v1/recipes/validate", json=body, headers=foreign).status_code == 403
        browser.cookies.set("abruzzi_session", browser.cookies["abruzzi_session"][:-1] + "0")
        assert browser.get("/api/v1/runs", headers={"Cookie": "abruzzi_session=forged.0"}).status_code == 401


def test_the_secret_of_a_token_is_shown_once_and_works_until_it_is_revoked(server: ApiServer, tmp_path: Path) -> None:
    with server.client() as admin:
        made = admin.post("tokens", json={"name": "ci", "role": "viewer", "days": 1}).json()
        assert made["token"] not in admin.get("tokens").text
        with server.client(made["token"]) as viewer:
            assert viewer.get("runs").status_code == 200
            assert admin.delete(f"tokens/{made['id']}").status_code == 204
            assert viewer.get("runs").status_code == 401
            assert "revoked" in viewer.get("runs").json()["detail"]
        assert admin.post("tokens", json={"name": "x", "role": "attempt"}).status_code == 422


def test_changes_and_refusals_are_in_the_audit_log(server: ApiServer, tokens: dict[str, str]) -> None:
    run = server.submit()
    with server.client(tokens["viewer"]) as viewer:
        assert viewer.post(f"runs/{run['id']}/cancel").status_code == 403
    with server.client() as admin:
        shown = admin.get("audit").json()["items"][:6]
    assert any(a["outcome"] == "denied" and a["actor"] == "viewer:viewer" and run["id"] in a["object"] for a in shown)
    assert any(a["outcome"] == "allowed" and a["action"] == "POST /api/v1/runs" for a in shown)
    assert server.admin not in str(shown)
