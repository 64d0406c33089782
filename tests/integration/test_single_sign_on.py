"""Sign-in by an OpenID Connect provider, over HTTP as a browser does it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
from api_server import ApiServer, serve
from identity_provider import IdentityProvider, provide

from abruzzi.contracts.states import Role


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with provide() as made:
        yield made


@pytest.fixture(scope="module")
def server(
    shared_database, provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("api")
    with serve(
        shared_database.url("app"), shared_database.url("superuser"), folder, **provider.settings(session_hours=1)
    ) as made:
        made.token(Role.VIEWER, project="research")  # so that the project is there
        yield made


@pytest.fixture
def browser(server: ApiServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120.0) as client:
        yield client


def sign_in(browser: httpx.Client, person: str, *, query: str = "") -> httpx.Response:
    """The answer of our callback."""
    asked = browser.get(f"/api/v1/session/oidc{query}")
    assert asked.status_code == 302, asked.text
    back = browser.post(asked.headers["location"], data={"sub": person})
    assert back.is_redirect, back.text
    return browser.get(back.headers["location"])


def test_the_sign_in_page_can_ask_how_one_signs_in(browser: httpx.Client) -> None:
    assert browser.get("/api/v1/session/methods").json() == {"single_sign_on": "Example ID"}


def test_a_member_of_a_granted_group_is_signed_in_with_its_role_and_project(browser: httpx.Client) -> None:
    answer = sign_in(browser, "bob", query="?next=/runs%3Fstate%3Drunning")
    assert (answer.status_code, answer.headers["location"]) == (302, "/runs?state=running")
    session = browser.get("/api/v1/session").json()
    assert (session["name"], session["role"], [p["id"] for p in session["projects"]]) == (
        "bob@example.org", "member", ["research"],
    )  # fmt: skip


def test_the_request_carries_state_nonce_and_a_sha256_challenge(browser: httpx.Client) -> None:
    query = parse_qs(urlsplit(browser.get("/api/v1/session/oidc").headers["location"]).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["response_type"] == ["code"]
    assert all(len(query[key][0]) >= 16 for key in ("state", "nonce", "code_challenge"))


def test_the_session_is_a_cookie_that_scripts_and_other_sites_cannot_use(browser: httpx.Client) -> None:
    cookies = sign_in(browser, "ada").headers.get_list("set-cookie")
    mine = next(cookie for cookie in cookies if cookie.startswith("abruzzi_session="))
    assert "HttpOnly" in mine
    assert "samesite=strict" in mine.lower()
    assert "Max-Age=3600" in mine


def test_who_is_in_no_granted_group_is_turned_away(browser: httpx.Client) -> None:
    answer = sign_in(browser, "eve")
    assert answer.headers["location"] == "/#problem=sso_no_grant"
    assert browser.get("/api/v1/session").status_code == 401


def test_a_granted_project_that_is_not_there_lets_nobody_in(browser: httpx.Client) -> None:
    assert sign_in(browser, "tom").headers["location"] == "/#problem=sso_no_grant"
    assert browser.get("/api/v1/session").status_code == 401


def test_an_answer_that_nobody_asked_for_is_refused(browser: httpx.Client, server: ApiServer) -> None:
    asked = browser.get("/api/v1/session/oidc")
    back = browser.post(asked.headers["location"], data={"sub": "ada"}).headers["location"]
    with httpx.Client(base_url=server.url, timeout=120.0) as victim:
        assert victim.get(back).headers["location"] == "/#problem=sso_refused"
        assert victim.get("/api/v1/session").status_code == 401
    tampered = re.sub(r"state=[^&]+", "state=somebodyelses", back)
    assert browser.get(tampered).headers["location"] == "/#problem=sso_refused"


def test_a_code_works_once(browser: httpx.Client) -> None:
    asked = browser.get("/api/v1/session/oidc")
    back = browser.post(asked.headers["location"], data={"sub": "ada"}).headers["location"]
    assert browser.get(back).headers["location"] == "/"
    assert browser.get(back).headers["location"] == "/#problem=sso_refused"


@pytest.mark.parametrize("page", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_nobody_is_sent_to_another_site(browser: httpx.Client, page: str) -> None:
    asked = browser.get("/api/v1/session/oidc", params={"next": page})
    back = browser.post(asked.headers["location"], data={"sub": "ada"}).headers["location"]
    assert browser.get(back).headers["location"] == "/"


def test_signing_out_ends_the_token_itself(browser: httpx.Client, server: ApiServer) -> None:
    sign_in(browser, "ada")
    cookies = dict(browser.cookies)
    assert browser.delete("/api/v1/session", headers={"X-Abruzzi-Request": "1"}).status_code == 204
    with httpx.Client(base_url=server.url, cookies=cookies, timeout=120.0) as thief:
        assert thief.get("/api/v1/session").status_code == 401


def test_signing_in_is_audited_in_the_project(browser: httpx.Client, server: ApiServer) -> None:
    sign_in(browser, "bob")
    with psycopg.connect(server.owner_url) as connection:
        actors = connection.execute(
            "SELECT actor FROM audit WHERE project_id = 'research' AND object = '/api/v1/session'"
        ).fetchall()
    assert ("member:bob@example.org",) in actors


def test_the_clients_secret_is_in_no_log(server: ApiServer, browser: httpx.Client) -> None:
    sign_in(browser, "ada")
    log = (server.store.parent / "api.log").read_text()
    assert "s3cret-of-the-client" not in log
    assert "code=" not in log.replace("code=sso", "")


def test_a_provider_that_is_away_or_calls_itself_otherwise_is_said_on_our_page(
    shared_database, provider: IdentityProvider, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    addresses = (shared_database.url("app"), shared_database.url("superuser"))
    for issuer in ("http://127.0.0.1:9", f"{provider.issuer}/"):
        with serve(*addresses, tmp_path, **provider.settings(issuer=issuer)) as server:
            answer = httpx.get(f"{server.url}/api/v1/session/oidc", timeout=120.0)
            assert answer.headers.get("location") == "/#problem=sso_unreachable", answer.text


def test_without_a_provider_the_way_is_not_there(shared_database, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path) as server:
        assert httpx.get(f"{server.url}/api/v1/session/methods", timeout=120.0).json() == {"single_sign_on": None}
        answer = httpx.get(f"{server.url}/api/v1/session/oidc", timeout=120.0)
        assert (answer.status_code, answer.json()["code"]) == (404, "no_single_sign_on")
