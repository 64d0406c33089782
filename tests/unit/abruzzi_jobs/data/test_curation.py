"""Curation as a whole: counts by fate and reason, the planted evaluation item, near-duplicates, the mixture, the same bytes always."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import CorpusData
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.curation import evaluation_sets
from abruzzi_jobs.data.curation.run import curate, fates
from abruzzi_jobs.data.documents import Document, Fact
from abruzzi_jobs.data.processing.local import LocalProcesses
from abruzzi_jobs.data.sources import Source, resolve
from abruzzi_jobs.data.text_shards import read_split

WORDS = [
    "committee",
    "town",
    "hall",
    "decide",
    "harbour",
    "expected",
    "fishermen",
    "families",
    "mayor",
    "asked",
    "speak",
    "elderly",
    "woman",
    "stood",
    "water",
    "risen",
    "winter",
    "childhood",
    "boats",
    "eastern",
    "wall",
    "words",
    "silence",
    "room",
    "stone",
    "garden",
    "letter",
    "road",
    "market",
    "bread",
    "evening",
    "river",
    "teacher",
    "mountain",
]
TABLES: dict[str, Any] = {
    "normalise": True,
    "language": {},
    "quality": {},
    "privacy": {},
    "decontamination": {"against": ["cloze", "humaneval"]},
    "near_dedup": {},
}


def _source(texts: list[str], *, name: str = "made", domain: str = "web") -> Source:
    def read() -> Iterator[Document]:
        for number, text in enumerate(texts):
            yield Document(name=f"{name}/{number}", text=text, domain=domain)

    return Source(name=name, domain=domain, licence="CC0-1.0", read=read, expected_bytes=sum(map(len, texts)) + 1)


def _prose(count: int, seed: int = 0) -> list[str]:
    """Sentences of English words that no two texts have in common."""
    rng = random.Random(seed)
    small = ["of", "to", "and", "with", "that", "have", "be"]

    def sentence() -> str:
        return "The " + " ".join(f"{word} {rng.choice(small)}" for word in rng.sample(WORDS, 8)) + "."

    return [" ".join(sentence() for _ in range(10)) for _ in range(count)]


def _config(**values: Any) -> CorpusData:
    return CorpusData.model_validate({"sources": ["made"], "held_out_fraction": 0.1, **values})


def _build(folder: Path, sources: list[Source], config: CorpusData, workers: int = 1) -> dict[str, Any]:
    work, out = folder / "work", folder / "corpus"
    out.mkdir(parents=True)
    curated = curate(sources, config, work=work, executor=LocalProcesses(workers), shard_bytes=40_000)
    return build_corpus(curated.sources, config, out=out, curation=curated.report)


def _texts(folder: Path) -> list[str]:
    return [r.text for split in ("train", "heldout") for r in read_split(folder / "corpus", split)]


def test_what_becomes_of_each_document_is_counted_by_reason(tmp_path: Path) -> None:
    humaneval = next(evaluation_sets.REGISTERED["humaneval"].items())
    prose = _prose(40)
    web = [
        *prose,
        prose[0],  # a copy
        prose[1].replace("The", "the") + " …!",  # nearly one
        prose[2] + " Write to anna.berg@posteo.de.",  # nearly one, too
        _prose(1, seed=7)[0] + " Write to anna.berg@posteo.de.",
        _prose(1, seed=8)[0] + " ghp_" + "a1B2" * 9,
        "Der Ausschuss traf sich im alten Rathaus, um über die Zukunft des Hafens zu entscheiden. " * 5,
        "Too short, and the end of that, to be sure: nobody will read it.",
    ]
    code = [f"# copied from somewhere\n{humaneval}\n", *(f"def f{n}(x):\n    return x * {n}\n" * 9 for n in range(20))]
    sources = [_source(web), _source(code, name="programs", domain="code")]
    config = _config(sources=["made", "programs"], **{**TABLES, "decontamination": {}})
    corpus = _build(tmp_path, sources, config)
    found = corpus["curation"]
    assert {r: e["documents"] for r, e in found["sources"]["made"].items()} == {
        "kept": 44,
        "language.de": 1,
        "privacy.key": 1,
        "quality.few_words": 1,
    }
    assert {r: e["documents"] for r, e in found["sources"]["programs"].items()} == {
        "kept": 20,
        "decontamination.humaneval": 1,
    }
    assert sum(fates(corpus).values()) == len(web) + len(code), "every document once"
    assert fates(corpus)["near_duplicate"] == 2 + 18
    assert found["notes"]["privacy.email"] == 2
    by_name = {s["name"]: s for s in corpus["sources"]}
    assert by_name["made"]["duplicate"]["documents"] == 1
    # f0 … f9 and f10 … f19 differ in digits alone: they are two programs.
    assert by_name["made"]["near_duplicate"]["documents"] == 2
    assert by_name["programs"]["near_duplicate"]["documents"] == 18
    assert found["near_duplicates"] == 1 + 2 + 18
    compared = {e["name"]: e["items"] for e in found["evaluation_sets"]}
    assert compared.keys() == {"cloze", *evaluation_sets.REGISTERED}
    assert compared["humaneval"] == 164
    assert "has_close_elements" in found["examples"]["decontamination.humaneval"][0]["text"]
    texts = _texts(tmp_path)
    assert not any("has_close_elements" in t or "posteo" in t for t in texts)
    assert sum("Write to <email>." in t for t in texts) == 1
    counted = sum(
        s[f]["documents"]
        for s in corpus["sources"]
        for f in ("train", "heldout", "short", "duplicate", "near_duplicate")
    )
    assert counted == found["sources"]["made"]["kept"]["documents"] + 20


@pytest.mark.serial
def test_the_same_bytes_from_one_process_and_from_several(tmp_path: Path) -> None:
    sources = [resolve("mendeleev", text_field="text"), _source(_prose(60))]
    config = _config(sources=["mendeleev", "made"], **TABLES)
    one = _build(tmp_path / "one", sources, config)
    _build(tmp_path / "two", sources, config, workers=2)
    assert one["curation"]["shards"] > 3
    assert one["cloze_items"] > 100, "facts come through curation"
    names = sorted(p.name for p in (tmp_path / "one" / "corpus").iterdir())
    for name in names:
        same = (tmp_path / "one" / "corpus" / name).read_bytes() == (tmp_path / "two" / "corpus" / name).read_bytes()
        assert same, name


def test_wrong_documents_are_rejected_by_their_validator(tmp_path: Path) -> None:
    def read() -> Iterator[Document]:
        iron = Fact(relation="element.symbol", subject="Iron", answer="Fe", wording=0)
        for name, domain, text, facts in (
            ("a.py", "code", 'def f():\n    """\n    >>> f()\n    1\n    """\n    return 1', ()),
            ("b.py", "code", 'def f():\n    """\n    >>> f()\n    2\n    """\n    return 1', ()),
            ("c.py", "code", "def f(:", ()),
            ("d.rs", "code", "fn main() {}", ()),
            ("e", "mathematics", "Therefore 2 + 2 = 4, as ever.", ()),
            ("f", "mathematics", "Therefore 2 + 2 = 5, as never.", ()),
            ("g", "web", "They say that 2 + 2 = 5.", ()),
            ("h", "knowledge", "The symbol of Iron is Fe.", (iron,)),
            ("i", "knowledge", "The symbol of Iron is an I.", (iron,)),
        ):
            yield Document(name=name, domain=domain, text=text, facts=facts)

    source = Source(name="made", domain="web", licence="CC0-1.0", read=read, expected_bytes=400)
    config = _config(validation={"python": "doctests"})
    curated = curate([source], config, work=tmp_path, executor=LocalProcesses(1))
    found = curated.report["sources"]["made"]
    assert {reason: entry["documents"] for reason, entry in found.items()} == {
        "kept": 5,
        "validation.arithmetic": 1,
        "validation.doctest": 1,
        "validation.facts": 1,
        "validation.syntax": 1,
    }
    assert [d.name for d in curated.sources[0].read()] == ["a.py", "d.rs", "e", "g", "h"]


def test_a_mixture_takes_what_the_scarcest_domain_allows(tmp_path: Path) -> None:
    sources = [
        _source(_prose(60, 1)),
        _source(_prose(60, 2), name="also"),
        _source(_prose(30, 3), name="own", domain="own"),
    ]
    config = _config(sources=["made", "also", "own"], mixture={"web": 1.0, "own": 3.0})
    (tmp_path / "corpus").mkdir()
    corpus = build_corpus(sources, config, out=tmp_path / "corpus")
    sizes = {d: c["train_bytes"] + c.get("heldout_bytes", 0) for d, c in corpus["domains"].items()}
    assert sizes["own"] == sum(len(t) for t in _prose(30, 3))
    assert sizes["web"] == pytest.approx(sizes["own"] / 3, rel=0.1)
    with pytest.raises(AbruzziError, match="no text of the domain 'code'"):
        build_corpus(sources, _config(mixture={"code": 1.0, "web": 1.0}), out=tmp_path / "corpus")


def test_a_domain_without_a_weight_is_left_out(tmp_path: Path) -> None:
    sources = [_source(_prose(30, 1)), _source(_prose(30, 2), name="own", domain="own")]
    (tmp_path / "corpus").mkdir()
    corpus = build_corpus(sources, _config(mixture={"own": 1.0}, max_bytes=20_000), out=tmp_path / "corpus")
    assert set(corpus["domains"]) == {"own"}
    assert corpus["train_bytes"] + corpus["heldout_bytes"] <= 20_000


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "gave no document"), (["too short"] * 3, r"every document of made was rejected: quality\.few_words 3")],
)
def test_a_source_of_which_nothing_is_left_is_named(tmp_path: Path, texts: list[str], message: str) -> None:
    with pytest.raises(AbruzziError, match=message) as error:
        curate([_source(texts)], _config(quality={}), work=tmp_path, executor=LocalProcesses(1))
    assert error.value.code == "bad_data"
    assert error.value.hint


def test_a_corpus_without_curation_says_nothing_of_it(tmp_path: Path) -> None:
    corpus = build_corpus([_source(_prose(30))], _config(), out=tmp_path)
    assert "curation" not in corpus
    assert set(corpus["config"]) == {
        "sources",
        "text_field",
        "max_bytes",
        "held_out_fraction",
        "min_document_bytes",
        "dedup",
    }
    assert "near_duplicate" not in corpus["sources"][0]
