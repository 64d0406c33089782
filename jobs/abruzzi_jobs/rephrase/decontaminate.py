"""Evaluation items that a rewrite repeats: a model that knows an evaluation set may recite it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from abruzzi.contracts.rephrase import RephraseConfig
from abruzzi_jobs.data.cloze import read_items
from abruzzi_jobs.data.corpus import CLOZE_FILE
from abruzzi_jobs.data.curation import evaluation_sets
from abruzzi_jobs.data.curation.decontamination import NgramIndex


class Decontamination:
    """By the index of curation; of the corpus itself its held-out questions. Raises AbruzziError missing_package where a set is not there."""

    def __init__(self, config: RephraseConfig, corpus: Path) -> None:
        self.described: list[dict[str, Any]] = []
        self._index: NgramIndex | None = None
        if config.decontamination is None:
            return
        names = config.decontamination.against or (*evaluation_sets.REGISTERED, evaluation_sets.CLOZE)
        others = tuple(name for name in names if name != evaluation_sets.CLOZE)
        registered = evaluation_sets.chosen(others, ()) if others else []
        versions = {s.name: evaluation_sets.version(s) for s in registered}
        sets = {s.name: list(s.items()) for s in registered}
        if evaluation_sets.CLOZE in names and (corpus / CLOZE_FILE).exists():
            items = read_items(corpus / CLOZE_FILE)
            sets[evaluation_sets.CLOZE] = [item.prompt + item.answer for item in items]
        self.described = [
            {"name": name, "version": versions.get(name, ""), "items": len(items)}
            for name, items in sorted(sets.items())
        ]
        self._index = NgramIndex.build(sorted(sets.items()), words=config.decontamination.ngram)

    def found_in(self, text: str) -> str | None:
        """The set that the text shares a run of words with."""
        return self._index.matches([text])[0] if self._index is not None else None
