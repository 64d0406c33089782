"""Rows of artifacts over the API: pages, filters, what one request looks at, damage, and what people say of rows."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from api_server import serve
from ports import free_port
from rows_lab import Lab, packed
from typer.testing import CliRunner

from abruzzi.artifacts import rows as reader
from abruzzi.artifacts.row_filter import DEEPEST, Condition, RowFilter
from abruzzi.cli.main import app
from abruzzi.client import Client
from abruzzi.client.stage import StageContext, read_reviews
from abruzzi.contracts.artifact import ArtifactRef, Manifest
from abruzzi.contracts.dataset import Verdict
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import ENV_TOKEN, ENV_URL, StageSpec
from abruzzi.contracts.stage import DirectoryStore as StoreConfig
from abruzzi.contracts.states import ArtifactKind, Role, StageKind
from abruzzi.store import CorruptArtifact, DirectoryStore, blob_key, prefix_of

ROWS = [
    {
        "id": f"r{number:04d}",
        "fate": "kept" if number % 4 else "number",
        "domain": ("code", "mathematics")[number % 2],
        "text": f"Line {number} of many, naïve Ærø",
        "faults": [{"kind": "number"}, {"kind": "length"}] if number % 4 == 0 else [],
    }
    for number in range(1000)
]


@pytest.fixture(scope="module")
def lab(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("rows")
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as server:
        run_id, attempt_id = server.run_with_attempt()
        yield Lab(server, DirectoryStore(server.store), folder, run_id, attempt_id)


@pytest.fixture
def bare(tmp_path: Path) -> Lab:
    (tmp_path / "files").mkdir()
    return Lab(None, DirectoryStore(tmp_path / "store"), tmp_path / "files")


@pytest.fixture(scope="module")
def rewrites(lab: Lab) -> tuple[str, Manifest]:
    return lab.artifact(
        {
            "rewrites-00000.jsonl.zst": packed(ROWS[:600]),
            "rewrites-00001.jsonl.zst": packed(ROWS[600:]),
            "rewrites.json": json.dumps({"version": 1, "rows": 1000, "fates": {"kept": 750, "number": 250}}).encode(),
        }
    )


def ask(lab: Lab, artifact_id: str, **query: Any) -> httpx.Response:
    assert lab.server is not None
    with lab.server.client() as client:
        return client.get(f"artifacts/{artifact_id}/rows", params={"noun": "rewrites", **query})


def pages(lab: Lab, artifact_id: str, **query: Any) -> tuple[list[dict[str, Any]], int]:
    """All rows that a filter finds, and how many requests it took."""
    found: list[dict[str, Any]] = []
    cursor, requests = None, 0
    while True:
        answer = ask(lab, artifact_id, **query, **({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        found += [item["row"] for item in answer.json()["items"]]
        requests += 1
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found, requests


def test_pages_hold_every_row_once_in_order_across_shards(lab: Lab, rewrites: tuple[str, Manifest]) -> None:
    found, requests = pages(lab, rewrites[0], limit=128)
    assert found == ROWS
    assert requests == 8


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"fate": "number"}, lambda row: row["fate"] == "number"),
        ({"fate": ["number", "kept"]}, lambda row: True),
        ({"where": "domain:code"}, lambda row: row["domain"] == "code"),
        ({"where": ["faults.kind:length", "domain:code"]}, lambda row: bool(row["faults"]) and row["domain"] == "code"),
        ({"q": "NAÏVE ærø"}, lambda row: True),
        ({"q": "line 99"}, lambda row: row["text"].startswith("Line 99")),
        ({"q": "fate"}, lambda row: False),
    ],
)
def test_filters_find_what_a_loop_over_the_rows_would(lab: Lab, rewrites: tuple[str, Manifest], query, wanted) -> None:  # type: ignore[no-untyped-def]
    found, _ = pages(lab, rewrites[0], limit=500, **query)
    assert found == [row for row in ROWS if wanted(row)]


def test_a_row_is_read_again_by_its_position_and_as_much_of_it_as_was_asked_for(
    lab: Lab, rewrites: tuple[str, Manifest]
) -> None:
    last = ask(lab, rewrites[0], q="Line 999").json()["items"][0]
    again = ask(lab, rewrites[0], cursor=last["position"], limit=1, fields=["text"], cut=4).json()
    assert [item["row"] for item in again["items"]] == [{"id": "r0999", "text": "Line…"}]
    assert again["next_cursor"] is None
    for cursor in (
        "nonsense",
        "WyIwIiwgIjUiXQ",
        "WyI5IiwgIjAiXQ",
        "WyIwIiwgIjk5OTk5OTk5OTk5OSJd",
    ):  # ["0", "5"], ["9", "0"] and so on
        answer = ask(lab, rewrites[0], cursor=cursor)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor"), cursor


def test_facts_are_the_nouns_own_description_and_unknown_nouns_name_the_known_ones(
    lab: Lab, rewrites: tuple[str, Manifest]
) -> None:
    assert lab.server is not None
    with lab.server.client() as client:
        facts = client.get(f"artifacts/{rewrites[0]}/facts/rewrites")
        nothing = client.get(f"artifacts/{rewrites[0]}/facts/corpus")
        dataset = client.get(f"artifacts/{rewrites[0]}/facts").json()
    unknown = ask(lab, rewrites[0], noun="tools")
    assert dataset["facts"] == ["rewrites"]
    assert [(noun["noun"], noun["rows"], noun["fates"]["kept"]) for noun in dataset["nouns"]] == [
        ("rewrites", 1000, 750)
    ]
    assert facts.json()["fates"] == {"kept": 750, "number": 250}
    assert (nothing.status_code, nothing.json()["hint"]) == (404, "It has: rewrites.")
    assert (unknown.status_code, unknown.json()["hint"]) == (404, "It has: rewrites.")
    assert ask(lab, rewrites[0], noun="../secrets").status_code == 422


def test_artifacts_with_rows_are_listed_over_all_runs(lab: Lab, rewrites: tuple[str, Manifest]) -> None:
    assert lab.server is not None
    with (
        lab.server.client() as client,
        lab.server.client(lab.server.token(Role.VIEWER, project="elsewhere")) as stranger,
    ):
        listed = client.get("artifacts", params={"rows": True}).json()["items"]
        of_run = client.get("artifacts", params={"run": lab.run_id, "kind": "checkpoint"}).json()["items"]
        assert stranger.get("artifacts", params={"rows": True}).json()["items"] == []
    assert rewrites[0] in {artifact["id"] for artifact in listed}
    assert of_run == []


def test_another_tenant_finds_nothing(lab: Lab, rewrites: tuple[str, Manifest]) -> None:
    assert lab.server is not None
    with lab.server.client(lab.server.token(Role.ADMIN, project="elsewhere")) as stranger:
        for path in ("rows?noun=rewrites", "facts/rewrites", "reviews"):
            assert stranger.get(f"artifacts/{rewrites[0]}/{path}").status_code == 404
        said = {"row_id": "r0001", "verdict": "accept"}
        assert stranger.put(f"artifacts/{rewrites[0]}/reviews", json=said).status_code == 404


@pytest.mark.parametrize("damage", ["cut short", "another byte", "gone"])
def test_a_damaged_shard_is_a_conflict_that_says_what_to_do(lab: Lab, damage: str) -> None:
    artifact_id, manifest = lab.artifact({"rewrites.jsonl.zst": packed([{"id": damage}])})
    key = blob_key(f"projects/default/runs/{lab.run_id}/train/", manifest.files[0].digest)
    good = lab.store.get(key)
    if damage == "gone":
        lab.store.delete(key)
    else:
        lab.store.put(key, good[:-3] if damage == "cut short" else good[:-1] + bytes([good[-1] ^ 1]))
    answer = ask(lab, artifact_id)
    assert (answer.status_code, answer.json()["code"]) == (409, "corrupt_artifact")
    assert answer.json()["hint"] == f"Make it again: `abruzzi runs retry {lab.run_id} --stage train`."
    assert "rewrites.jsonl.zst" in answer.json()["detail"]


def test_people_accept_and_reject_rows_and_a_stage_reads_what_they_said(lab: Lab) -> None:
    assert lab.server is not None
    artifact_id, manifest = lab.artifact({"rewrites.jsonl.zst": packed(ROWS[:8])})
    route = f"artifacts/{artifact_id}/reviews"
    with lab.server.client(lab.server.token(Role.MEMBER)) as member, lab.server.client() as admin:
        first = member.put(route, json={"row_id": "r0001", "verdict": "accept", "note": "good"})
        member.put(route, json={"row_id": "r0002", "verdict": "accept"})
        changed = admin.put(route, json={"row_id": "r0002", "verdict": "reject"}).json()
        admin.put(route, json={"row_id": "r0003", "verdict": "reject"})
        again = admin.put(route, json={"row_id": "r0001", "verdict": "accept", "note": "good"})
        assert admin.delete(route, params={"row_id": "r0003"}).status_code == 204
        said = member.get(route, params={"limit": 1}).json()
        rest = member.get(route, params={"cursor": said["next_cursor"]}).json()
    assert first.status_code == 200
    assert again.json() == first.json(), "saying the same again changes nothing"
    assert (changed["verdict"], changed["by"]) == ("reject", "admin:admin")
    assert (said["accepted"], said["rejected"]) == (1, 1)
    assert [item["row_id"] for item in said["items"] + rest["items"]] == ["r0001", "r0002"]
    waiting = ask(lab, artifact_id, review="none").json()["items"]
    assert [item["row"]["id"] for item in waiting] == ["r0000", *(f"r{n:04d}" for n in range(3, 8))]
    accepted = ask(lab, artifact_id, review="accept").json()["items"]
    assert [(item["row"]["id"], item["review"]["note"]) for item in accepted] == [("r0001", "good")]
    with lab.server.client(lab.server.token_of(lab.attempt_id)) as stage:
        asked = stage.get(f"attempts/{lab.attempt_id}/reviews", params={"digest": manifest.digest()})
        unknown = stage.get(f"attempts/{lab.attempt_id}/reviews", params={"digest": "sha256:" + "0" * 64})
        assert stage.get(route).status_code == 403
    assert [(r["row_id"], r["verdict"]) for r in asked.json()["items"]] == [("r0001", "accept"), ("r0002", "reject")]
    assert unknown.status_code == 404


def test_viewers_read_and_do_not_review_and_changes_are_audited(lab: Lab, rewrites: tuple[str, Manifest]) -> None:
    assert lab.server is not None
    route, said = f"artifacts/{rewrites[0]}/reviews", {"row_id": "r0001", "verdict": "accept"}
    with lab.server.client(lab.server.token(Role.VIEWER)) as viewer, lab.server.client() as admin:
        assert viewer.put(route, json=said).status_code == 403
        assert viewer.get(route).status_code == 200
        assert admin.put(route, json=said).status_code == 200
        audit = admin.get("audit", params={"limit": 10}).json()["items"]
    assert [(entry["outcome"], entry["object"]) for entry in audit[:2]] == [
        ("allowed", f"/api/v1/{route}"),
        ("denied", f"/api/v1/{route}"),
    ]


def test_a_stage_reads_the_reviews_of_its_input_where_the_platform_is_now(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.server is not None
    artifact_id, manifest = lab.artifact({"conversations.jsonl.zst": packed(ROWS[:3])})
    (tmp_path / "token").write_text(lab.server.token_of(lab.attempt_id))
    moved = f"http://127.0.0.1:{free_port()}"
    spec = StageSpec(
        project_id="default", run_id=lab.run_id, stage_id="train", attempt_id=lab.attempt_id, epoch=1, kind=StageKind.SFT, config={},
        inputs={"conversations": ArtifactRef(manifest_key="unread", digest=manifest.digest(), kind=ArtifactKind.CONVERSATIONS)},
        store=StoreConfig(root=str(lab.store.root)), output_prefix=f"projects/default/runs/{lab.run_id}/train/",
    )  # fmt: skip
    context = StageContext(spec, 0, 1, tmp_path, lab.store)
    with Client(lab.server.url, lab.server.admin) as client:
        client.artifacts.review(artifact_id, "r0001", Verdict.REJECT, "names a person")
        client.artifacts.review(artifact_id, "r0000", Verdict.ACCEPT)
        client.artifacts.review(artifact_id, "r0002", Verdict.ACCEPT)
        client.artifacts.take_back_review(artifact_id, "r0002")
    assert read_reviews(context, "conversations") == [], "no platform is named"
    monkeypatch.setenv(ENV_URL, moved)
    monkeypatch.setenv(ENV_TOKEN, str(tmp_path / "token"))
    with pytest.raises(AbruzziError, match="does not answer"):
        read_reviews(context, "conversations", retry_seconds=0.0)
    (tmp_path / "launch.json").write_text(json.dumps({"url": lab.server.url}))
    said = [(review.row_id, review.verdict, review.note) for review in read_reviews(context, "conversations")]
    assert said == [("r0000", Verdict.ACCEPT, ""), ("r0001", Verdict.REJECT, "names a person")]


def test_the_command_line_shows_rows_and_nothing_in_them_steers_the_terminal(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.server is not None
    rows = [*ROWS[:8], {"id": "evil\x1b[2J", "fate": "number", "text": "[bold]a\x1b]0;title\x07\nb", "key\x1b": 1}]
    artifact_id, _ = lab.artifact({"rewrites.jsonl.zst": packed(rows), "calls.jsonl.zst": packed([{"id": "call"}])})
    monkeypatch.setenv("ABRUZZI_URL", lab.server.url)
    monkeypatch.setenv("ABRUZZI_TOKEN", lab.server.admin)
    with Client(lab.server.url, lab.server.admin) as client:
        client.artifacts.review(artifact_id, "r0004", Verdict.REJECT)
    shown = CliRunner().invoke(app, ["artifacts", "rows", artifact_id, "--fate", "number"])
    assert shown.exit_code == 0, shown.output
    heads = [line for line in shown.output.splitlines() if not line.startswith("  ")]
    assert heads == ["r0000  number", "r0004  number  rejected by admin:admin", "evil\ufffd[2J  number"]
    assert "  text = [bold]a\ufffd]0;title\ufffd b" in shown.output.splitlines()
    assert "\x1b" not in shown.output
    asked = ["artifacts", "rows", artifact_id, "--where", "domain:code", "--q", "line", "--limit", "2", "--json"]
    assert json.loads(CliRunner().invoke(app, asked).output) == [ROWS[0], ROWS[2]]
    none = CliRunner().invoke(app, ["artifacts", "rows", artifact_id, "--q", "nobody says this"])
    assert (none.exit_code, "No such rows." in none.output) == (0, True)


def read(lab: Lab, key: str, manifest: Manifest, **options: Any) -> reader.Rows:
    options = {"start": reader.Place(), "limit": 50, "matching": RowFilter(), **options}
    return reader.read_rows(lab.store, manifest, prefix_of(key), "rewrites", **options)


def test_one_request_looks_at_so_much_only_and_goes_on_from_an_empty_page(bare: Lab) -> None:
    key, manifest = bare.commit(
        {"rewrites-00000.jsonl.zst": packed(ROWS[:500]), "rewrites-00001.jsonl.zst": packed(ROWS[500:])}
    )
    wanted = RowFilter(conditions=(Condition("id", "r0999"),))
    looked, place, requests = 0, reader.Place(), 0
    while True:
        page = read(bare, key, manifest, start=place, matching=wanted, scan_bytes=20_000)
        looked, requests = looked + page.scanned, requests + 1
        if page.next is None:
            break
        assert page.found == []
        place = page.next
    assert [row.content["id"] for row in page.found] == ["r0999"]
    assert (looked, requests) == (1000, 6)


@pytest.mark.parametrize(
    "line",
    [b"[1]", b"{", b'{"a": 1e5', b"\xff\xfe{}", b"[" * 100_000, b'{"id": 1' + b"0" * 5000 + b"}"],
    ids=["no object", "cut", "cut number", "no text", "deep", "huge number"],
)
def test_what_is_no_row_is_damage_with_its_place(bare: Lab, line: bytes) -> None:
    key, manifest = bare.commit({"rewrites.jsonl": b'{"id": "fine"}\n' + line + b"\n"})
    with pytest.raises(CorruptArtifact, match=r"rewrites\.jsonl has no row at byte 15"):
        read(bare, key, manifest)


def test_rows_that_no_answer_could_hold_are_shown_as_well_as_they_can_be(bare: Lab) -> None:
    key, manifest = bare.commit({"rewrites.jsonl": b'{"id": "x", "score": 1e999, "text": "a\\ud800b"}\n\n{"id": "y"}'})
    assert [row.content for row in read(bare, key, manifest).found] == [
        {"id": "x", "score": None, "text": "a?b"},
        {"id": "y"},
    ]


def test_an_answer_holds_rows_whose_id_is_no_text_whose_keys_are_no_text_and_that_are_very_deep(lab: Lab) -> None:
    lines = (
        b'{"id": [1], "fate": {"a": 1}}\n{"id": "x", "a\\ud800": 1}\n{"id": "deep", "in": '
        + b"[" * 700
        + b"]" * 700
        + b"}\n"
    )
    artifact_id, _ = lab.artifact(
        {"rewrites.jsonl": lines, "rewrites.json": b'{"in": ' + b"[" * 700 + b"]" * 700 + b"}"}
    )
    answer = ask(lab, artifact_id)
    assert answer.status_code == 200, answer.text
    listed, surrogate, deep = (item["row"] for item in answer.json()["items"])
    assert (listed, surrogate) == ({"id": [1], "fate": {"a": 1}}, {"id": "x", "a?": 1})
    assert json.dumps(deep["in"], ensure_ascii=False) == "[" * DEEPEST + '"…"' + "]" * DEEPEST
    assert lab.server is not None
    with lab.server.client() as client:
        assert client.get(f"artifacts/{artifact_id}/facts/rewrites").json() == {"in": deep["in"][0]}
        assert client.get(f"artifacts/{artifact_id}/facts").json()["nouns"][0]["rows"] is None
    found = ask(lab, artifact_id, fate="kept", review="none").json()["items"]
    assert found == []


def test_text_is_found_however_its_writer_escaped_it(bare: Lab) -> None:
    key, manifest = bare.commit(
        {"rewrites.jsonl": b'{"id": "a", "text": "and\\/or"}\n{"id": "b", "text": "\\u0061nd/or"}\n'}
    )
    found = read(bare, key, manifest, matching=RowFilter(text="and/or")).found
    assert [row.content["id"] for row in found] == ["a", "b"]


def test_a_line_or_a_shard_that_would_fill_the_memory_is_refused(bare: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zstandard.ZstdCompressor().compress(b" " * (3 * reader.LINE_BYTES))
    key, manifest = bare.commit({"rewrites.jsonl.zst": bomb})
    with pytest.raises(AbruzziError, match="a line of more than 4 MiB") as refused:
        read(bare, key, manifest)
    assert (refused.value.code, refused.value.status) == ("too_large", 422)
    monkeypatch.setattr(reader, "SHARD_BYTES", 10_000)
    key, manifest = bare.commit({"rewrites.jsonl.zst": packed(ROWS)})
    with pytest.raises(AbruzziError, match="unpacks to more than"):
        read(bare, key, manifest, limit=10_000)


def test_several_frames_and_files_without_packing_are_read_alike(bare: Lab) -> None:
    frames = packed(ROWS[:3]) + packed(ROWS[3:5])
    plain = io.BytesIO()
    plain.writelines(json.dumps(row).encode() + b"\n" for row in ROWS[:5])
    for files in ({"rewrites.jsonl.zst": frames}, {"rewrites.jsonl": plain.getvalue()}):
        key, manifest = bare.commit(files)
        assert [row.content for row in read(bare, key, manifest).found] == ROWS[:5]
