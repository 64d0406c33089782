"""Which documents of a corpus are rewritten, and how: by their domain and language, the same for the same corpus and seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rephrase import RephraseConfig
from abruzzi_jobs.data.curation.language import language_of
from abruzzi_jobs.data.text_shards import TextRecord, read_corpus, read_split
from abruzzi_jobs.rephrase.grid import TRANSLATION, Cell, Grid, cells_of

_SURE = 0.5


@dataclass(frozen=True)
class Planned:
    """Without cells the document stays as it is."""

    record: TextRecord
    cells: tuple[Cell, ...]
    language: str = "en"


def planned(corpus: Path, config: RephraseConfig, grid: Grid, *, seed: int) -> Iterator[Planned]:
    """All training documents in their order. A document that stands there twice is rewritten once."""
    cells = {domain: grid.cells(config, domain=domain) for domain in domains_of(corpus, config)}
    seen: set[str] = set()
    for record in read_split(corpus, "train"):
        if record.domain not in cells or record.id in seen:
            yield Planned(record, ())
            continue
        seen.add(record.id)
        language, is_wanted = _language(record.text, config)
        if not is_wanted:
            yield Planned(record, (), language)
            continue
        count = config.rewrites_per_document
        if language in config.translate_from:
            chosen = [Cell(TRANSLATION, "", number) for number in range(count)]
        else:
            chosen = cells_of(cells[record.domain], count, document=record.id, seed=seed)
        yield Planned(record, tuple(chosen), language)


def domains_of(corpus: Path, config: RephraseConfig) -> dict[str, int]:
    """{domain that is rewritten: training documents}. Raises AbruzziError bad_data where there is none."""
    described = read_corpus(corpus)
    held = {name: counts.get("train_documents", 0) for name, counts in described.get("domains", {}).items()}
    found = {name: number for name, number in held.items() if number and name in config.domains}
    if not found:
        there = ", ".join(f"{name} ({number})" for name, number in sorted(held.items()) if number) or "none"
        raise AbruzziError(
            "bad_data",
            f"rephrase.domains: the corpus has no training document of {', '.join(config.domains)}; its documents by domain: {there}.",
            hint="Name a domain that the corpus has.",
        )
    return found


def _language(text: str, config: RephraseConfig) -> tuple[str, bool]:
    """(language, whether the document is rewritten or translated)."""
    if not config.languages and not config.translate_from:
        return "en", True
    language, sure = language_of(text)
    language = language if sure >= _SURE else ""
    if language in config.translate_from:
        return language, True
    return language, not config.languages or language in config.languages
