"""Length, copying, invention and likeness of a rewrite as a whole. Pure."""

from __future__ import annotations

import math
from collections import Counter
from zlib import crc32

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind
from abruzzi_jobs.rephrase.fidelity.words import Text, is_content, parse

_BUCKETS = 1 << 16
_FEW_WORDS = 12
"""Below this a text has no measurable length ratio or copying: "Iron has the symbol Fe." has few other wordings."""


def shape(source: str, text: str, config: FidelityConfig) -> tuple[list[Fault], dict[str, float]]:
    """(faults, scores: length_ratio, novelty, unsupported, likeness)."""
    sizes = [sum(len(s.words) for s in parse(t).sentences) for t in (source, text)]
    scores = {
        "length_ratio": round(sizes[1] / max(1, sizes[0]), 4),
        "novelty": round(novelty(source, text), 4),
        "unsupported": round(unsupported(source, text), 4),
        "likeness": round(likeness(source, text), 4),
    }
    faults: list[Fault] = []

    def add(kind: FaultKind, detail: str, layer: str = "rules") -> None:
        faults.append(Fault(kind, layer, detail))

    if sizes[0] >= _FEW_WORDS:
        if not config.min_length_ratio <= scores["length_ratio"] <= config.max_length_ratio:
            add(FaultKind.LENGTH, f"{sizes[1]} words for the source's {sizes[0]}")
        if scores["novelty"] < config.min_novelty:
            add(FaultKind.COPY, f"{1 - scores['novelty']:.0%} of its runs of four words are the source's")
    if scores["unsupported"] > config.max_novelty:
        add(FaultKind.NOVELTY, f"{scores['unsupported']:.0%} of its content words have no support in the source")
    if scores["likeness"] < config.min_likeness:
        add(FaultKind.LIKENESS, f"cosine {scores['likeness']:.2f}", "likeness")
    return faults, scores


def novelty(source: str, text: str, *, run: int = 4) -> float:
    """Share of the rewrite's runs of words that its source has not, in [0, 1]; 1 for a text without such a run."""
    ours, theirs = _runs(parse(text), run), _runs(parse(source), run)
    return 1 - len(ours & theirs) / len(ours) if ours else 1.0


def unsupported(source: str, text: str) -> float:
    """Share of the rewrite's content words without support in its source."""
    there, here = parse(source), parse(text)
    words = [w.lemma for s in here.sentences for w in s.words if is_content(w)]
    return sum(not there.has_form_of(w) for w in words) / len(words) if words else 0.0


def likeness(source: str, text: str) -> float:
    """Cosine of the texts as hashed counts of runs of three to five letters within words (square roots, so that repetition counts less).

    No model: it knows forms, not meanings, and tells what has left the subject from what has not.
    """
    one, other = _vector(parse(source)), _vector(parse(text))
    dot = sum(value * other[bucket] for bucket, value in one.items() if bucket in other)
    norms = math.sqrt(sum(v * v for v in one.values())) * math.sqrt(sum(v * v for v in other.values()))
    return dot / norms if norms else 0.0


def _vector(parsed: Text) -> dict[int, float]:
    counts: Counter[int] = Counter()
    for sentence in parsed.sentences:
        for word in sentence.words:
            if not is_content(word) and not word.text[0].isdigit():
                continue
            padded = f" {word.lemma} "
            counts.update(
                crc32(padded[i : i + n].encode()) % _BUCKETS for n in (3, 4, 5) for i in range(len(padded) - n + 1)
            )
    return {bucket: math.sqrt(n) for bucket, n in counts.items()}


def _runs(parsed: Text, run: int) -> set[tuple[str, ...]]:
    words = [w.text.lower() for s in parsed.sentences for w in s.words]
    return {tuple(words[i : i + run]) for i in range(len(words) - run + 1)}
