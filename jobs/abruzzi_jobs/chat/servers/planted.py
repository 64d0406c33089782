"""Faults that are put into a text on purpose, so that a verifier can be measured. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from abruzzi.contracts.endpoint import PlantedFault

NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
NAME = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][a-zé-ü]{2,}(?:\s[A-Z][a-zé-ü]{2,})*\b")
"""Words with a capital that begin no sentence."""
_OTHER_NAMES = ("Lisbon", "Harold Finch", "Norway", "Margaret Dunn", "Kyoto", "Saturn", "Elbe", "Portugal")
_CLAIMS = (
    "It was later confirmed by an independent committee.",
    "Most experts consider this the best result so far.",
    "Its inventor received a gold medal for it.",
    "The cost was about 40 million dollars.",
)
_NEGATE = re.compile(r"\b(is|are|was|were|can|could|should|will|would|does|do|did|has|have|had|must|may)\b(?! not\b)")
_NEGATED = re.compile(r"\b(is|are|was|were|could|should|will|would|does|do|did|has|have|had|must|may|can) ?not\b")


def plant(text: str, fault: PlantedFault, rng: random.Random) -> str | None:
    """The text with one such fault, or None where it has no place for one."""
    return _PLANTERS[fault](text, rng)


def _drop_number(text: str, rng: random.Random) -> str | None:
    found = list(NUMBER.finditer(text))
    if not found:
        return None
    match = rng.choice(found)
    return re.sub(r"  +", " ", text[: match.start()].rstrip() + " " + text[match.end() :].lstrip())


def _change_number(text: str, rng: random.Random) -> str | None:
    found = list(NUMBER.finditer(text))
    if not found:
        return None
    match = rng.choice(found)
    digits = [i for i, c in enumerate(match[0]) if c.isdigit()]
    place = rng.choice(digits)
    other = rng.choice([d for d in "123456789" if d != match[0][place]])
    return text[: match.start()] + match[0][:place] + other + match[0][place + 1 :] + text[match.end() :]


def _swap_entity(text: str, rng: random.Random) -> str | None:
    found = list(NAME.finditer(text))
    if not found:
        return None
    match = rng.choice(found)
    other = rng.choice([name for name in _OTHER_NAMES if name not in text] or ["Zanzibar"])
    return text[: match.start()] + other + text[match.end() :]


def _flip_negation(text: str, rng: random.Random) -> str | None:
    negated = list(_NEGATED.finditer(text))
    if negated:
        match = rng.choice(negated)
        return text[: match.start()] + match[1] + text[match.end() :]
    found = list(_NEGATE.finditer(text))
    if not found:
        return None
    match = rng.choice(found)
    return f"{text[: match.end()]} not{text[match.end() :]}"


def _add_claim(text: str, rng: random.Random) -> str | None:
    return f"{text.rstrip()} {rng.choice(_CLAIMS)}"


_PLANTERS: dict[PlantedFault, Callable[[str, random.Random], str | None]] = {
    PlantedFault.DROP_NUMBER: _drop_number,
    PlantedFault.CHANGE_NUMBER: _change_number,
    PlantedFault.SWAP_ENTITY: _swap_entity,
    PlantedFault.FLIP_NEGATION: _flip_negation,
    PlantedFault.ADD_CLAIM: _add_claim,
}
