"""Which sentences of the source a sentence of the rewrite tells. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from abruzzi_jobs.rephrase.fidelity.words import Sentence, Text, alike

_MOST = 3
_ADDS = 0.2
"""Share of a sentence's weight that a further source sentence must explain to belong to it."""


@dataclass(frozen=True)
class Told:
    """A sentence of the rewrite with the numbers of the source's sentences that it tells, the nearest first; none where nothing fits."""

    sentence: Sentence
    sources: tuple[int, ...]
    support: float
    """Share of its content words, numbers and letters that the source has, in [0, 1]; 1 for a sentence without any."""
    unsupported: tuple[str, ...]


def align(source: Text, rewrite: Text) -> list[Told]:
    """In the order of the rewrite."""
    keys = [_keys(s) for s in source.sentences]
    counts = Counter(key for sentence in keys for key in sentence)
    weight = {key: 1.0 / n for key, n in counts.items()}
    holders: dict[str, list[int]] = {}
    for number, sentence in enumerate(keys):
        for key in sentence:
            holders.setdefault(key, []).append(number)
    return [_told(sentence, holders, weight) for sentence in rewrite.sentences]


def _told(sentence: Sentence, holders: dict[str, list[int]], weight: dict[str, float]) -> Told:
    found = {key: key if key in holders else _form(key, holders) for key in _keys(sentence)}
    left = {key: other for key, other in found.items() if other is not None}
    total = sum(weight[other] for other in left.values()) or 1.0
    chosen: list[int] = []
    while left and len(chosen) < _MOST:
        scores: dict[int, float] = {}
        for other in left.values():
            for number in holders[other]:
                scores[number] = scores.get(number, 0.0) + weight[other] ** 0.5
        best = max(scores, key=lambda n: (scores[n], -n))
        gained = sum(weight[other] for other in left.values() if best in holders[other])
        if chosen and gained < _ADDS * total:
            break
        chosen.append(best)
        left = {key: other for key, other in left.items() if best not in holders[other]}
    unsupported = tuple(sorted(key for key, other in found.items() if other is None))
    support = 1 - len(unsupported) / len(found) if found else 1.0
    return Told(sentence, tuple(chosen), support, unsupported)


def groups(told: list[Told]) -> list[tuple[list[int], list[int]]]:
    """(sentences of the source, sentences of the rewrite) that tell each other, directly or over others."""
    found: list[tuple[set[int], set[int]]] = []
    for number, one in enumerate(told):
        if not one.sources:
            continue
        sources, rewrites = set(one.sources), {number}
        for group in [g for g in found if g[0] & sources]:
            found.remove(group)
            sources |= group[0]
            rewrites |= group[1]
        found.append((sources, rewrites))
    return [(sorted(a), sorted(b)) for a, b in found]


def _keys(sentence: Sentence) -> frozenset[str]:
    """Content lemmas, and what else tells sentences apart: numbers and letters alone."""
    others = (w.text.lower() for w in sentence.words if w.text[0].isdigit() or (len(w.text) == 1 and w.text.isupper()))
    return sentence.content | frozenset(others)


def _form(key: str, holders: dict[str, list[int]]) -> str | None:
    """Another form of the word that the source has."""
    return min((other for other in holders if alike(key, other)), default=None)
