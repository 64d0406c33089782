"""Instructions whose answer is a few words, so that the smallest models can learn to follow them. One rule holds for all: nothing but what is asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from abruzzi_jobs.rl.environments.gyms.instructions.rules import words

WORDS = (
    "sun",
    "moon",
    "cat",
    "dog",
    "tree",
    "rain",
    "snow",
    "fish",
    "bird",
    "star",
    "leaf",
    "rose",
    "wind",
    "sand",
    "salt",
    "ship",
)


@dataclass(frozen=True)
class Short:
    text: Callable[[Mapping[str, Any]], str]
    holds: Callable[[Mapping[str, Any], list[str]], bool]
    """(parameters, words of the answer)."""
    example: Callable[[Mapping[str, Any]], str]


FORMS: dict[str, Short] = {
    "repeat": Short(
        lambda p: f"Say {p['a']} {p['n']} times.", lambda p, w: w == [p["a"]] * p["n"], lambda p: " ".join([p["a"]] * p["n"])),
    "capitals": Short(
        lambda p: f"Write {p['a']} {p['b']} in capitals.", lambda p, w: w == [p["a"].upper(), p["b"].upper()],
        lambda p: f"{p['a']} {p['b']}".upper()),
    "turned": Short(
        lambda p: f"Say {p['a']} {p['b']} {p['c']} in the other order.", lambda p, w: w == [p["c"], p["b"], p["a"]],
        lambda p: f"{p['c']} {p['b']} {p['a']}"),
    "between": Short(
        lambda p: f"Put {p['a']} between {p['b']} and {p['c']}.", lambda p, w: w == [p["b"], p["a"], p["c"]],
        lambda p: f"{p['b']} {p['a']} {p['c']}"),
    "count": Short(
        lambda p: f"Write {p['n']} words, the last one {p['a']}.",
        lambda p, w: len(w) == p["n"] and w[-1] == p["a"] and all(word in WORDS for word in w),
        lambda p: " ".join([*[p["b"], p["c"]][: p["n"] - 1], *[p["b"]] * (p["n"] - 3), p["a"]])),
}  # fmt: skip


def draw_short(draw: random.Random) -> dict[str, Any]:
    a, b, c = draw.sample(WORDS, 3)
    return {"form": draw.choice(sorted(FORMS)), "a": a, "b": b, "c": c, "n": draw.randint(2, 5)}


def follows(short: Mapping[str, Any], text: str) -> bool:
    return FORMS[short["form"]].holds(short, words(text)) and all(c.isalpha() or c.isspace() for c in text)
