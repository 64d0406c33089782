"""Curation of one shard: each document through the tables of the recipe in their order; what stays gets its signature."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from abruzzi.contracts.curation import CurationTables
from abruzzi_jobs.data.curation.decontamination import NgramIndex
from abruzzi_jobs.data.curation.language import language_of
from abruzzi_jobs.data.curation.normal import normalise
from abruzzi_jobs.data.curation.privacy import mask
from abruzzi_jobs.data.curation.quality import fault
from abruzzi_jobs.data.documents import clean
from abruzzi_jobs.data.minhash import MinHash
from abruzzi_jobs.data.processing.function import FunctionSpec, Output, Row
from abruzzi_jobs.data.validation.rows import fault_of

VERSION = 1
INDEX_FILE = "evaluation-ngrams.bin"
SIGNATURES = "minhash"
"""Suffix of the signatures beside a shard: [D, K] little-endian uint32, one row a kept document."""
_AT_ONCE = 256


def curation_function(tables: CurationTables, *, index_digest: str | None) -> FunctionSpec:
    """`index_digest` of INDEX_FILE; None: nothing to decontaminate against."""
    config = tables.model_dump(mode="json", include=set(CurationTables.model_fields) - tables.absent() - {"mixture"})
    files = {INDEX_FILE: index_digest} if index_digest else {}
    return FunctionSpec(target=f"{__name__}:Curation", version=VERSION, config=config, files=files)


def minhash_of(tables: CurationTables) -> MinHash | None:
    near = tables.near_dedup
    if near is None:
        return None
    return MinHash(shingle_words=near.shingle_words, bands=near.bands, rows=near.rows, threshold=near.threshold)


class Curation:
    """A ShardFunction. Rows have `text`, `source`, `domain` and `name`, and `facts` where the source knows some."""

    def __init__(self, config: dict[str, Any], seed: int, files: dict[str, bytes]) -> None:
        self._tables = CurationTables.model_validate(config)
        self._index = NgramIndex.from_bytes(files[INDEX_FILE]) if files else None
        self._minhash = minhash_of(self._tables)

    def __call__(self, rows: Iterator[Row], output: Output) -> None:
        signatures: list[bytes] = []
        while batch := list(islice(rows, _AT_ONCE)):
            kept = self._uncontaminated([r for r in batch if self._passes(r, output)], output)
            kept = [r for r in kept if self._valid(r, output)]
            for row in kept:
                output.keep(row)
            if self._minhash is not None:
                signatures.append(self._minhash.signatures([r["text"] for r in kept]).astype("<u4").tobytes())
        if self._minhash is not None:
            output.attach(SIGNATURES, b"".join(signatures))

    def _passes(self, row: Row, output: Output) -> bool:
        """Whether the row stays; its text is brought into its final form."""
        tables, domain = self._tables, row["domain"]
        before = row["text"]
        row["text"] = clean(normalise(before) if tables.normalise else before)
        if tables.normalise and row["text"] != clean(before):
            output.note("normalise.changed")
        reason = self._language_fault(row) or self._quality_fault(row, domain)
        if reason is None and tables.privacy is not None:
            row["text"], masked, dropped = mask(row["text"], tables.privacy)
            for kind, times in masked.items():
                output.note(f"privacy.{kind}", times)
            reason = f"privacy.{dropped}" if dropped else None
        if reason is not None:
            output.reject(row, reason)
        return reason is None

    def _language_fault(self, row: Row) -> str | None:
        config = self._tables.language
        if config is None or row["domain"] in config.except_domains:
            return None
        language, confidence = language_of(row["text"])
        if confidence < config.min_confidence or not language:
            return "language.unsure"
        return None if language in config.keep else f"language.{language}"

    def _quality_fault(self, row: Row, domain: str) -> str | None:
        config = self._tables.quality
        if config is None or domain in config.except_domains:
            return None
        rule = fault(row["text"], domain, config)
        return f"quality.{rule}" if rule else None

    def _valid(self, row: Row, output: Output) -> bool:
        reason = fault_of(row, self._tables.validation) if self._tables.validation is not None else None
        if reason is not None:
            output.reject(row, f"validation.{reason}")
        return reason is None

    def _uncontaminated(self, rows: list[Row], output: Output) -> list[Row]:
        if self._index is None or not rows:
            return rows
        kept = []
        for row, name in zip(rows, self._index.matches([r["text"] for r in rows]), strict=True):
            if name is None:
                kept.append(row)
            else:
                output.reject(row, f"decontamination.{name}")
        return kept


def read_signatures(content: bytes, length: int) -> np.ndarray:
    """[D, K]"""
    return np.frombuffer(content, dtype="<u4").reshape(-1, length)
