"""The rules: numbers, names, denials, claims, omissions, sentence by sentence of a rewritten part. Pure and cheap; each fault says where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.rephrase.fidelity import polarity
from abruzzi_jobs.rephrase.fidelity.alignment import Told, align
from abruzzi_jobs.rephrase.fidelity.entities import Entity, entities_in, key_of
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind
from abruzzi_jobs.rephrase.fidelity.numbers import Number, numbers_in, stand_ins
from abruzzi_jobs.rephrase.fidelity.words import Sentence, Text, alike, is_content, parse

LAYER = "rules"
_CLAIM_WORDS = 3
"""Content words from which a sentence may be a claim."""
_OMITTED_SUPPORT = 0.25


def rules(source: str, text: str, *, context: str, config: FidelityConfig) -> list[Fault]:
    """Of a part against its source, in the order numbers, entities, negations, claims, omissions. `context`: the whole document."""
    pair = _Pair(parse(source), parse(text), parse(context), config)
    return [*_numbers(pair), *_entities(pair), *_negations(pair), *_claims(pair), *_omissions(pair)]


@dataclass
class _Pair:
    source: Text
    rewrite: Text
    context: Text
    config: FidelityConfig

    def __post_init__(self) -> None:
        self.told: list[Told] = align(self.source, self.rewrite)
        self.tellers: list[list[int]] = [[] for _ in self.source.sentences]
        """For each sentence of the source, those of the rewrite that tell it."""
        for number, told in enumerate(self.told):
            for index in told.sources:
                self.tellers[index].append(number)

    def near_sources(self, told: Told) -> list[int]:
        """What it tells, and the neighbours, from which a paraphrase may take a subject or a half-sentence."""
        return _near(told.sources, len(self.source.sentences))

    def near_tellers(self, index: int) -> list[int]:
        return _near(self.tellers[index], len(self.rewrite.sentences))


def _near(numbers: list[int] | tuple[int, ...], size: int) -> list[int]:
    return sorted({n + d for n in numbers for d in (-1, 0, 1) if 0 <= n + d < size})


def _numbers(pair: _Pair) -> Iterator[Fault]:
    theirs = [_numbers_of(pair.source, s) for s in pair.source.sentences]
    ours = [_numbers_of(pair.rewrite, s) for s in pair.rewrite.sentences]
    told_anywhere = {n.value for found in ours for n in found} | stand_ins(pair.rewrite.text)
    there = {n.value for found in theirs for n in found} | stand_ins(pair.source.text)
    for index, found in enumerate(theirs):
        near = {n.value for t in pair.near_tellers(index) for n in ours[t]}
        for number in found:
            if not number.is_exact or number.value in near:
                continue
            where = pair.source.text[slice(*number.span)]
            if number.value not in told_anywhere:
                yield Fault(FaultKind.NUMBER, LAYER, f"{where} is missing", number.span, _span(pair, index))
            elif pair.tellers[index] and number.value not in stand_ins(pair.rewrite.text):
                yield Fault(FaultKind.NUMBER, LAYER, f"{where} is missing here", number.span, _span(pair, index))
    for told, found in zip(pair.told, ours, strict=True):
        near = {n.value for s in pair.near_sources(told) for n in theirs[s]}
        for number in found:
            if not number.is_exact or number.value in near or number.value in stand_ins(pair.source.text):
                continue
            where = pair.rewrite.text[slice(*number.span)]
            if number.value not in there or told.sources:
                spans = [pair.source.sentences[s].span for s in told.sources[:1]]
                yield Fault(FaultKind.NUMBER, LAYER, f"{where} is new here", spans[0] if spans else None, number.span)


def _entities(pair: _Pair) -> Iterator[Fault]:
    theirs = [entities_in(pair.source, s, other=pair.rewrite) for s in pair.source.sentences]
    ours = [entities_in(pair.rewrite, s, other=pair.source) for s in pair.rewrite.sentences]
    for index, found in enumerate(theirs):
        for entity in found:
            if entity.is_sure and not _mentions(pair.rewrite, entity):
                yield Fault(FaultKind.ENTITY, LAYER, f"{entity.text} is missing", entity.span, _span(pair, index))
    for told, found in zip(pair.told, ours, strict=True):
        near = [pair.source.sentences[s] for s in pair.near_sources(told)]
        for entity in found:
            if not _mentions(pair.source, entity):
                if not _mentions(pair.context, entity):
                    spans = [pair.source.sentences[s].span for s in told.sources[:1]]
                    yield Fault(
                        FaultKind.ENTITY, LAYER, f"{entity.text} is new", spans[0] if spans else None, entity.span
                    )
            elif near and not any(_in_sentence(s, entity) for s in near):
                lost = [e for s in told.sources for e in theirs[s] if not _in_sentence(told.sentence, e)]
                if lost:
                    detail = f"{entity.text} stands where the source has {lost[0].text}"
                    yield Fault(FaultKind.ENTITY, LAYER, detail, lost[0].span, entity.span)


def _negations(pair: _Pair) -> Iterator[Fault]:
    for told in pair.told:
        if not told.sources:
            continue
        sources = [pair.source.sentences[s] for s in told.sources]
        ours, theirs = polarity.strict_cues(told.sentence), [c for s in sources for c in polarity.strict_cues(s)]
        soft = sum(polarity.soft_cues(s) for s in sources)
        if len(ours) > len(theirs) + soft:
            word = ours[-1]
            yield Fault(FaultKind.NEGATION, LAYER, f"{word.text!r} is new here", sources[0].span, word.span)
        for word, opposite in polarity.turned(sources, told.sentence):
            yield Fault(
                FaultKind.NEGATION,
                LAYER,
                f"{word.text!r} stands where the source has {opposite!r}",
                sources[0].span,
                word.span,
            )
    for index, sentence in enumerate(pair.source.sentences):
        cues = polarity.strict_cues(sentence)
        tellers = [pair.rewrite.sentences[t] for t in pair.tellers[index]]
        if not cues or not tellers:
            continue
        kept = sum(len(polarity.strict_cues(t)) + polarity.soft_cues(t) for t in tellers)
        if kept < len(cues):
            detail = f"{cues[0].text!r} of the source is lost"
            yield Fault(FaultKind.NEGATION, LAYER, detail, cues[0].span, tellers[0].span)


def _claims(pair: _Pair) -> Iterator[Fault]:
    for told in pair.told:
        if len(told.sentence.content) >= _CLAIM_WORDS and told.support < pair.config.min_support:
            detail = f"nothing in the source says {', '.join(told.unsupported[:6])}"
            yield Fault(FaultKind.CLAIM, LAYER, detail, None, told.sentence.span)


def _omissions(pair: _Pair) -> Iterator[Fault]:
    for sentence in pair.source.sentences:
        content = sentence.content
        if len(content) < _CLAIM_WORDS:
            continue
        kept = sum(any(alike(key, other) for other in pair.rewrite.lemmas) for key in content)
        if kept / len(content) < _OMITTED_SUPPORT:
            yield Fault(FaultKind.OMISSION, LAYER, "hardly a word of this is told", sentence.span, None)


def _numbers_of(parsed: Text, sentence: Sentence) -> list[Number]:
    return numbers_in(parsed.text, sentence.start + sentence.marker, sentence.end)


def _mentions(parsed: Text, entity: Entity) -> bool:
    return any(_in_sentence(sentence, entity) for sentence in parsed.sentences)


def _in_sentence(sentence: Sentence, entity: Entity) -> bool:
    key = entity.key
    if len(key) == 1:
        return any(w.text == key for w in sentence.words)
    return any(key_of(w.text) == key or (len(w.text) > 3 and alike(w.text.lower(), key)) for w in sentence.words)


def _span(pair: _Pair, index: int) -> tuple[int, int] | None:
    """Of the rewrite's sentence that tells a sentence of the source."""
    tellers = pair.tellers[index]
    return pair.rewrite.sentences[tellers[0]].span if tellers else None


def novelty(source: str, text: str, *, run: int = 4) -> float:
    """Share of the rewrite's runs of words that its source has not, in [0, 1]; 1 for a text without such a run."""
    ours, theirs = _runs(parse(text), run), _runs(parse(source), run)
    return 1 - len(ours & theirs) / len(ours) if ours else 1.0


def unsupported(source: str, text: str) -> float:
    """Share of the rewrite's content words without support in its source."""
    there, here = parse(source).lemmas, parse(text)
    words = [w.lemma for s in here.sentences for w in s.words if is_content(w)]
    return sum(not any(alike(w, other) for other in there) for w in words) / len(words) if words else 0.0


def _runs(parsed: Text, run: int) -> set[tuple[str, ...]]:
    words = [w.text.lower() for s in parsed.sentences for w in s.words]
    return {tuple(words[i : i + run]) for i in range(len(words) - run + 1)}
