"""From sources to a corpus: clean, drop what is short or a duplicate, cut, divide into train and held-out, write shards.

What becomes of a document depends on its own text, the configuration and (for a cut) the sizes of its source, never on
chance: the same sources give the same bytes. Documents stream; only their 32-byte fingerprints stay in memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import CorpusData
from abruzzi_jobs.data import cloze
from abruzzi_jobs.data.distributions import Distributions
from abruzzi_jobs.data.documents import Document, Fact, clean, cut_score, document_id, fingerprint, split_score
from abruzzi_jobs.data.sources import Source
from abruzzi_jobs.data.text_shards import CORPUS_FILE, TextRecord, TextShardWriter

CLOZE_FILE = "cloze.jsonl"
_SMALL_BYTES = 8 << 20


class Progress(Protocol):
    """done and total in the same unit, message for people; called often and cheap."""

    def __call__(self, done: int, total: int, message: str) -> None: ...


def silent(done: int, total: int, message: str) -> None:
    """A Progress that tells nobody."""


@dataclass
class _Tally:
    """What became of one source's documents: [documents, bytes] each."""

    counts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, fate: str, size: int) -> None:
        entry = self.counts[fate]
        entry[0] += 1
        entry[1] += size

    def of(self, fate: str) -> dict[str, int]:
        documents, size = self.counts.get(fate, [0, 0])
        return {"documents": documents, "bytes": size}


@dataclass(frozen=True, kw_only=True)
class _Kept:
    source: Source
    document: Document
    text: str
    print_32: bytes
    size: int


