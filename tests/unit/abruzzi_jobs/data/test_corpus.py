"""The corpus's promises: the same bytes each time, no document in both splits, nothing twice, mistakes named."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import CorpusData
from abruzzi_jobs.data.cloze import read_items
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.documents import Document, fingerprint
from abruzzi_jobs.data.sources import SHIPPED, Source, resolve
from abruzzi_jobs.data.text_shards import TextRecord, TextShardWriter, read_corpus, read_split


def _source(texts: list[str], *, name: str = "made", domain: str = "web") -> Source:
    def read() -> Iterator[Document]:
        for number, text in enumerate(texts):
            yield Document(name=f"{name}/{number}", text=text, domain=domain)

    return Source(name=name, domain=domain, licence="CC0-1.0", read=read, expected_bytes=sum(map(len, texts)) + 1)


def _texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [
        " ".join(rng.choices(["ab", "cde", "fghi", "jk", "lmnop", "qrs"], k=rng.randint(20, 60))) for _ in range(count)
    ]


def _config(**values: object) -> CorpusData:
    return CorpusData.model_validate({"sources": ["made"], "min_document_bytes": 4, "held_out_fraction": 0.1, **values})


def _split(directory: Path, split: str) -> list[str]:
    return [r.text for r in read_split(directory, split)]


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        build_corpus([resolve("mendeleev", text_field="text")], _config(sources=["mendeleev"]), out=tmp_path / name)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["cloze.jsonl", "corpus.json", "heldout-00000.jsonl.zst", "train-00000.jsonl.zst"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@settings(max_examples=25, deadline=None)
@example(texts=["0", "0E", "10"], fraction=0.375)
@given(texts=st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=40), fraction=st.floats(0.05, 0.45))
def test_no_text_is_in_both_splits_nor_twice(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], fraction: float
) -> None:
    out = tmp_path_factory.mktemp("corpus")
    config = _config(held_out_fraction=fraction, min_document_bytes=1)
    try:
        corpus = build_corpus([_source(texts), _source(texts[:3], name="again")], config, out=out)
    except AbruzziError:  # nothing to divide
        assert len({fingerprint(t) for t in texts}) < 2
        return
    train, held = ([fingerprint(t) for t in _split(out, s)] for s in ("train", "heldout"))
    assert len({*train, *held}) == len(train) + len(held)
    assert train
    assert held
    counted = sum(
        s[f]["documents"] for s in corpus["sources"] for f in ("train", "heldout", "short", "duplicate", "cut")
    )
    assert counted == len(texts) + len(texts[:3])


def test_without_dedup_copies_still_share_their_split(tmp_path: Path) -> None:
    texts = _texts(60)
    build_corpus([_source(texts + texts)], _config(dedup="none"), out=tmp_path)
    train, held = _split(tmp_path, "train"), _split(tmp_path, "heldout")
    assert len(train) + len(held) == 120
    assert not set(train) & set(held)


def test_texts_that_differ_in_white_space_or_composition_are_one(tmp_path: Path) -> None:
    texts = ["caf\u00e9  au lait, s'il vous plait", "cafe\u0301 au lait,\r\n s'il vous plait", *_texts(30)]
    corpus = build_corpus([_source(texts)], _config(), out=tmp_path)
    assert corpus["sources"][0]["duplicate"]["documents"] == 1


def test_a_documents_split_does_not_change_when_others_come_and_go(tmp_path: Path) -> None:
    texts = _texts(400)
    (tmp_path / "all").mkdir()
    (tmp_path / "some").mkdir()
    build_corpus([_source(texts)], _config(), out=tmp_path / "all")
    build_corpus([_source(texts[::3] + _texts(50, seed=9))], _config(), out=tmp_path / "some")
    held_all, held_some = set(_split(tmp_path / "all", "heldout")), set(_split(tmp_path / "some", "heldout"))
    kept = set(texts[::3])
    assert held_all & kept == held_some & kept
    assert 15 <= len(held_all) <= 75


@settings(max_examples=20, deadline=None)
@given(limit=st.integers(900, 20_000))
def test_a_cut_takes_from_each_source_in_proportion(tmp_path_factory: pytest.TempPathFactory, limit: int) -> None:
    out = tmp_path_factory.mktemp("corpus")
    sources = [_source(_texts(150, 1), name="large"), _source(_texts(50, 2), name="small", domain="code")]
    sizes = {s.name: sum(len(d.text) for d in s.read()) for s in sources}
    corpus = build_corpus(sources, _config(max_bytes=limit), out=out)
    total = corpus["train_bytes"] + corpus["heldout_bytes"]
    assert total <= limit
    for entry in corpus["sources"]:
        kept = entry["train"]["bytes"] + entry["heldout"]["bytes"]
        target = min(1.0, limit / sum(sizes.values())) * sizes[entry["name"]]
        assert target - 350 < kept <= target + 1


def test_a_few_documents_still_give_a_held_out_one(tmp_path: Path) -> None:
    build_corpus([_source(_texts(3))], _config(held_out_fraction=0.01), out=tmp_path)
    assert len(_split(tmp_path, "heldout")) == 1
    assert len(_split(tmp_path, "train")) == 2


def test_corpus_json_says_sources_licences_counts_and_digests(tmp_path: Path) -> None:
    sources = [resolve("mendeleev", text_field="text"), resolve("python-docs", text_field="text")]
    build_corpus(sources, _config(sources=["mendeleev", "python-docs"]), out=tmp_path)
    corpus = read_corpus(tmp_path)
    by_name = {s["name"]: s for s in corpus["sources"]}
    assert by_name["mendeleev"]["licence"] == "MIT"
    assert by_name["mendeleev"]["version"]
    assert set(corpus["domains"]) == {"knowledge", "web"}
    for shard in corpus["shards"]:
        records = list(read_split(tmp_path, shard["split"]))
        assert shard["documents"] == len(records)
        assert shard["text_bytes"] == sum(len(r.text.encode()) for r in records)
        assert shard["digest"].startswith("sha256:")


def test_progress_rises_to_the_total_and_names_the_source(tmp_path: Path) -> None:
    heard: list[tuple[int, int, str]] = []
    build_corpus([_source(_texts(50))], _config(), out=tmp_path, progress=lambda *told: heard.append(told))
    reading = [h for h in heard if h[2].startswith("reading")]
    assert [h[0] for h in reading] == sorted(h[0] for h in reading)
    assert all(done <= total for done, total, _ in heard)
    assert "made" in reading[-1][2]


def test_cloze_items_come_from_training_documents_and_never_repeat_their_wording(tmp_path: Path) -> None:
    names = ["mendeleev", "pycountry"]
    build_corpus([resolve(n, text_field="text") for n in names], _config(sources=names), out=tmp_path)
    items = read_items(tmp_path / "cloze.jsonl")
    train = "\n".join(_split(tmp_path, "train"))
    assert len(items) > 500
    assert {i.relation for i in items[:7]} >= {"element.symbol", "country.alpha_2"}
    for item in items:
        question = f"{item.prompt}{item.answer}."
        assert f"\n{question}" not in train, item
        assert f". {question}" not in train, item
        assert item.answer not in item.distractors
        assert len(set(item.distractors)) == 3
        assert item.relation.startswith("language") or item.id.partition("/")[2] in train


def test_long_corpora_are_written_in_several_shards(tmp_path: Path) -> None:
    writer = TextShardWriter(tmp_path, "train", shard_text_bytes=100)
    records = [TextRecord(id=f"{n:02d}", text="é" * 40, source="s", domain="d") for n in range(7)]
    for record in records:
        writer.write(record)
    shards = writer.close()
    assert [s["documents"] for s in shards] == [2, 2, 2, 1]
    (tmp_path / "corpus.json").write_text(json.dumps({"shards": shards}))
    assert list(read_split(tmp_path, "train")) == records


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    build_corpus([_source(_texts(50))], _config(), out=tmp_path)
    shard = tmp_path / "train-00000.jsonl.zst"
    shard.write_bytes(shard.read_bytes()[:40] + b"junk")
    with pytest.raises(AbruzziError, match=r"train-00000\.jsonl\.zst") as error:
        list(read_split(tmp_path, "train"))
    assert error.value.code == "bad_data"
    with pytest.raises(AbruzziError, match=r"corpus\.json"):
        read_corpus(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "expected"), [("pycuntry", "pycountry"), ("simpy", "sympy"), ("python_stdlib", "python-stdlib")]
)
def test_a_wrong_source_name_is_answered_with_the_nearest(name: str, expected: str) -> None:
    with pytest.raises(AbruzziError, match=name) as error:
        resolve(name, text_field="text")
    assert f"Did you mean {expected!r}?" in (error.value.hint or "")


def test_a_package_that_is_not_installed_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        SHIPPED, "ghost", Source(**{**SHIPPED["sympy"].__dict__, "name": "ghost", "distribution": "no-such-dist"})
    )
    with pytest.raises(AbruzziError, match="no-such-dist") as error:
        resolve("ghost", text_field="text")
    assert "corpus" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("texts", "config", "message"),
    [
        ([], {}, "gave no document"),
        (["a", "b"], {}, "shorter than data.min_document_bytes"),
        (["one lone document"], {}, "no document is left"),
        (_texts(20), {"max_bytes": 30}, "no document is left"),
    ],
)
def test_too_little_text_ends_with_a_sentence(
    tmp_path: Path, texts: list[str], config: dict[str, int], message: str
) -> None:
    with pytest.raises(AbruzziError, match=message) as error:
        build_corpus([_source(texts)], _config(**config), out=tmp_path)
    assert error.value.code == "bad_data"
    assert error.value.hint


def test_a_source_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AbruzziError, match="twice"):
        build_corpus([_source(_texts(5)), _source(_texts(5))], _config(), out=tmp_path)
