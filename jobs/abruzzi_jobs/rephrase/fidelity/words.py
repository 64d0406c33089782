"""A text as sentences of words, each with its place and its lemma. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rephrase.fidelity.fault import Span
from abruzzi_jobs.rephrase.fidelity.lexicon import words as listed

_WORD = re.compile(r"\b(?:e\.g|i\.e)\b|[^\W_]+(?:['’][^\W_]+)*")
_BREAK = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)\]]))\s+(?=[\"'“‘(\[]?[^\Wa-z_])|(?<=[。！？])|\s*\n\s*")
_ABBREVIATED = re.compile(
    r"(?:^|\n)\s*\d{1,2}\.$"
    r"|(?:^|[\s(])(?:Dr|Mr|Mrs|Ms|Prof|St|Sr|Jr|No|Nos|Fig|Figs|Eq|Sec|Vol|vs|ca|cf|al|approx|e\.g|i\.e|etc)\.$"
    r"|(?:^|[A-Z]\.\s?|[A-Z]\w+\s|\()[A-Z]\.$"
)
"""The number of an item, an abbreviation, an initial of a name."""
_MARKER = re.compile(r"\s*(?:[-*•–]|\d{1,2}[.)]|[A-Za-z][:)]|(?:Q|A|Question|Answer)\s*\d*\s*[:.])\s+")
"""What begins an item of a list, and who speaks."""
_SHARED = 4
"""Letters that two forms of a word begin with at least."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start: int
    end: int
    lemma: str

    @property
    def span(self) -> Span:
        return self.start, self.end


@dataclass(frozen=True)
class Sentence:
    start: int
    end: int
    words: tuple[Word, ...]
    marker: int = 0
    """Characters of an item's mark at its beginning, which say nothing."""
    content: frozenset[str] = field(init=False)
    """Lemmas of its words but function words and numbers."""

    def __post_init__(self) -> None:
        found = (w.lemma for w in self.words if is_content(w))
        object.__setattr__(self, "content", frozenset(found))

    @property
    def span(self) -> Span:
        return self.start, self.end


@dataclass(frozen=True, eq=False)
class Text:
    text: str
    sentences: tuple[Sentence, ...]
    lemmas: frozenset[str]
    """Of all content words."""

    @cached_property
    def _begun(self) -> dict[str, list[str]]:
        """Lemmas by the beginning that forms of a word share at least."""
        found: dict[str, list[str]] = {}
        for key in self.lemmas:
            found.setdefault(key[:_SHARED], []).append(key)
        return found

    def has_form_of(self, key: str) -> bool:
        """Whether a content word of it is `alike` the lemma. Looks at few of them: texts may be long."""
        return key in self.lemmas or any(alike(key, other) for other in self._begun.get(key[:_SHARED], ()))


def is_content(word: Word) -> bool:
    return word.text.lower() not in listed("function") and word.text[0].isalpha() and len(word.text) > 1


@lru_cache(maxsize=32)
def parse(text: str) -> Text:
    sentences = tuple(_sentence(text, span) for span in sentence_spans(text))
    lemmas = frozenset(key for sentence in sentences for key in sentence.content)
    return Text(text, sentences, lemmas)


def sentence_spans(text: str) -> list[Span]:
    """Also each line ends one: headings and lists have no full stops."""
    spans: list[Span] = []
    start = 0
    for match in _BREAK.finditer(text):
        if "\n" not in match[0] and match[0] and _ABBREVIATED.search(text[start : match.start()]):
            continue
        spans.append((start, match.start()))
        start = match.end()
    spans.append((start, len(text)))
    return [(a, b) for a, b in spans if text[a:b].strip()]


@lru_cache(maxsize=65536)
def lemma(word: str) -> str:
    """Of an English word, in small letters. A short word with a capital is itself: dictionaries expand "Og" to its element."""
    if len(word) < 4 and not word.islower():
        return word.lower()
    return _simplemma().lemmatize(word.lower().replace("’", "'").removesuffix("'s"), lang="en").lower()


@lru_cache(maxsize=65536)
def is_ordinary(word: str) -> bool:
    """Whether an English dictionary has the word, and not as a name."""
    small = word.lower().replace("’", "'").removesuffix("'s")
    dictionary = _simplemma()
    return small in listed("function") or (
        dictionary.is_known(small, lang="en") and dictionary.lemmatize(small, lang="en")[:1].islower()
    )


def alike(one: str, other: str) -> bool:
    """Whether two lemmas are forms of one word: equal, or with a beginning in common that is most of the shorter one."""
    if one == other:
        return True
    length = min(len(one), len(other))
    if length < _SHARED or abs(len(one) - len(other)) > 5:
        return False
    common = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), length)
    return common >= max(_SHARED, -(-length * 3 // 4))


def _sentence(text: str, span: Span) -> Sentence:
    mark = _MARKER.match(text, *span)
    begin = mark.end() if mark and mark.end() < span[1] else span[0]
    words = tuple(Word(m[0], m.start(), m.end(), lemma(m[0])) for m in _WORD.finditer(text, begin, span[1]))
    return Sentence(span[0], span[1], words, marker=begin - span[0])


@lru_cache(maxsize=1)
def _simplemma() -> Any:
    try:
        import simplemma
    except ImportError as error:
        raise AbruzziError(
            "missing_package",
            "Checking rewrites needs the package simplemma, which is not installed here.",
            hint="Install abruzzi-jobs[rephrase].",
        ) from error
    return simplemma