def build_corpus(
    sources: list[Source],
    config: CorpusData,
    *,
    out: Path,
    progress: Progress = silent,
    curation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the corpus into `out` (an empty directory) and returns what corpus.json says. `curation`: what became of documents before.

    Raises AbruzziError bad_data when a source cannot be read or gives nothing, or when there are too few documents to divide.
    """
    _refuse_doubles(sources)
    measured = _must_measure(sources, config)
    limits, moved = _limits(sources, config, _part(progress, 0, 2)) if measured else ({}, None)
    progress = _part(progress, 1, 2) if measured else progress
    tallies = {s.name: _Tally() for s in sources}
    writers = {split: TextShardWriter(out, split) for split in ("train", "heldout")}
    facts: list[Fact] = []
    distributions = Distributions()
    domains: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for kept in _surviving(sources, config, tallies, progress):
        if cut_score(kept.print_32) > limits.get(_share_of(kept, config), 2**64):
            tallies[kept.source.name].add("cut", kept.size)
            continue
        held_out = (split_score(kept.print_32) < config.held_out_fraction) != (kept.print_32 == moved)
        split = "heldout" if held_out else "train"
        domain = kept.document.domain
        record = TextRecord(
            id=document_id(kept.print_32),
            text=kept.text,
            source=kept.source.name,
            domain=domain,
            name=kept.document.name,
        )
        writers[split].write(record)
        distributions.add(domain, kept.text)
        tallies[kept.source.name].add(split, kept.size)
        domains[domain][f"{split}_documents"] += 1
        domains[domain][f"{split}_bytes"] += kept.size
        if not held_out:
            facts += kept.document.facts
    shards = [shard for writer in writers.values() for shard in writer.close()]
    _refuse_nothing(sources, tallies)
    items = cloze.make_items(facts)
    cloze.write_items(out / CLOZE_FILE, items)
    corpus = {
        "version": 1,
        "config": config.model_dump(mode="json", exclude=config.absent()),
        "sources": [_source_entry(s, tallies[s.name], near=config.near_dedup is not None) for s in sources],
        "domains": {d: dict(sorted(c.items())) for d, c in sorted(domains.items())},
        "distributions": distributions.as_dict(),
        "shards": shards,
        "train_bytes": sum(s["text_bytes"] for s in shards if s["split"] == "train"),
        "train_documents": sum(s["documents"] for s in shards if s["split"] == "train"),
        "heldout_bytes": sum(s["text_bytes"] for s in shards if s["split"] == "heldout"),
        "heldout_documents": sum(s["documents"] for s in shards if s["split"] == "heldout"),
        "cloze_items": len(items),
        **({"curation": curation} if curation is not None else {}),
    }
    _refuse_no_training_text(corpus)
    (out / CORPUS_FILE).write_text(json.dumps(corpus, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return corpus


def _surviving(
    sources: list[Source],
    config: CorpusData,
    tallies: dict[str, _Tally] | None,
    progress: Progress,
    *,
    verb: str = "reading",
) -> Iterator[_Kept]:
    """Documents that are long enough and seen for the first time, in the order of the sources."""
    seen: set[bytes] = set()
    total = sum(s.expected_bytes for s in sources)
    before = 0
    for source in sources:
        done = 0
        for document in read_documents(source):
            text = clean(document.text)
            size = len(text.encode("utf-8", "replace"))
            done += size
            progress(before + min(done, source.expected_bytes), total, f"{verb} {source.name}")
            print_32 = fingerprint(text)
            fate = "short" if size < max(1, config.min_document_bytes) else None
            if fate is None and config.dedup == "exact":
                fate = "duplicate" if print_32 in seen else None
                seen.add(print_32)
            if fate is None and document.near_duplicate:
                fate = "near_duplicate"
            if fate is not None:
                if tallies is not None:
                    tallies[source.name].add(fate, size)
                continue
            yield _Kept(source=source, document=document, text=text, print_32=print_32, size=size)
        before += source.expected_bytes


def _must_measure(sources: list[Source], config: CorpusData) -> bool:
    """A cut needs every document's size before the first is written, which costs a first pass. Small corpora take it too, because
    they may have no document below the held-out fraction."""
    return (
        config.max_bytes is not None
        or config.mixture is not None
        or sum(s.expected_bytes for s in sources) <= _SMALL_BYTES
    )


def _part(progress: Progress, number: int, parts: int) -> Progress:
    return lambda done, total, message: progress(number * total + done, parts * total, message)


def _share_of(kept: _Kept, config: CorpusData) -> str:
    """What a cut is made in proportion of: a document's domain where the recipe weighs domains, else its source."""
    return kept.source.name if config.mixture is None else kept.document.domain


def _limits(sources: list[Source], config: CorpusData, progress: Progress) -> tuple[dict[str, int], bytes | None]:
    """({source or domain: highest cut score that stays}, document that goes to the other split than its score says, or None).

    Where no document falls below the fraction, the one with the lowest score is held out; where all do, the one with the highest trains.
    """
    scores: dict[str, list[int]] = defaultdict(list)
    sizes: dict[str, list[int]] = defaultdict(list)
    prints: list[tuple[float, int, str, bytes]] = []
    for kept in _surviving(sources, config, None, progress, verb="measuring"):
        share = _share_of(kept, config)
        scores[share].append(cut_score(kept.print_32))
        sizes[share].append(kept.size)
        prints.append((split_score(kept.print_32), cut_score(kept.print_32), share, kept.print_32))
    limits: dict[str, int] = {}
    for name, room in _room({n: sum(s) for n, s in sizes.items()}, config).items():
        order = np.argsort(np.asarray(scores[name], dtype=np.uint64), kind="stable")
        reached = np.cumsum(np.asarray(sizes[name], dtype=np.int64)[order])
        fits = int(np.searchsorted(reached, room, side="right"))
        limits[name] = scores[name][order[fits - 1]] if fits else -1
    stay = [p for p in prints if p[1] <= limits.get(p[2], 2**64)]
    moved = None
    if len({p[3] for p in stay}) > 1:
        if min(stay)[0] >= config.held_out_fraction:
            moved = min(stay)[3]
        elif max(stay)[0] < config.held_out_fraction:
            moved = max(stay)[3]
    return limits, moved


def _room(sizes: dict[str, int], config: CorpusData) -> dict[str, float]:
    """{source or domain: bytes that it may keep}; those that are not named keep all.

    Raises AbruzziError bad_data where a domain that the mixture weighs has no text.
    """
    total = sum(sizes.values())
    if config.mixture is None:
        most = config.max_bytes
        return {} if most is None or total <= most else {name: most * size / total for name, size in sizes.items()}
    missing = sorted(set(config.mixture) - set(sizes))
    if missing:
        raise AbruzziError(
            "bad_data",
            f"data.mixture: there is no text of the domain {missing[0]!r}; there is of {', '.join(sorted(sizes))}.",
            hint="Give a source of this domain, or take it out of the mixture.",
        )
    weights = {name: weight / sum(config.mixture.values()) for name, weight in config.mixture.items()}
    reach = min(sizes[name] / weight for name, weight in weights.items())
    if config.max_bytes is not None:
        reach = min(reach, config.max_bytes)
    return {name: reach * weights.get(name, 0.0) for name in sizes}


def read_documents(source: Source) -> Iterator[Document]:
    """Raises AbruzziError bad_data where the source cannot be read."""
    try:
        yield from source.read()
    except (ModuleNotFoundError, FileNotFoundError, ValueError, LookupError) as error:
        raise AbruzziError(
            "bad_data",
            f"data.sources: {source.name} cannot be read ({type(error).__name__}: {error}).",
            hint="Install the package in the version that uv.lock names, or take the source out of the recipe.",
        ) from error


def _refuse_doubles(sources: list[Source]) -> None:
    names = [s.name for s in sources]
    for name in names:
        if names.count(name) > 1:
            raise AbruzziError("bad_data", f"data.sources: {name} stands there twice.", hint="Name every source once.")


def _refuse_nothing(sources: list[Source], tallies: dict[str, _Tally]) -> None:
    for source in sources:
        counts = tallies[source.name].counts
        if not sum(entry[0] for entry in counts.values()):
            raise AbruzziError(
                "bad_data", f"data.sources: {source.name} gave no document.", hint="Check its files, or take it out."
            )
        if set(counts) == {"short"}:
            raise AbruzziError(
                "bad_data",
                f"data.sources: every document of {source.name} is shorter than data.min_document_bytes.",
                hint="Set data.min_document_bytes lower, or join the texts.",
            )


def _refuse_no_training_text(corpus: dict[str, Any]) -> None:
    for split in ("train", "heldout"):
        if not corpus[f"{split}_documents"]:
            documents = corpus["train_documents"] + corpus["heldout_documents"]
            raise AbruzziError(
                "bad_data",
                f"data: no document is left for {split}: {documents} in all, of which data.held_out_fraction takes a share.",
                hint="Give more documents (a lone text cannot be divided), or set data.held_out_fraction or data.max_bytes anew.",
            )


def _source_entry(source: Source, tally: _Tally, *, near: bool) -> dict[str, Any]:
    fates = ("train", "heldout", "short", "duplicate", *(("near_duplicate",) if near else ()), "cut")
    return {
        "name": source.name,
        "domain": source.domain,
        "licence": source.licence,
        "distribution": source.distribution,
        "version": source.version,
        "note": source.note,
        **{fate: tally.of(fate) for fate in fates},
    }
