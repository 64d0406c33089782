"""Every route, asked by everybody, answers as the policy table says. Routes come from the router: a new one is tested by being there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_server import ApiServer, serve
from api_things import Things, asked, send
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
def things(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Things:
    return Things.make(server, "default", tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def others(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Things:
    """Of another project."""
    return Things.make(server, "elsewhere", tmp_path_factory.mktemp("others"))


@pytest.fixture(scope="module")
def tokens(server: ApiServer, others: Things) -> dict[str, str]:
    _, attempt = server.run_with_attempt()
    return {
        **{role.value: server.token(role) for role in PEOPLE},
        "expired": server.token(Role.ADMIN, expired=True),
        "revoked": server.token(Role.ADMIN, revoked=True),
        "stranger": others.admin,
        "other attempt": server.token(Role.ATTEMPT, attempt=attempt),
        "strange attempt": others.attempt_token,
    }


def test_every_route_of_the_api_is_here() -> None:
    described = {(method.upper(), path) for path, item in APP.openapi()["paths"].items() for method in item}
    here = {(method, route.path.replace(":path", "")) for route in api_routes() for method in route.methods}
    assert here == described, here ^ described
    assert len(ROUTES) >= 30
    inside = {Action.READ_ATTACKS}  # asked for by routes whose answers show more to some: test_redteam_access.py
    assert {route.permit.action for _, route in ROUTES} == set(Action) - inside


def readable(answer: httpx.Response) -> str:
    return answer.text if answer.is_stream_consumed else ""


@pytest.mark.parametrize(("method", "route"), ROUTES, ids=lambda x: x if isinstance(x, str) else x.path)
def test_who_is_nobody_gets_nowhere(tokens: dict[str, str], things: Things, method: str, route: ApiRoute) -> None:
    strangers = {"nobody": None, "garbage": "x", "half": "abruzzi_abcdefghjkmn_"}
    for name, token in (strangers | {n: tokens[n] for n in ("expired", "revoked")}).items():
        answer = send(things, method, route.path, token)
        assert answer.status_code == 401, (name, answer.status_code)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "route"), ROUTES, ids=lambda x: x if isinstance(x, str) else x.path)
def test_each_role_is_answered_as_the_policy_says(
    tokens: dict[str, str], things: Things, method: str, route: ApiRoute
) -> None:
    """A valid request each: who may gets exactly the answer of the route, who may not 403."""
    assert route.permit is not None
    action, success = route.permit.action, asked(method, route.path).status
    for role in PEOPLE:
        answer = send(things, method, route.path, tokens[role.value])
        expected = success if action in POLICY[role] else 403
        assert answer.status_code == expected, (role, answer.status_code, readable(answer))


@pytest.mark.parametrize(("method", "route"), ROUTES, ids=lambda x: x if isinstance(x, str) else x.path)
def test_a_stages_token_reaches_what_its_own_attempt_reports_and_nothing_of_any_other(
    tokens: dict[str, str], things: Things, method: str, route: ApiRoute
) -> None:
    assert route.permit is not None
    success = asked(method, route.path).status
    own, foreign = {Action.REPORT: (success, 403), Action.WHOAMI: (success, success)}.get(
        route.permit.action, (403, 403)
    )
    for name, token, expected in (
        ("own", things.attempt_token, own),
        ("another of the project", tokens["other attempt"], foreign),
        ("another project's", tokens["strange attempt"], foreign),
    ):
        answer = send(things, method, route.path, token)
        assert answer.status_code == expected, (name, answer.status_code, readable(answer))


@pytest.mark.parametrize(("method", "route"), ROUTES, ids=lambda x: x if isinstance(x, str) else x.path)
def test_another_projects_things_do_not_exist(
    tokens: dict[str, str], things: Things, method: str, route: ApiRoute
) -> None:
    """For its admin, who may do everything at home: what is asked for by path, query or body is not found, and no list shows it."""
    assert route.permit is not None
    request = asked(method, route.path)
    answer = send(things, method, route.path, tokens["stranger"])
    if route.permit.action in (Action.REPORT, Action.MANAGE_PROJECTS, Action.MANAGE_POOLS, Action.MANAGE_NODES):
        expected = 403
    elif request.names_things(route.path):
        expected = 404
    else:
        expected = request.status
    assert answer.status_code == expected, (answer.status_code, readable(answer))
    # Its own audit log names what it has just asked for in vain.
    told = readable(answer) if answer.status_code < 400 and not route.path.endswith("/audit") else ""
    assert not [name for name in things.names if name in told]


def test_a_token_of_another_project_cannot_be_revoked_and_goes_on_working(
    server: ApiServer, tokens: dict[str, str]
) -> None:
    with server.client() as admin, server.client(tokens["stranger"]) as stranger:
        made = admin.post("tokens", json={"name": "theirs", "role": "viewer"}).json()
        assert stranger.delete(f"tokens/{made['id']}").status_code == 404
        with server.client(made["token"]) as viewer:
            assert viewer.get("session").status_code == 200
        taken = stranger.post("tokens", json={"name": "x", "role": "admin", "project": "default"})
        assert (taken.status_code, taken.json()["code"]) == (404, "not_found")


def test_a_branch_from_another_projects_checkpoint_is_not_found(others: Things, things: Things) -> None:
    with things.server.client(others.admin) as stranger:
        answer = stranger.post(f"runs/{others.run_id}/branch", json={"artifact_id": things.artifact_id})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_route_without_permission_stops_the_start() -> None:
    with pytest.raises(RuntimeError, match="GET /api/v1/open declares no permission"):
        check_permissions([ApiRoute("/api/v1/open", frozenset({"GET"}), None)])


def test_lists_show_nothing_of_another_project(server: ApiServer) -> None:
    mine = server.submit()
    with server.client(server.token(Role.ADMIN, project="empty")) as client:
        assert client.get("runs").json()["items"] == []
        assert client.get("events").json()["items"] == []
        assert client.get("recipes").json()["items"] == []
        assert [p["id"] for p in client.get("projects").json()["items"]] == ["empty"]
        assert client.get(f"runs/{mine['id']}").status_code == 404


def test_a_cookie_is_not_enough_to_change_something_from_another_site(server: ApiServer) -> None:
    with httpx.Client(base_url=server.url, timeout=120.0) as browser:
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


def audited(server: ApiServer, token: str | None = None) -> list[tuple[str, str, str, str]]:
    with server.client(token) as admin:
        shown = admin.get("audit", params={"limit": 500}).json()["items"]
    return [(a["outcome"], a["actor"], a["action"], a["object"]) for a in shown]


def test_changes_and_refusals_are_in_the_audit_log(server: ApiServer, things: Things, tokens: dict[str, str]) -> None:
    run = server.submit()
    with server.client(tokens["viewer"]) as viewer:
        assert viewer.post(f"runs/{run['id']}/cancel").status_code == 403
        assert viewer.get("tokens").status_code == 403
    with server.client(things.attempt_token) as stage:
        body = {"manifest_key": "projects/default/runs/x/a/e1/final/manifest.json", "digest": things.digest}
        assert stage.post(f"attempts/{things.attempt_id}/artifacts", json=body).status_code == 403
    shown = audited(server)
    path = f"/api/v1/runs/{run['id']}/cancel"
    assert ("denied", "viewer:viewer", "POST /api/v1/runs/{run_id}/cancel", path) in shown
    assert ("denied", "viewer:viewer", "GET /api/v1/tokens", "/api/v1/tokens") in shown
    forged = f"/api/v1/attempts/{things.attempt_id}/artifacts"
    assert ("denied", "attempt:attempt", "POST /api/v1/attempts/{attempt_id}/artifacts", forged) in shown
    assert ("allowed", "admin:admin", "POST /api/v1/runs", "/api/v1/runs") in shown
    assert server.admin not in str(shown)


def test_sign_ins_are_audited_and_so_are_those_with_a_token_whose_time_is_over_once(server: ApiServer) -> None:
    member, late = server.token(Role.MEMBER, project="signs"), server.token(Role.VIEWER, project="signs", expired=True)
    with httpx.Client(base_url=f"{server.url}/api/v1/", timeout=120.0) as browser:
        assert browser.post("session", json={"token": member}).status_code == 200
        for _ in range(3):
            assert browser.post("session", json={"token": late}).status_code == 401
            browser.cookies.clear()
            assert browser.get("runs", headers={"Authorization": f"Bearer {late}"}).status_code == 401
    assert sorted(audited(server, server.token(Role.ADMIN, project="signs"))) == [
        ("allowed", "member:member", "POST /api/v1/session", "/api/v1/session"),
        ("denied", "viewer:viewer", "GET /api/v1/runs", "/api/v1/runs"),
        ("denied", "viewer:viewer", "POST /api/v1/session", "/api/v1/session"),
    ]
