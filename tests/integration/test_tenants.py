"""A second tenant, over REST alone: made by an admin of the platform, used by its own people, unseen by others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_server import ApiServer, serve

from abruzzi.contracts.states import Role


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        yield made


def test_a_new_project_is_usable_by_the_token_that_comes_with_it(server: ApiServer) -> None:
    with server.client() as platform:
        made = platform.post("projects", json={"id": "second", "name": "The second"})
        assert made.status_code == 201, made.text
        assert platform.post("projects", json={"id": "second", "name": "Again"}).status_code == 409
        first_admin = made.json()["admin"]
        assert (first_admin["project_id"], first_admin["role"]) == ("second", "admin")
        ours = server.submit()
        with server.client(first_admin["token"]) as theirs:
            session = theirs.get("session").json()
            assert [p["id"] for p in session["projects"]] == ["second"]
            member = theirs.post("tokens", json={"name": "ci", "role": "member"}).json()
            assert member["project_id"] == "second"
            run = server.submit(member["token"])
            assert run["project_id"] == "second"
            assert [r["id"] for r in theirs.get("runs").json()["items"]] == [run["id"]]
            assert theirs.get(f"runs/{ours['id']}").status_code == 404
            assert platform.get(f"runs/{run['id']}").status_code == 404
            assert {a["actor"] for a in theirs.get("audit").json()["items"]} == {"admin:first admin", "member:ci"}


def test_only_the_platforms_admins_make_projects_and_see_all_of_them(server: ApiServer) -> None:
    with server.client() as platform:
        third = platform.post("projects", json={"id": "third", "name": "The third"}).json()["admin"]["token"]
        assert {"default", "third"} <= {p["id"] for p in platform.get("projects").json()["items"]}
        assert [p["id"] for p in platform.get("session").json()["projects"]] == ["default"]
    with server.client(third) as theirs:
        assert [p["id"] for p in theirs.get("projects").json()["items"]] == ["third"]
        refused = theirs.post("projects", json={"id": "fourth", "name": "The fourth"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    with server.client(server.token(Role.MAINTAINER)) as maintainer:
        assert [p["id"] for p in maintainer.get("projects").json()["items"]] == ["default"]
        assert maintainer.post("projects", json={"id": "fifth", "name": "The fifth"}).status_code == 403


def test_a_platform_admin_can_let_people_in_again_whose_tokens_were_lost(server: ApiServer) -> None:
    with server.client() as platform:
        platform.post("projects", json={"id": "lost", "name": "Lost"})
        made = platform.post("tokens", json={"name": "found", "role": "admin", "project": "lost"})
        assert made.status_code == 201, made.text
        nowhere = platform.post("tokens", json={"name": "x", "role": "admin", "project": "nowhere"})
        assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")
    with server.client(made.json()["token"]) as again:
        assert [p["id"] for p in again.get("session").json()["projects"]] == ["lost"]
        assert again.get("runs").status_code == 200
