"""Sources through curation: read into shards, each shard through the function, near-duplicates over all, and sources again.

What comes out takes the place of the sources in `build_corpus`, which divides, cuts and writes as ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import CorpusData
from abruzzi.contracts.stage import StoreConfig
from abruzzi_jobs.data.corpus import Progress, read_documents, silent
from abruzzi_jobs.data.curation import evaluation_sets
from abruzzi_jobs.data.curation.decontamination import NgramIndex
from abruzzi_jobs.data.curation.function import INDEX_FILE, SIGNATURES, curation_function, minhash_of, read_signatures
from abruzzi_jobs.data.documents import Document, Fact
from abruzzi_jobs.data.processing.executor import Executor
from abruzzi_jobs.data.processing.function import FunctionSpec, Row
from abruzzi_jobs.data.processing.indexed import IndexedShards
from abruzzi_jobs.data.processing.shard import (
    EXAMPLES,
    KEPT,
    ShardManifest,
    ShardTask,
    digest_of,
    read_rows,
    read_verified,
    write_atomic,
    write_rows,
)
from abruzzi_jobs.data.sources import Source
from abruzzi_jobs.data.validation.programs import refuse_without_sandbox

SHARD_BYTES = 4 << 20
"""Of text: seconds of work, so that progress is steady and little is lost with a process."""


@dataclass(frozen=True, kw_only=True)
class Curated:
    sources: list[Source]
    report: dict[str, Any]
    """What corpus.json says under `curation`."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What there is before the first shard goes through the function."""

    function: FunctionSpec
    raws: list[_Raw]
    described: list[dict[str, Any]]
    """The evaluation sets that the function looks for."""
    out: Path

    @property
    def tasks(self) -> list[ShardTask]:
        return [raw.task for raw in self.raws]


@dataclass(frozen=True, kw_only=True)
class _Raw:
    source: int
    """Its number among the sources."""
    task: ShardTask


