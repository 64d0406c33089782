"""A rewritten part beside its source: sentences, who tells whom, numbers and names. What the rules look at. Pure."""

from __future__ import annotations

from functools import cached_property

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.rephrase.fidelity.alignment import Told, align, groups
from abruzzi_jobs.rephrase.fidelity.entities import Entity, entities_in
from abruzzi_jobs.rephrase.fidelity.fault import Span
from abruzzi_jobs.rephrase.fidelity.lexicon import words
from abruzzi_jobs.rephrase.fidelity.numbers import Number, numbers_in
from abruzzi_jobs.rephrase.fidelity.words import Sentence, Text, parse


class Comparison:
    def __init__(self, source: str, text: str, context: str, config: FidelityConfig) -> None:
        self.source, self.rewrite, self.context, self.config = parse(source), parse(text), context, config
        self.told: list[Told] = align(self.source, self.rewrite)
        self.tellers: list[list[int]] = [[] for _ in self.source.sentences]
        """For each sentence of the source, those of the rewrite that tell it."""
        for number, told in enumerate(self.told):
            for index in told.sources:
                self.tellers[index].append(number)

    @cached_property
    def groups(self) -> list[tuple[list[int], list[int]]]:
        return groups(self.told)

    @cached_property
    def source_numbers(self) -> list[list[Number]]:
        return [_numbers(self.source, s) for s in self.source.sentences]

    @cached_property
    def rewrite_numbers(self) -> list[list[Number]]:
        return [_numbers(self.rewrite, s) for s in self.rewrite.sentences]

    @cached_property
    def source_entities(self) -> list[list[Entity]]:
        return [entities_in(self.source, s, other=self.rewrite) for s in self.source.sentences]

    @cached_property
    def rewrite_entities(self) -> list[list[Entity]]:
        return [entities_in(self.rewrite, s, other=self.source) for s in self.rewrite.sentences]

    def near_sources(self, told: Told) -> list[int]:
        """What it tells, and the neighbours, from which a paraphrase may take a subject or a half-sentence."""
        return near(told.sources, len(self.source.sentences))

    def near_tellers(self, index: int) -> list[int]:
        return near(self.tellers[index], len(self.rewrite.sentences))

    def teller_span(self, index: int) -> Span | None:
        """Of the rewrite's sentence that tells a sentence of the source."""
        tellers = self.tellers[index]
        return self.rewrite.sentences[tellers[0]].span if tellers else None

    def told_span(self, told: Told) -> Span | None:
        """Of the source's sentence that a sentence of the rewrite tells."""
        return self.source.sentences[told.sources[0]].span if told.sources else None


def near(numbers: list[int] | tuple[int, ...], size: int) -> list[int]:
    return sorted({n + d for n in numbers for d in (-1, 0, 1) if 0 <= n + d < size})


def refers_back(sentence: Sentence) -> bool:
    """Whether a pronoun may stand for a name of another sentence, or somebody's turn in a dialogue begins."""
    return bool(sentence.marker) or any(w.text.lower() in words("pronouns") for w in sentence.words)


def _numbers(parsed: Text, sentence: Sentence) -> list[Number]:
    return numbers_in(parsed.text, sentence.start + sentence.marker, sentence.end)
