"""The stage rephrase as the platform runs it, with the stand-in as rephraser: what it makes, and of what it makes nothing."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from chat_server import chat_server, said
from rephrase_lab import STANDIN, Lab, described, small_corpus

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.row_shards import RowShardWriter, read_described, read_rows
from abruzzi_jobs.data.text_shards import read_split
from abruzzi_jobs.rephrase.grid import load_grid

PASSING = {"max_rejected": 1.0, "fidelity": {"min_novelty": 0.0}, "decontamination": {"against": ["cloze"]}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpus(tmp_path_factory.mktemp("lab") / "corpus")


def with_faults(**shares: float) -> dict:
    return {**STANDIN, "endpoint": {"rules": {"kind": "standin", "faults": shares}}}


def test_kept_rewrites_stand_behind_their_sources_and_the_rest_of_the_corpus_is_unchanged(
    tmp_path: Path, corpus: Path
) -> None:
    config = {**PASSING, "rewrites_per_document": 3, "styles": ["plain", "report"], "part_tokens": 64}
    lab = Lab(tmp_path, corpus)
    out = lab.run({**with_faults(change_number=0.3), "rephrase": config})
    rows, train, sources = (
        list(read_rows(out, "rewrites")),
        list(read_split(out, "train")),
        list(read_split(corpus, "train")),
    )
    kept = [r for r in rows if r["fate"] == "kept"]
    assert len(rows) == 3 * len(sources)
    assert 0 < len(kept) < len(rows)
    assert [t for t in train if t.name in {s.name for s in sources}] == sources
    assert {t.text for t in train} == {s.text for s in sources} | {r["text"] for r in kept}
    assert list(read_split(out, "heldout")) == list(read_split(corpus, "heldout"))
    assert (out / "cloze.jsonl").read_bytes() == (corpus / "cloze.jsonl").read_bytes()
    facts = described(out)
    assert facts["train_documents"] == len(train) == facts["domains"]["knowledge"]["train_documents"]
    assert facts["rephrase"]["teacher"] == read_described(out, "rewrites")["teacher"] == "standin"
    assert lab.manifests[0].meta["rephrase"]["rewrites"]["kept"] == len(kept)
    assert {f.path for f in lab.manifests[0].files} >= {"corpus.json", "rewrites.json", "calls.json", "cloze.jsonl"}


def test_a_row_tells_what_was_asked_what_came_and_what_is_wrong_with_it(tmp_path: Path, corpus: Path) -> None:
    out = Lab(tmp_path, corpus).run({**with_faults(change_number=1.0), "rephrase": {**PASSING, "retries": 1}})
    rows = list(read_rows(out, "rewrites"))
    for row in rows:
        assert (row["generator"], row["is_llm"], row["prompt_version"]) == (
            "standin-rule-v1",
            False,
            load_grid().version,
        )
        assert (row["licence"], row["source"]) == ("MIT", "mendeleev")
        assert [c["tries"] for c in row["chunks"]][-1] <= 2
        assert len(row["call_ids"]) == sum(c["tries"] for c in row["chunks"])
        assert row["fate"] == (row["faults"][0]["kind"] if row["faults"] else "kept")
    faults = [
        (row, fault) for row in rows for fault in row["faults"] if fault["kind"] == "number" and fault["text_span"]
    ]
    assert faults
    for row, fault in faults:
        where = row["text"][slice(*fault["text_span"])]
        assert where
        assert not fault["detail"].endswith("is new here") or fault["detail"].startswith(where)


@pytest.mark.parametrize(("keep", "raw"), [("none", 0), ("rejected", 1), ("all", 2)])
def test_sources_stay_as_the_recipe_says(tmp_path: Path, corpus: Path, keep: str, raw: int) -> None:
    out = Lab(tmp_path, corpus).run(
        {**with_faults(swap_entity=0.5), "rephrase": {**PASSING, "keep_raw": keep, "retries": 0}}
    )
    documents = described(out)["rephrase"]["documents"]
    assert documents["rewritten"]
    assert documents["rejected"]
    assert documents.get("raw", 0) == [0, documents["rejected"], documents["rewritten"] + documents["rejected"]][raw]


def test_the_same_answers_make_the_same_bytes(tmp_path: Path, corpus: Path) -> None:
    stage = {**with_faults(drop_number=0.2), "seed": 5, "rephrase": {**PASSING, "rewrites_per_document": 2}}
    outs = [Lab(tmp_path / name, corpus).run(stage) for name in ("a", "b")]
    names = [sorted(p.name for p in out.iterdir() if not p.name.startswith("calls")) for out in outs]
    assert names[0] == names[1]
    assert all((outs[0] / n).read_bytes() == (outs[1] / n).read_bytes() for n in names[0])


def test_a_corpus_that_was_rephrased_before_has_rows_of_its_own(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = partial(RowShardWriter, shard_bytes=4000)
    monkeypatch.setattr("abruzzi_jobs.rephrase.output.RowShardWriter", small)
    first = Lab(tmp_path / "a", corpus).run({**STANDIN, "rephrase": {**PASSING, "keep_raw": "none"}})
    second = Lab(tmp_path / "b", first).run({**STANDIN, "seed": 1, "rephrase": PASSING})
    rows = list(read_rows(second, "rewrites"))
    assert {row["source_text"] for row in rows} == {record.text for record in read_split(first, "train")}
    shards = [shard["name"] for shard in read_described(second, "rewrites")["shards"]]
    assert len(shards) > 1
    assert sorted(path.name for path in second.glob("rewrites-*")) == shards


@pytest.mark.parametrize(
    ("answer", "fates"),
    [
        ("Gold is a metal with the symbol Au.", ["copy", "copy", "copy"]),
        ("Gold, a metal, has the symbol Au.", ["kept", "copy", "copy"]),
    ],
)
async def test_no_text_stands_in_the_corpus_twice(tmp_path: Path, answer: str, fates: list[str]) -> None:
    texts = tmp_path / "texts.jsonl"
    said_before = ["Gold is a metal with the symbol Au.", "Neon glows red in a tube."]  # the second is held out
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in said_before))
    corpus = small_corpus(tmp_path / "corpus", sources=[str(texts)], min_document_bytes=8, held_out_fraction=0.4)
    assert [record.text for record in read_split(corpus, "train")] == said_before[:1]
    async with chat_server(said(answer)) as server:
        endpoint = {"kind": "openai", "base_url": server.url, "model": "m", "max_tries": 1}
        config = {**PASSING, "rewrites_per_document": 3, "retries": 0}
        stage = {"roles": {"rephraser": "far"}, "endpoint": {"far": endpoint}, "rephrase": config}
        out = await Lab(tmp_path, corpus).run_async(stage)
    assert [row["fate"] for row in read_rows(out, "rewrites")] == fates
    assert len(list(read_split(out, "train"))) == 1 + fates.count("kept")


def test_a_corpus_without_a_document_of_the_domains_is_refused_at_once(tmp_path: Path, corpus: Path) -> None:
    lab = Lab(tmp_path, corpus)
    with pytest.raises(AbruzziError, match=r"no training document of web.*knowledge \(") as raised:
        lab.run({**STANDIN, "rephrase": {"domains": ["web"]}})
    assert raised.value.code == "bad_data"


def test_too_many_rejected_rewrites_end_the_stage_with_the_reasons(tmp_path: Path, corpus: Path) -> None:
    config = {**PASSING, "rewrites_per_document": 4, "retries": 0, "max_rejected": 0.3}
    with pytest.raises(
        AbruzziError, match=r"rephrase\.max_rejected = 0\.3.*number \d+.*The first number: element/"
    ) as raised:
        Lab(tmp_path, corpus).run({**with_faults(change_number=0.9), "rephrase": config})
    assert raised.value.code == "too_many_rejected"


def test_a_corpus_that_a_model_has_rephrased_takes_nothing_of_the_standin(tmp_path: Path, corpus: Path) -> None:
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    for path in corpus.iterdir():
        (earlier / path.name).write_bytes(path.read_bytes())
    text = (earlier / "corpus.json").read_text()
    (earlier / "corpus.json").write_text(
        text.replace('{\n "version"', '{\n "rephrase": {"teacher": "llm"},\n "version"', 1)
    )
    with pytest.raises(AbruzziError, match="teacher: llm") as raised:
        Lab(tmp_path, earlier).run({**STANDIN, "rephrase": PASSING})
    assert raised.value.code == "mixed_teachers"
