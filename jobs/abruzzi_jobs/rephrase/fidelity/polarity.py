"""What is denied. Pure."""

from __future__ import annotations

import re

from abruzzi_jobs.rephrase.fidelity.words import Sentence, Word, is_content

_STRICT = frozenset(
    ["not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "cannot", "without", "nowhere"]
)
_SOFT = frozenset(
    [
        "lack",
        "lacks",
        "lacking",
        "lacked",
        "absent",
        "absence",
        "fail",
        "fails",
        "failed",
        "failing",
        "unable",
        "impossible",
        "rather",
        "instead",
        "except",
        "excluding",
        "exclude",
        "excludes",
        "unlike",
        "hardly",
        "barely",
        "scarcely",
        "rarely",
        "seldom",
        "few",
        "little",
        "free",
        "devoid",
        "refuse",
        "refuses",
        "refused",
        "deny",
        "denies",
        "denied",
        "avoid",
        "avoids",
        "avoided",
        "prevent",
        "prevents",
        "prevented",
        "unless",
        "neither",
        "only",
        "false",
        "wrong",
        "incorrect",
        "untrue",
        "missing",
        "omit",
        "omits",
        "omitted",
        "ban",
        "bans",
        "banned",
        "forbid",
        "forbids",
        "forbidden",
        "prohibit",
        "prohibited",
        "zero",
        "non",
        "against",
        "stop",
        "stops",
        "stopped",
        "cease",
        "ceases",
        "ceased",
        "far",
        "beyond",
    ]
)
_PREFIX = re.compile(r"^(?:un|in|im|il|ir|dis|non)[a-z]{4,}$|^[a-z]{3,}less$")
_PAIRS = (
    "increase decrease", "increases decreases", "increased decreased", "rise fall", "rises falls", "rose fell", "always never",
    "largest smallest", "larger smaller", "highest lowest", "higher lower", "heavier lighter", "longest shortest", "longer shorter", "hotter colder",
    "stronger weaker", "faster slower", "include exclude", "includes excludes", "possible impossible", "true false", "accept reject",
    "allow forbid", "allows forbids", "positive negative", "northern southern", "eastern western", "oldest youngest", "older younger",
    "all none", "everything nothing", "everyone nobody", "with without", "stable unstable", "legal illegal", "metal nonmetal", "rich poor",
    "hard soft", "common rare", "best worst", "better worse", "maximum minimum", "gain loss", "success failure", "mortal immortal",
    "visible invisible", "known unknown", "soluble insoluble", "regular irregular", "usual unusual", "safe dangerous", "toxic harmless",
)  # fmt: skip
OPPOSITES: dict[str, str] = {}
for _pair in _PAIRS:
    _one, _other = _pair.split()
    OPPOSITES[_one], OPPOSITES[_other] = _other, _one


def strict_cues(sentence: Sentence) -> list[Word]:
    """Words that deny; `neither … nor` and `not … nor` deny once, `not only` does not."""
    found: list[Word] = []
    words = sentence.words
    for number, word in enumerate(words):
        small = word.text.lower().replace("’", "'")
        if not (small in _STRICT or small.endswith("n't")):
            continue
        following = words[number + 1].text.lower() if number + 1 < len(words) else ""
        if small == "not" and following in ("only", "just", "merely", "simply"):
            continue
        if small == "no" and following in ("matter", "doubt", "longer") and following != "longer":
            continue
        if small == "nor" and found:
            continue
        found.append(word)
    return found


def soft_cues(sentence: Sentence) -> int:
    """Words that may carry a denial in another form: lack, impossible, unlike, only."""
    small = (w.text.lower() for w in sentence.words)
    return sum(w in _SOFT or _PREFIX.match(w) is not None for w in small)


def denied(sentence: Sentence) -> frozenset[str]:
    """Lemmas of the content words that a cue stands before, at most four words away."""
    cues = {w.start for w in strict_cues(sentence)}
    found: set[str] = set()
    reach = 0
    for word in sentence.words:
        if word.start in cues:
            reach = 5
        elif reach:
            reach -= 1
            if is_content(word):
                found.add(word.lemma)
                reach = min(reach, 2)
    return frozenset(found)


def turned(source: list[Sentence], rewrite: Sentence) -> list[tuple[Word, str]]:
    """(word of the rewrite, the opposite that the source has): where the rewrite has only the one and the source only the other."""
    theirs = {w.text.lower() for s in source for w in s.words}
    ours = {w.text.lower() for w in rewrite.words}
    return [
        (word, OPPOSITES[small])
        for word in rewrite.words
        if (small := word.text.lower()) in OPPOSITES
        and small not in theirs
        and OPPOSITES[small] in theirs
        and OPPOSITES[small] not in ours
    ]
