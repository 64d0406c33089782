"""Attack text over the API: shown to those who may read attacks, with a row in the audit log; hidden from everybody else, by every road."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from api_server import serve
from rows_lab import Lab, packed

from abruzzi.artifacts.attack_text import veiled
from abruzzi.artifacts.row_filter import RowFilter
from abruzzi.contracts.states import ArtifactKind, Role
from abruzzi.store import DirectoryStore

SECRET, ANSWER = "a very forbidden wish", "the way to the open door"


def row(number: int, fate: str, rules: str, judge: str | None, strategy: str = "basic") -> dict[str, Any]:
    return {
        "id": f"privacy/pii-direct/{strategy}/en-{number:03d}", "fate": fate, "plugin": "privacy", "sub_plugin": "pii-direct", "strategy": strategy,
        "language": "en", "rules": rules, "judge": judge, "turns": 1, "source": "canaries", "licence": "Apache-2.0", "generator": "m", "is_llm": True,
        "goal": SECRET, "messages": [{"role": "user", "content": SECRET}, {"role": "assistant", "content": ANSWER}],
        "attempts": [{"prompt": SECRET, "answer": ANSWER, "fate": fate}], "reasons": [f"judge: it says {ANSWER}"], "unforeseen": SECRET,
    }  # fmt: skip


ROWS = [
    row(0, "pass", "refused", "pass"),
    row(1, "fail", "answered", "fail"),
    row(2, "review", "refused", "fail"),
    row(3, "pass", "refused", "pass", "base64"),
]
CALL = {"id": "c1", "role": "attacker", "request": {"messages": [{"role": "user", "content": SECRET}]}}


@pytest.fixture(scope="module")
def lab(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as server:
        run_id, attempt_id = server.run_with_attempt()
        yield Lab(server, DirectoryStore(server.store), tmp_path_factory.mktemp("rows"), run_id, attempt_id)


@pytest.fixture(scope="module")
def attacks(lab: Lab) -> str:
    files = {
        "redteam-00000.jsonl.zst": packed(ROWS),
        "redteam.json": json.dumps({"version": 1, "rows": 4, "fates": {"pass": 2}}).encode(),
        "calls-00000.jsonl.zst": packed([CALL]),
        "report.md": b"| plugin |",
    }
    return lab.artifact(files, ArtifactKind.REDTEAM)[0]


def client(lab: Lab, role: Role):  # type: ignore[no-untyped-def]
    assert lab.server is not None
    return lab.server.client(lab.server.token(role))


@pytest.mark.parametrize("role", [Role.VIEWER, Role.MEMBER])
def test_others_see_where_a_row_stands_and_nothing_of_what_was_said(lab: Lab, attacks: str, role: Role) -> None:
    note = {"row_id": ROWS[0]["id"], "verdict": "accept", "note": f"it was asked for {SECRET}"}
    with client(lab, role) as asked, client(lab, Role.MAINTAINER) as maintainer:
        assert maintainer.put(f"artifacts/{attacks}/reviews", json=note).json()["note"] == note["note"]
        told = maintainer.get(f"artifacts/{attacks}/reviews").json()["items"]
        roads = [
            asked.get(f"artifacts/{attacks}/rows", params={"noun": "redteam"}),
            asked.get(f"artifacts/{attacks}/rows", params={"noun": "redteam", "cut": 1_000_000, "limit": 1}),
            asked.get(f"artifacts/{attacks}/rows", params={"noun": "calls"}),
            asked.get(f"artifacts/{attacks}/facts"),
            asked.get(f"artifacts/{attacks}/facts/redteam"),
            asked.get(f"artifacts/{attacks}/manifest"),
            asked.get(f"redteam/{attacks}"),
            asked.get(f"artifacts/{attacks}/reviews"),
        ]
        maintainer.delete(f"artifacts/{attacks}/reviews", params={"row_id": note["row_id"]})
    assert [answer.status_code for answer in roads] == [200] * 8
    assert [review["note"] for review in told] == [note["note"]]
    reviews = [roads[0].json()["items"][0]["review"], *roads[7].json()["items"]]
    assert [(review["verdict"], review["note"]) for review in reviews] == [("accept", "")] * 2
    for answer in roads:
        assert SECRET not in answer.text
        assert ANSWER not in answer.text
    shown = roads[0].json()["items"][0]["row"]
    assert (shown["id"], shown["fate"], shown["strategy"]) == (ROWS[0]["id"], "pass", "basic")
    assert shown["messages"][0] == {"role": "user", "content": f"[hidden: {len(SECRET)} characters]"}


def test_no_condition_asks_for_what_is_hidden(lab: Lab, attacks: str) -> None:
    """Otherwise a viewer would learn the text a word at a time, by what is found."""
    queries = [{"q": "forbidden"}, {"where": f"goal:{SECRET}"}, {"where": f"messages.content:{SECRET}"}]
    with client(lab, Role.VIEWER) as viewer, client(lab, Role.MAINTAINER) as maintainer:
        for query in queries:
            params = {"noun": "redteam", **query}
            assert viewer.get(f"artifacts/{attacks}/rows", params=params).json()["items"] == [], query
            assert len(maintainer.get(f"artifacts/{attacks}/rows", params=params).json()["items"]) == 4, query
        found = viewer.get(f"artifacts/{attacks}/rows", params={"noun": "redteam", "where": "strategy:base64"}).json()
    assert len(found["items"]) == 1


def test_files_with_attacks_are_refused_and_tables_are_not(lab: Lab, attacks: str) -> None:
    with (
        client(lab, Role.MEMBER) as member,
        client(lab, Role.MAINTAINER) as maintainer,
        client(lab, Role.ADMIN) as admin,
    ):
        for name in ("redteam-00000.jsonl.zst", "calls-00000.jsonl.zst"):
            refused = member.get(f"artifacts/{attacks}/files/{name}")
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert maintainer.get(f"artifacts/{attacks}/files/{name}").status_code == 200
        for name in ("redteam.json", "report.md"):
            assert member.get(f"artifacts/{attacks}/files/{name}").status_code == 200
        audited = {
            (entry["action"], entry["object"]) for entry in admin.get("audit", params={"limit": 500}).json()["items"]
        }
    assert ("read attacks", f"/api/v1/artifacts/{attacks}/files/calls-00000.jsonl.zst") in audited


def test_who_was_shown_attacks_stands_in_the_audit_log(lab: Lab, attacks: str) -> None:
    path = f"/api/v1/artifacts/{attacks}/rows?noun=redteam"
    with client(lab, Role.VIEWER) as viewer, client(lab, Role.ADMIN) as admin:
        before = admin.get("audit", params={"limit": 500}).json()["items"]
        viewer.get(f"artifacts/{attacks}/rows", params={"noun": "redteam"})
        shown = admin.get(f"artifacts/{attacks}/rows", params={"noun": "redteam"}).json()["items"]
        admin.get(f"artifacts/{attacks}/rows", params={"noun": "redteam", "fate": "nothing"})
        after = admin.get("audit", params={"limit": 500}).json()["items"]
    assert shown[0]["row"]["goal"] == SECRET
    news = after[: len(after) - len(before)]
    assert [(entry["action"], entry["object"], entry["actor"]) for entry in news] == [
        ("read attacks", path, news[0]["actor"])
    ]
    assert news[0]["actor"].startswith("admin:")


def test_verdicts_are_for_those_who_have_seen_what_they_decide_about_and_change_the_matrix(
    lab: Lab, attacks: str
) -> None:
    said = {"row_id": ROWS[2]["id"], "verdict": "accept"}
    with client(lab, Role.MEMBER) as member, client(lab, Role.MAINTAINER) as maintainer:
        refused = member.put(f"artifacts/{attacks}/reviews", json=said)
        before = maintainer.get(f"redteam/{attacks}").json()
        assert maintainer.put(f"artifacts/{attacks}/reviews", json=said).status_code == 200
        after = member.get(f"redteam/{attacks}").json()
        gone = maintainer.delete(f"artifacts/{attacks}/reviews", params={"row_id": said["row_id"]})
        assert member.delete(f"artifacts/{attacks}/reviews", params={"row_id": "x"}).status_code == 403
    assert refused.status_code == 403
    assert gone.status_code == 204
    cells = [next(c for c in m["matrix"]["cells"] if c["strategy"] == "basic") for m in (before, after)]
    assert [(c["passed"], c["n"], c["waiting"]) for c in cells] == [(1, 3, 1), (2, 3, 0)]
    assert cells[0]["paper"]["K2-Instruct"] == 100
    assert (before["may_read_attacks"], after["may_read_attacks"]) == (True, False)
    agreement = {tuple(a["between"]): (a["rows"], a["agreed"]) for a in after["matrix"]["agreement"]}
    assert agreement[("people", "judge")] == (1, 0)
    assert agreement[("people", "rules")] == (1, 1)
    assert agreement[("judge", "rules")] == (4, 3)


def test_an_artifact_without_attacks_has_no_matrix(lab: Lab) -> None:
    artifact_id, _ = lab.artifact({"rewrites.jsonl.zst": packed([{"id": "x"}])})
    with client(lab, Role.VIEWER) as viewer:
        answer = viewer.get(f"redteam/{artifact_id}")
    assert (answer.status_code, answer.json()["hint"]) == (404, "It has: rewrites.")


def test_of_a_veiled_row_the_raw_line_is_never_asked() -> None:
    """By how fast it is left out one could tell what it holds."""
    looked: list[str] = []

    def veil(found: Any) -> Any:
        looked.append(found["id"])
        return veiled(found)

    def refuse(why: str) -> NoReturn:
        raise AssertionError(why)

    line = json.dumps(ROWS[0]).encode()
    for asked in (
        RowFilter(text="forbidden", veil=veil),
        RowFilter(text="nowhere", veil=veil),
        RowFilter(fates=frozenset({SECRET}), veil=veil),
        RowFilter(fates=frozenset({"nowhere"}), veil=veil),
    ):
        assert asked.read(line, refuse) is None
    assert looked == [ROWS[0]["id"]] * 4


def test_a_veil_keeps_the_shape_and_no_text_that_nobody_thought_of() -> None:
    found = veiled({"fate": "x" * 201, "turns": 3, "new": {"deep": ["text", 1, None, True]}, "strategy": ["base64"]})
    assert found == {
        "fate": "[hidden: 201 characters]",
        "turns": 3,
        "new": {"deep": ["[hidden: 4 characters]", 1, None, True]},
        "strategy": ["base64"],
    }
