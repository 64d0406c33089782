"""Names, acronyms, symbols: words that a rewrite may not put into other words. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from abruzzi_jobs.rephrase.fidelity.fault import Span
from abruzzi_jobs.rephrase.fidelity.lexicon import words
from abruzzi_jobs.rephrase.fidelity.words import Sentence, Text, Word, is_ordinary

_SYMBOL = re.compile(r"(?=\w*[A-Za-z])(?=\w*(?:\d|[a-z][A-Z]|_|[A-Z]{2}))\w+$|[b-hj-zB-HJ-Z]$")
"""CamelCase, snake_case, acronyms, letters with digits; a letter alone."""


@dataclass(frozen=True)
class Entity:
    text: str
    span: Span
    is_sure: bool
    """False for a word whose capital may have another reason: it begins a sentence or is an ordinary word."""

    @property
    def key(self) -> str:
        return key_of(self.text)


def key_of(text: str) -> str:
    """What two writings of a name have in common: without case but for single letters, without a genitive or plural s."""
    if len(text) == 1:
        return text
    small = text.lower().replace("’", "'").removesuffix("'s").removesuffix("'")
    return small[:-1] if len(small) > 4 and small.endswith("s") and not small.endswith("ss") else small


def entities_in(parsed: Text, sentence: Sentence, *, other: Text) -> list[Entity]:
    """Word by word. `other`: the text it is compared with; a word that stands in small letters in either is no name."""
    found: list[Entity] = []
    inside = _inside(parsed)
    for word in sentence.words:
        if _SYMBOL.match(word.text):
            if not _is_ordinary_capitals(word, sentence):
                found.append(Entity(word.text, word.span, True))
            continue
        if (
            not word.text[0].isupper()
            or len(word.text) == 1
            or word.text.lower() in words("function") | words("not_names")
        ):
            continue
        if _in_small(word.text, parsed) or _in_small(word.text, other):
            continue
        is_name = not is_ordinary(word.text)
        if is_name or key_of(word.text) in inside or not _begins(parsed.text, word.start):
            found.append(Entity(word.text, word.span, is_name))
    return found


@lru_cache(maxsize=32)
def _inside(parsed: Text) -> frozenset[str]:
    """Keys of words that have a capital within a sentence: where such a word begins one, it is a name all the same."""
    return frozenset(
        key_of(w.text)
        for s in parsed.sentences
        for w in s.words
        if w.text[0].isupper() and not _begins(parsed.text, w.start)
    )


def _begins(text: str, start: int) -> bool:
    before = text[:start].rstrip(" \"'“‘([*_")
    return not before or before[-1] in ".!?:;\n•–—-"


def _in_small(word: str, parsed: Text) -> bool:
    """Whether the word also stands there without its capital."""
    return re.search(rf"(?<![\w]){re.escape(word[0].lower() + word[1:])}(?![\w])", parsed.text) is not None


def _is_ordinary_capitals(word: Word, sentence: Sentence) -> bool:
    """A heading in capitals."""
    letters = [w for w in sentence.words if w.text[0].isalpha()]
    return len(letters) > 1 and word.text.isupper() and len(word.text) > 1 and all(w.text.isupper() for w in letters)
