"""What is denied. Pure."""

from __future__ import annotations

import re

from abruzzi_jobs.rephrase.fidelity.lexicon import opposites, words
from abruzzi_jobs.rephrase.fidelity.words import Sentence, Word, is_ordinary

_UN = re.compile(r"^(?:un|non-?)([a-z]{3,})$")
_LESS = re.compile(r"^[a-z]{3,}less$")
_SUPERLATIVE = re.compile(r"^(?:most|least|[a-z]{3,}[^aeiou]est)$")


def denials(sentence: Sentence) -> list[Word]:
    """Words that deny; `neither … nor` and `not … nor` deny once, `not only` does not."""
    found: list[Word] = []
    for number, word in enumerate(sentence.words):
        small = word.text.lower().replace("’", "'")
        if small not in words("denials") and not small.endswith("n't"):
            continue
        following = sentence.words[number + 1].text.lower() if number + 1 < len(sentence.words) else ""
        if small == "not" and following in ("only", "just", "merely", "simply"):
            continue
        if (small == "no" and following in ("matter", "doubt")) or (small == "nor" and found):
            continue
        found.append(word)
    return found


def soft_denials(sentence: Sentence) -> int:
    """Words that may carry a denial in another form: lack, impossible, unlike, only; superlatives, as in "nothing is lighter"."""
    return sum(_is_soft(w.text.lower()) for w in sentence.words)


def turned(sources: list[Sentence], rewrite: Sentence) -> list[tuple[Word, str]]:
    """(word of the rewrite, the opposite that the source has): where the rewrite has only the one and the source only the other."""
    theirs = {w.text.lower() for s in sources for w in s.words}
    ours = {w.text.lower() for w in rewrite.words}
    return [
        (word, opposite)
        for word in rewrite.words
        if word.text.lower() not in theirs
        for opposite in sorted(opposites().get(word.text.lower(), ()))
        if opposite in theirs and opposite not in ours
    ]


def _is_soft(word: str) -> bool:
    if word in words("soft_denials") or _LESS.match(word) or _SUPERLATIVE.match(word):
        return True
    negated = _UN.match(word)
    return negated is not None and is_ordinary(negated[1])
