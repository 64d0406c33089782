"""Sentences and clauses that say something else than the source, and sentences of the source that nobody tells. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from abruzzi_jobs.rephrase.fidelity.comparison import Comparison
from abruzzi_jobs.rephrase.fidelity.entity_rules import holds
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind
from abruzzi_jobs.rephrase.fidelity.lexicon import words
from abruzzi_jobs.rephrase.fidelity.words import Sentence, Word, is_content

LAYER = "rules"
_CLAIM_WORDS = 3
"""Content words from which a sentence may be a claim."""
_CLAUSE_WORDS = 2
_FIRST_CLAUSE_WORDS = 3
"""A clause in front often only leads in: "Counting protons, …"."""
_OMITTED_SUPPORT = 0.25
_ANCHORED = 0.7
"""Of min_support: what a sentence needs that has a name or a number of its source in it, and so surely tells something of it."""
_CLAUSE = re.compile(r"[,;:()—–]|\s-\s")


def claim_faults(pair: Comparison) -> Iterator[Fault]:
    for index, told in enumerate(pair.told):
        sentence = told.sentence
        if pair.rewrite.text[sentence.start : sentence.end].rstrip("\"')*_ ").endswith("?"):
            continue  # a question claims nothing
        said = [w for w in sentence.words if is_content(w)]
        if len(said) >= _CLAIM_WORDS and told.support < _least_support(pair, index):
            strange = [w for w in said if w.lemma in told.unsupported]
            if not _only_tells(strange):
                yield _claim(sentence.span, strange)
                continue
        for number, clause in enumerate(_clauses(pair, sentence)):
            own = [w for w in clause if is_content(w)]
            least = _CLAUSE_WORDS if number else _FIRST_CLAUSE_WORDS
            if len(own) >= least and not _only_tells(own) and not any(pair.source.has_form_of(w.lemma) for w in own):
                yield _claim((clause[0].start, clause[-1].end), own)
                break


def _least_support(pair: Comparison, index: int) -> float:
    there = {n.value for found in pair.source_numbers for n in found}
    is_anchored = any(n.is_exact and n.value in there for n in pair.rewrite_numbers[index]) or any(
        holds(sentence, entity) for entity in pair.rewrite_entities[index] for sentence in pair.source.sentences
    )
    return pair.config.min_support * (_ANCHORED if is_anchored else 1.0)


def omission_faults(pair: Comparison) -> Iterator[Fault]:
    for sentence in pair.source.sentences:
        if len(sentence.content) < _CLAIM_WORDS:
            continue
        kept = sum(pair.rewrite.has_form_of(key) for key in sentence.content)
        if kept / len(sentence.content) < _OMITTED_SUPPORT:
            yield Fault(FaultKind.OMISSION, LAYER, "hardly a word of this is told", sentence.span, None)


def _clauses(pair: Comparison, sentence: Sentence) -> list[list[Word]]:
    """Its words between commas and the like; of a sentence of one clause, none."""
    found: list[list[Word]] = [[]]
    for word in sentence.words:
        if found[-1] and _CLAUSE.search(pair.rewrite.text[found[-1][-1].end : word.start]):
            found.append([])
        found[-1].append(word)
    return found if len(found) > 1 else []


def _only_tells(strange: list[Word]) -> bool:
    """Whether these words are only about telling, as in "Tell me about it, please"."""
    return all(w.lemma in words("telling") for w in strange)


def _claim(span: tuple[int, int], strange: list[Word]) -> Fault:
    said = ", ".join(w.text for w in strange[:6])
    return Fault(FaultKind.CLAIM, LAYER, f"nothing in the source says {said}", None, span)
