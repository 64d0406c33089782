"""Rubrics over the API: shipped ones, versions after them, and what a stage that begins is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_server import ApiServer, serve

from abruzzi.contracts.rubric import GENERAL
from abruzzi.contracts.states import Role


@pytest.fixture
def server(database, tmp_path) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(database.url("app"), database.url("superuser"), tmp_path) as made:
        yield made


SHORT = {"name": "short", "kind": "human", "text": "One sentence.", "weight": 2.0, "mandatory": True}


def test_an_edit_is_the_next_version_and_stages_that_begin_get_it(server: ApiServer) -> None:
    _, attempt_id = server.run_with_attempt()
    route, for_stages = "rubrics/general", f"attempts/{attempt_id}/rubrics/general"
    rubrics = [rubric.model_dump(mode="json") for rubric in GENERAL.rubrics]
    with server.client() as member, server.client(server.token_of(attempt_id)) as stage:
        before, told = member.get(route).json(), stage.get(for_stages).json()
        assert (before["version"], before["by"], told["version"]) == (1, "shipped", 1)
        same = member.put(route, json={"based_on": 1, "rubrics": rubrics})
        assert same.json()["version"] == 1, "the same again changes nothing"
        edited = member.put(route, json={"based_on": 1, "rubrics": [*rubrics, SHORT]})
        assert edited.status_code == 200, edited.text
        late = member.put(route, json={"based_on": 1, "rubrics": [SHORT]})
        assert (late.status_code, late.json()["code"]) == (409, "conflict")
        now = stage.get(for_stages).json()
        assert (now["version"], now["rubrics"][-1]["name"]) == (2, "short")
        assert len(member.get(route, params={"version": 1}).json()["rubrics"]) == len(rubrics), "stays as it was"
        own = member.put("rubrics/house-style", json={"based_on": 0, "rubrics": [SHORT]})
        assert own.json()["version"] == 1
        listed = member.get("rubrics").json()["items"]
        assert [(item["name"], item["version"]) for item in listed] == [("general", 2), ("house-style", 1)]
        assert stage.get(route).status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("rubrics/general", {"based_on": 1, "rubrics": []}, 422),
        ("rubrics/general", {"based_on": 1, "rubrics": [SHORT, SHORT]}, 422),
        ("rubrics/UPPER", {"based_on": 0, "rubrics": [SHORT]}, 422),
    ],
)
def test_what_is_no_rubric_is_refused(server: ApiServer, path: str, body: dict, status: int) -> None:
    with server.client() as member:
        assert member.put(path, json=body).status_code == status


def test_viewers_read_and_do_not_write(server: ApiServer) -> None:
    with server.client(server.token(Role.VIEWER)) as viewer:
        assert viewer.get("rubrics/general").status_code == 200
        assert viewer.get("rubrics/generall").status_code == 404
        assert viewer.put("rubrics/general", json={"based_on": 1, "rubrics": [SHORT]}).status_code == 403
