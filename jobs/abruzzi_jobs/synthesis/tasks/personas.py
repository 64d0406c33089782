"""Who the simulated users are, and how they put their wishes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from abruzzi.contracts.agent import Persona

_NAMES = (
    "Amira", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hana", "Ilse", "Jonas", "Kofi", "Lucia", "Mateo", "Nora", "Oskar", "Priya",
    "Quentin", "Rosa", "Sven", "Tariq", "Ugo", "Vera", "Wanda", "Yuki", "Zeno",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Manner:
    """`opening` and `closing` surround the wishes."""

    style: str
    opening: str
    closing: str
    patience: int


_MANNERS = (
    Manner(style="terse: short sentences, no courtesies", opening="", closing="", patience=4),
    Manner(style="polite and patient", opening="Hello! ", closing=" Thank you very much.", patience=8),
    Manner(style="in a hurry", opening="Quick one. ", closing=" I need it right away.", patience=3),
    Manner(style="chatty: tells more than is needed", opening="Good morning, it is a busy day here again. ", closing=" That would help me a lot.", patience=8),
    Manner(style="formal", opening="Dear assistant, ", closing=" Kind regards.", patience=6),
    Manner(style="new to the system, unsure of its words", opening="I am new here, so please bear with me. ", closing=" I hope that makes sense.", patience=8),
    Manner(style="sceptical: wants to know what was done", opening="", closing=" Tell me when it is done, and do not guess.", patience=5),
)  # fmt: skip
_JOINTS = ("Then ", "After that, ", "Next, ", "Also, ")


def draw_persona(draw: random.Random, goal: str) -> tuple[Persona, Manner]:
    manner = draw.choice(_MANNERS)
    return Persona(name=draw.choice(_NAMES), style=manner.style, patience=manner.patience, hidden_goal=goal), manner


def put(wishes: Sequence[str], manner: Manner, draw: random.Random) -> str:
    """The wishes in their order, each beginning with a verb, as the user says them."""
    polite = (
        draw.choice(("Please ", "Could you please ", "I want you to "))
        if manner.opening
        else draw.choice(("Please ", ""))
    )
    said = []
    for number, wish in enumerate(wishes):
        joint = polite if number == 0 else "Finally, " if number == len(wishes) - 1 > 1 else draw.choice(_JOINTS)
        text = f"{joint}{wish}"
        end = "?" if number == 0 and polite.startswith("Could") else "."
        begins_sentence = number > 0 or not manner.opening.endswith(", ") or text.startswith("I ")
        said.append(f"{text[:1].upper() if begins_sentence else text[:1].lower()}{text[1:]}{end}")
    return f"{manner.opening}{' '.join(said)}{manner.closing}"
