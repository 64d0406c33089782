"""The stand-in's rewrites of plain statements ("The A of B is C.", "B is a part of C."): other clauses, another order. Rules, no model.

Only texts that are lists of such statements are put into another order, where no sentence leans on the one before it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_OF = re.compile(r"^The (?P<what>[a-z][a-z -]*?) of (?P<whose>[A-Z].*?) is (?P<value>[^,]+?)\.$")
_PART = re.compile(r"^(?P<whose>[A-Z].*?) is a part of (?P<value>[A-Z].*?)\.$")
_KIND = re.compile(r"^(?P<whose>[A-Z].*?) is (?P<value>an? [a-z][a-z -]*?)\.$")
_FORMS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (
        _OF,
        (
            "{whose} has the {what} {value}.",
            "{whose} has {value} as its {what}.",
            "With {whose} goes the {what} {value}.",
            "For {whose} the {what} reads {value}.",
            "In the case of {whose}, {value} is the {what}.",
            "The {what} that belongs to {whose} is {value}.",
            "Whoever looks up {whose} finds the {what} {value}.",
            "As its {what}, {whose} shows {value}.",
        ),
    ),
    (
        _PART,
        (
            "{whose} belongs to {value}.",
            "{whose} lies within {value}.",
            "One of the parts of {value} is {whose}.",
            "There is a part of {value} that has the name {whose}.",
            "Among the parts of {value} there is {whose}.",
            "{value} includes {whose}.",
        ),
    ),
    (
        _KIND,
        (
            "This is about {whose}, {value}.",
            "Here follows what is known of {whose}, {value}.",
            "{whose} counts as {value}.",
        ),
    ),
)


def restated(sentence: str, rng: random.Random) -> str | None:
    """The statement in another form; None where the sentence is no statement of a known form."""
    for pattern, forms in _FORMS:
        found = pattern.match(sentence)
        if found:
            return rng.choice(forms).format(**found.groupdict())
    return None


def reordered(sentences: Sequence[str], rng: random.Random) -> list[str]:
    """A list of statements with its first sentence first and the others in any order; any other text as it is."""
    if len(sentences) < 3 or not all(any(p.match(s) for p, _ in _FORMS) for s in sentences):
        return list(sentences)
    others = list(sentences[1:])
    rng.shuffle(others)
    return [sentences[0], *others]
