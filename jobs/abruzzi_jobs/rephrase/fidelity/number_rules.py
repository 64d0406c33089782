"""Numbers: none missing, none new, none with another's name. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from abruzzi_jobs.rephrase.fidelity.alignment import Told
from abruzzi_jobs.rephrase.fidelity.comparison import Comparison
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind
from abruzzi_jobs.rephrase.fidelity.numbers import Number, stand_ins
from abruzzi_jobs.rephrase.fidelity.words import Sentence, is_content

LAYER = "rules"


def number_faults(pair: Comparison) -> Iterator[Fault]:
    yield from _missing(pair)
    yield from _new(pair)
    yield from _exchanged(pair)
    yield from _between_sentences(pair)


def _missing(pair: Comparison) -> Iterator[Fault]:
    ours = pair.rewrite_numbers
    anywhere = {n.value for found in ours for n in found}
    words = stand_ins(pair.rewrite.text)
    for index, found in enumerate(pair.source_numbers):
        near = {n.value for t in pair.near_tellers(index) for n in ours[t]}
        told = Counter(n.value for t in pair.tellers[index] for n in ours[t])
        asked = Counter(n.value for n in found if n.is_exact)
        for number in found:
            if not number.is_exact or number.value in words:
                continue
            where = pair.source.text[slice(*number.span)]
            if number.value not in anywhere:
                yield _fault(f"{where} is missing", number.span, pair.teller_span(index))
            elif pair.tellers[index] and number.value not in near:
                yield _fault(f"{where} is missing here", number.span, pair.teller_span(index))
            elif asked[number.value] > 1 and 0 < told[number.value] < asked[number.value]:
                asked[number.value] = 0  # told once
                yield _fault(f"{where} is there less often", number.span, pair.teller_span(index))


def _new(pair: Comparison) -> Iterator[Fault]:
    words = stand_ins(pair.source.text)
    there = {n.value for found in pair.source_numbers for n in found}
    for told, found in zip(pair.told, pair.rewrite_numbers, strict=True):
        near = {n.value for s in pair.near_sources(told) for n in pair.source_numbers[s]}
        for number in found:
            if not number.is_exact or number.value in near or number.value in words:
                continue
            if number.value not in there or told.sources:
                where = pair.rewrite.text[slice(*number.span)]
                yield _fault(f"{where} is new here", pair.told_span(told), number.span)


def _exchanged(pair: Comparison) -> Iterator[Fault]:
    """A number whose word of kind (`period 5`, `255 seconds`) has another number in the source, where this one has another word."""
    theirs: dict[str, set[str]] = defaultdict(set)
    labels: dict[str, set[str]] = defaultdict(set)
    for sentence, found in zip(pair.source.sentences, pair.source_numbers, strict=True):
        for number in found:
            for label in _labels(sentence, number):
                theirs[label].add(number.value)
                labels[number.value].add(label)
    for told, found in zip(pair.told, pair.rewrite_numbers, strict=True):
        for number in found:
            for label in _labels(told.sentence, number):
                if theirs[label] and number.value not in theirs[label] and labels[number.value]:
                    where = pair.rewrite.text[slice(*number.span)]
                    other = ", ".join(sorted(theirs[label]))
                    yield _fault(
                        f"{where} stands with {label!r}, where the source has {other}",
                        pair.told_span(told),
                        number.span,
                    )
                    break


def _between_sentences(pair: Comparison) -> Iterator[Fault]:
    """Two sentences, each of which has lost the number that the other has too much."""
    found: list[tuple[Told, set[str], list[Number]]] = []
    for told, ours in zip(pair.told, pair.rewrite_numbers, strict=True):
        if not told.sources:
            continue
        main = told.sources[0]
        others = {
            n.value for t in pair.tellers[main] if pair.told[t].sources[0] == main for n in pair.rewrite_numbers[t]
        }
        lost = {n.value for n in pair.source_numbers[main] if n.is_exact} - others
        theirs = {n.value for n in pair.source_numbers[main]}
        strange = [n for n in ours if n.is_exact and n.value not in theirs]
        if lost and strange:
            found.append((told, lost, strange))
    for told, lost, strange in found:
        for number in strange:
            if any(number.value in others and lost & {n.value for n in more} for _, others, more in found):
                where = pair.rewrite.text[slice(*number.span)]
                yield _fault(
                    f"{where} stands where the source has {', '.join(sorted(lost))}", pair.told_span(told), number.span
                )
                return


def _labels(sentence: Sentence, number: Number) -> list[str]:
    """Content words right before and right after a number."""
    before = [w for w in sentence.words if w.end <= number.span[0] and number.span[0] - w.end <= 2][-1:]
    after = [w for w in sentence.words if w.start >= number.span[1] and w.start - number.span[1] <= 1][:1]
    return [w.lemma for w in (*before, *after) if is_content(w)]


def _fault(detail: str, source: tuple[int, int] | None, text: tuple[int, int] | None) -> Fault:
    return Fault(FaultKind.NUMBER, LAYER, detail, source, text)
