"""Names: none missing, none new, none in another's place, and what was said together stays together. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from abruzzi_jobs.rephrase.fidelity.alignment import Told
from abruzzi_jobs.rephrase.fidelity.comparison import Comparison, refers_back
from abruzzi_jobs.rephrase.fidelity.entities import Entity, key_of
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind, Span
from abruzzi_jobs.rephrase.fidelity.words import Sentence, Text, alike, is_content, is_ordinary, lemma

LAYER = "rules"
_VERBS = frozenset(("is", "are", "was", "were", "has", "have", "had", "does", "can", "will"))


def entity_faults(pair: Comparison) -> Iterator[Fault]:
    yield from _missing(pair)
    yield from _new(pair)
    yield from _in_anothers_place(pair)
    yield from _parted(pair)


def _missing(pair: Comparison) -> Iterator[Fault]:
    for index, found in enumerate(pair.source_entities):
        for entity in found:
            if entity.is_sure and not _mentions(pair.rewrite, entity):
                yield _fault(f"{entity.text} is missing", entity.span, pair.teller_span(index))


def _new(pair: Comparison) -> Iterator[Fault]:
    for told, found in zip(pair.told, pair.rewrite_entities, strict=True):
        for entity in found:
            if not _mentions(pair.source, entity) and not _in_context(pair, entity):
                yield _fault(f"{entity.text} is new", pair.told_span(told), entity.span)


def _in_anothers_place(pair: Comparison) -> Iterator[Fault]:
    """A sentence that has lost a name of what it tells, and has one that does not stand there. Where a pronoun may stand for the lost
    one, only if another sentence has lost just that one in return."""
    found: list[tuple[Told, list[Entity], list[Entity]]] = []
    for told, entities in zip(pair.told, pair.rewrite_entities, strict=True):
        if not told.sources:
            continue
        main = told.sources[0]
        others = [pair.rewrite.sentences[t] for t in pair.tellers[main] if pair.told[t].sources[0] == main]
        lost = [e for e in pair.source_entities[main] if not any(holds(s, e) for s in others)]
        strange = [e for e in entities if not holds(pair.source.sentences[main], e)]
        if not strange and not refers_back(told.sentence):
            strange = _other_subject(pair, told.sentence)
            lost = lost or _subject(pair.source.sentences[main]) if strange else []
        if lost and strange:
            found.append((told, lost, strange))
    for told, lost, strange in found:
        in_return = any(
            _meet(strange, other_lost) and _meet(other_strange, lost) for _, other_lost, other_strange in found
        )
        if in_return or not refers_back(told.sentence):
            detail = f"{strange[0].text} stands where the source has {lost[0].text}"
            yield _fault(detail, lost[0].span, strange[0].span)


def _meet(some: list[Entity], others: list[Entity]) -> bool:
    return bool({e.key for e in some} & {e.key for e in others})


def _other_subject(pair: Comparison, sentence: Sentence) -> list[Entity]:
    """A subject in front that the source does not have in any form."""
    return [e for e in _subject(sentence) if not pair.source.has_form_of(lemma(e.text))]


def _subject(sentence: Sentence) -> list[Entity]:
    """Its first word, where a verb follows that only a subject stands before."""
    for word in sentence.words[:1]:
        following = next((w for w in sentence.words[1:] if not w.text[0].isdigit()), None)
        if is_content(word) and lemma(word.text) == word.text.lower() and following and following.text in _VERBS:
            return [Entity(word.text, word.span, False)]
    return []


def _parted(pair: Comparison) -> Iterator[Fault]:
    """Names, numbers and codes that stand in one sentence of the source and nowhere else must stand together in the rewrite, or in two
    sentences of which the later refers back."""
    theirs, ours = _places(pair, pair.source), _places(pair, pair.rewrite)
    together: dict[int, list[str]] = defaultdict(list)
    for key, places in theirs.items():
        if len(places) == 1 and len(ours.get(key, ())) == 1:
            together[next(iter(places))].append(key)
    for index, keys in sorted(together.items()):
        for number, one in enumerate(keys):
            for other in keys[number + 1 :]:
                (a, first), (b, second) = sorted(
                    (next(iter(ours[k].items())) for k in (one, other)), key=lambda p: p[0]
                )
                if a == b or (b - a == 1 and refers_back(pair.rewrite.sentences[b])):
                    continue
                if _are_linked(pair, a, b):
                    continue
                detail = f"{_shown(pair, first)} and {_shown(pair, second)} are said together in the source"
                yield _fault(detail, pair.source.sentences[index].span, second)
                return


def _are_linked(pair: Comparison, first: int, last: int) -> bool:
    """Whether every sentence on the way refers back: a name stays the subject as long as pronouns go on."""
    return all(refers_back(pair.rewrite.sentences[n]) for n in range(first + 1, last + 1))


def _places(pair: Comparison, parsed: Text) -> dict[str, dict[int, Span]]:
    """{key of a name, number or unknown word: {sentence: where}}"""
    is_source = parsed is pair.source
    entities = pair.source_entities if is_source else pair.rewrite_entities
    numbers = pair.source_numbers if is_source else pair.rewrite_numbers
    found: dict[str, dict[int, Span]] = defaultdict(dict)
    for index, sentence in enumerate(parsed.sentences):
        for entity in entities[index]:
            found[entity.key.lower()].setdefault(index, entity.span)
        for number in numbers[index]:
            if number.is_exact:
                found[number.value].setdefault(index, number.span)
        for word in sentence.words:
            if is_content(word) and not is_ordinary(word.text):
                found[key_of(word.text).lower()].setdefault(index, word.span)
    return found


def _shown(pair: Comparison, span: Span) -> str:
    return pair.rewrite.text[slice(*span)]


def _mentions(parsed: Text, entity: Entity) -> bool:
    return any(holds(sentence, entity) for sentence in parsed.sentences)


def _in_context(pair: Comparison, entity: Entity) -> bool:
    """Whether the rest of the document has it: a paraphrase may say whom a pronoun means."""
    return re.search(rf"(?<!\w){re.escape(entity.text)}", pair.context) is not None


def holds(sentence: Sentence, entity: Entity) -> bool:
    key = entity.key
    if len(key) == 1:
        return any(w.text == key for w in sentence.words)
    return any(key_of(w.text) == key or (len(w.text) > 3 and alike(w.text.lower(), key)) for w in sentence.words)


def _fault(detail: str, source: Span | None, text: Span | None) -> Fault:
    return Fault(FaultKind.ENTITY, LAYER, detail, source, text)