def curate(
    sources: list[Source],
    config: CorpusData,
    *,
    work: Path,
    executor: Executor,
    progress: Progress = silent,
    store: StoreConfig | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Curated:
    """Writes raw and curated shards below `work`, and continues there with what an earlier process has finished.

    Raises AbruzziError bad_data where a source cannot be read, gives nothing, or has no document left; no_sandbox where doctests are to be
    run and no sandbox works.
    """
    ready = prepare(sources, config, work=work, progress=_part(progress, 0), store=store, shard_bytes=shard_bytes)
    function, raws, out = ready.function, ready.raws, ready.out
    manifests = executor.run(function, ready.tasks, out, _part(progress, 1))
    _refuse_nothing_left(sources, raws, manifests)
    near = _near_duplicates(config, out, manifests, _part(progress, 2))
    report: dict[str, Any] = {
        "function": asdict(function),
        "stage_hash": function.digest(),
        "shards": len(manifests),
        "evaluation_sets": ready.described,
        "sources": {s.name: _fates(raws, manifests, n) for n, s in enumerate(sources)},
        "notes": _sum(m.notes for m in manifests),
        "examples": _examples(manifests),
        "near_duplicates": int(near.sum()),
    }
    curated = [_curated(s, n, raws, manifests, near, out) for n, s in enumerate(sources)]
    return Curated(sources=curated, report=report)


def curate_share(
    sources: list[Source],
    config: CorpusData,
    *,
    work: Path,
    indices: IndexedShards,
    progress: Progress = silent,
    store: StoreConfig | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """One index's part of `curate`; index 0, which runs that, waits for it. Raises as `curate` does before the first shard."""
    ready = prepare(sources, config, work=work, progress=_part(progress, 0, 2), store=store, shard_bytes=shard_bytes)
    indices.make(ready.function, ready.tasks, ready.out, _part(progress, 1, 2))


def prepare(
    sources: list[Source],
    config: CorpusData,
    *,
    work: Path,
    progress: Progress,
    store: StoreConfig | None,
    shard_bytes: int,
) -> Prepared:
    """Reads the sources into shards below `work`: the same, by name and digest, wherever it is done."""
    if config.validation is not None and config.validation.python == "doctests":
        refuse_without_sandbox()
    raw_folder, out = work / "raw", work / "curated"
    for folder in (raw_folder, out):
        folder.mkdir(parents=True, exist_ok=True)
    raws, facts = _write_raw(sources, raw_folder, shard_bytes, progress)
    index, described = _index(config, facts, store)
    if index is not None:
        write_atomic(out / INDEX_FILE, index)
    function = curation_function(config, index_digest=digest_of(index) if index is not None else None)
    return Prepared(function=function, raws=raws, described=described, out=out)


def fates(corpus: dict[str, Any]) -> dict[str, int]:
    """{`train`, `heldout`, or the reason why not: documents} of a curated corpus, by what corpus.json says: every document once."""
    ends = _sum(
        {fate: entry["documents"] for fate, entry in source.items() if isinstance(entry, dict)}
        for source in corpus["sources"]
    )
    rejected = _sum(
        {fate: entry["documents"] for fate, entry in found.items() if fate != KEPT}
        for found in corpus["curation"]["sources"].values()
    )
    return {fate: documents for fate, documents in sorted((ends | rejected).items()) if documents}


def _write_raw(
    sources: list[Source], folder: Path, shard_bytes: int, progress: Progress
) -> tuple[list[_Raw], list[Fact]]:
    raws: list[_Raw] = []
    facts: list[Fact] = []
    total = sum(s.expected_bytes for s in sources)
    before = 0
    for number, source in enumerate(sources):
        waiting: list[Row] = []
        size = done = written = 0

        def flush(number: int = number) -> None:
            nonlocal waiting, size, written
            path = folder / f"{number:03d}-{written:05d}.jsonl.zst"
            digest, _ = write_rows(path, iter(waiting))
            raws.append(
                _Raw(source=number, task=ShardTask(name=f"{number:03d}-{written:05d}", parent=path, digest=digest))
            )
            waiting, size, written = [], 0, written + 1

        for document in read_documents(source):
            text = document.text.encode("utf-8", "replace").decode()
            row: Row = {"text": text, "source": source.name, "domain": document.domain, "name": document.name}
            if document.facts:
                row["facts"] = [asdict(f) for f in document.facts]
                facts += document.facts
            waiting.append(row)
            size += len(text)
            done += len(text)
            if size >= shard_bytes:
                flush()
            progress(before + min(done, source.expected_bytes), total, f"reading {source.name}")
        if waiting:
            flush()
        if not written:
            raise AbruzziError(
                "bad_data", f"data.sources: {source.name} gave no document.", hint="Check its files, or take it out."
            )
        before += source.expected_bytes
    return raws, facts


def _index(
    config: CorpusData, facts: list[Fact], store: StoreConfig | None
) -> tuple[bytes | None, list[dict[str, Any]]]:
    if config.decontamination is None:
        return None, []
    sets = evaluation_sets.chosen(config.decontamination.against, facts, store=store)
    versions = [evaluation_sets.version(s) for s in sets]
    items = {s.name: list(s.items()) for s in sets}
    index = NgramIndex.build(((s.name, items[s.name]) for s in sets), words=config.decontamination.ngram)
    described = [
        {"name": s.name, "version": v, "licence": s.licence, "items": len(items[s.name])}
        for s, v in zip(sets, versions, strict=True)
    ]
    return index.to_bytes(), described


def _near_duplicates(
    config: CorpusData, out: Path, manifests: list[ShardManifest], progress: Progress
) -> NDArray[np.bool_]:
    """[kept documents]: whether one before it is near. Nothing is near where the recipe does not ask."""
    minhash = minhash_of(config)
    documents = sum(m.fates.get(KEPT, {"documents": 0})["documents"] for m in manifests)
    if minhash is None:
        return np.zeros(documents, np.bool_)
    progress(0, 1, "comparing signatures")
    signatures = np.empty((documents, minhash.length), np.uint32)
    at = 0
    for manifest in manifests:
        name = f"{manifest.name}.{SIGNATURES}"
        part = read_signatures(read_verified(out / name, manifest.files[name]["digest"]), minhash.length)
        signatures[at : at + len(part)] = part
        at += len(part)
    labels = minhash.components(signatures)
    progress(1, 1, "comparing signatures")
    return labels != np.arange(documents)


def _curated(
    source: Source, number: int, raws: list[_Raw], manifests: list[ShardManifest], near: NDArray[np.bool_], out: Path
) -> Source:
    kept = [m.fates.get(KEPT, {"documents": 0, "bytes": 0}) for m in manifests]
    mine = [i for i, raw in enumerate(raws) if raw.source == number]
    first = sum(kept[i]["documents"] for i in range(mine[0]))

    def read() -> Iterator[Document]:
        at = first
        for i in mine:
            shard = manifests[i].shard
            for row in read_rows(read_verified(out / shard, manifests[i].files[shard]["digest"]), shard):
                facts = tuple(Fact(**f) for f in row.get("facts", ()))
                yield Document(
                    name=row["name"], text=row["text"], domain=row["domain"], facts=facts, near_duplicate=bool(near[at])
                )
                at += 1

    return replace(source, read=read, expected_bytes=sum(kept[i]["bytes"] for i in mine))


def _refuse_nothing_left(sources: list[Source], raws: list[_Raw], manifests: list[ShardManifest]) -> None:
    for number, source in enumerate(sources):
        found = _fates(raws, manifests, number)
        if KEPT not in found:
            told = ", ".join(
                f"{reason} {entry['documents']}"
                for reason, entry in sorted(found.items(), key=lambda e: (-e[1]["documents"], e[0]))
            )
            raise AbruzziError(
                "bad_data",
                f"data.sources: every document of {source.name} was rejected: {told}.",
                hint="Change the table of [stage.data] that a reason begins with, or take the source out.",
            )


def _fates(raws: list[_Raw], manifests: list[ShardManifest], number: int) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"documents": 0, "bytes": 0})
    for raw, manifest in zip(raws, manifests, strict=True):
        if raw.source == number:
            for fate, entry in manifest.fates.items():
                for unit in ("documents", "bytes"):
                    found[fate][unit] += entry[unit]
    return dict(sorted(found.items()))


def _examples(manifests: list[ShardManifest]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for manifest in manifests:
        for reason, examples in manifest.examples.items():
            found[reason] += examples[: EXAMPLES - len(found[reason])]
    return dict(sorted(found.items()))


def _sum(counts: Any) -> dict[str, int]:
    total: dict[str, int] = defaultdict(int)
    for one in counts:
        for name, amount in one.items():
            total[name] += amount
    return dict(sorted(total.items()))


def _part(progress: Progress, number: int, parts: int = 3) -> Progress:
    return lambda done, total, message: progress(number * total + done, parts * total, message)
