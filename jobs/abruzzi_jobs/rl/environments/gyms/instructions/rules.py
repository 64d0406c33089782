"""What an answer must be like, in words and in code: verifiable instructions after IFEval (arXiv 2311.07911) and IFBench (arXiv 2507.02833), written anew.

Rules of different groups do not contradict each other. Words are runs of letters, digits and apostrophes; sentences end with . ! or ? before a blank or
the end.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Params = Mapping[str, Any]
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SENTENCE = re.compile(r"[^.!?]*[^\s.!?][^.!?]*(?:[.!?]+(?=\s|$)|$)")
_BULLET = re.compile(r"^\s*[*-] +\S", re.MULTILINE)
_HIGHLIGHT = re.compile(r"(?<!\*)\*[^\s*][^*\n]*\*(?!\*)")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_TITLE = re.compile(r"<<[^<>\n]+>>")
_FENCE = re.compile(r"^```(?:json)?\s*\n(.*)\n```$", re.DOTALL)
KEYWORDS = (
    "amber", "bridge", "candle", "copper", "desert", "forest", "garden", "harbour", "island", "lantern", "market", "meadow", "mirror", "mountain",
    "orchard", "paper", "river", "shadow", "signal", "silver", "summer", "thunder", "valley", "window", "winter",
)  # fmt: skip
_ENDINGS = ("That is all.", "Let me know.", "So much for that.", "More another day.")


@dataclass(frozen=True)
class Rule:
    group: str
    draw: Callable[[random.Random], Params]
    text: Callable[[Params], str]
    holds: Callable[[Params, str], bool]


def words(text: str) -> list[str]:
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    return [found.strip() for found in _SENTENCE.findall(text) if _WORD.search(found)]


def paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]


def times(word: str, text: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _counted(low: int, high: int) -> Callable[[random.Random], Params]:
    return lambda draw: {"n": draw.randint(low, high)}


def _keywords(count: int) -> Callable[[random.Random], Params]:
    return lambda draw: {"words": draw.sample(KEYWORDS, count)}


def _nothing(draw: random.Random) -> Params:
    return {}


def _listed(found: list[str]) -> str:
    return " and ".join(f'"{word}"' for word in found)


def _json_with(keys: list[str], text: str) -> bool:
    fenced = _FENCE.match(text.strip())
    try:
        found = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and set(found) == set(keys)


RULES: dict[str, Rule] = {
    "words_at_least": Rule(
        "length", lambda d: {"n": d.randrange(30, 151, 10)}, lambda p: f"Write at least {p['n']} words.",
        lambda p, t: len(words(t)) >= p["n"]),
    "words_at_most": Rule(
        "length", lambda d: {"n": d.randrange(20, 81, 10)}, lambda p: f"Write at most {p['n']} words.",
        lambda p, t: 0 < len(words(t)) <= p["n"]),
    "sentences": Rule(
        "length", _counted(2, 6), lambda p: f"Write exactly {p['n']} sentences.", lambda p, t: len(sentences(t)) == p["n"]),
    "paragraphs": Rule(
        "length", _counted(2, 4), lambda p: f"Write exactly {p['n']} paragraphs, with an empty line between them.",
        lambda p, t: len(paragraphs(t)) == p["n"]),
    "include": Rule(
        "keywords", _keywords(2), lambda p: f"Use the words {_listed(p['words'])}.",
        lambda p, t: all(times(word, t) for word in p["words"])),
    "often": Rule(
        "keywords", lambda d: {"words": d.sample(KEYWORDS, 1), "n": d.randint(2, 4)},
        lambda p: f"Use the word {_listed(p['words'])} exactly {p['n']} times.", lambda p, t: times(p["words"][0], t) == p["n"]),
    "forbid": Rule(
        "forbidden", lambda d: {"words": d.sample(("the", "is", "and", "very", "of", "it"), 2)},
        lambda p: f"Use neither of the words {_listed(p['words'])}.",
        lambda p, t: bool(words(t)) and not any(times(word, t) for word in p["words"])),
    "letter": Rule(
        "forbidden", lambda d: {"letter": d.choice("bcdfghklmpvw")}, lambda p: f"Use no word that has the letter {p['letter']!r} in it.",
        lambda p, t: bool(words(t)) and p["letter"] not in t.lower()),
    "no_commas": Rule(
        "punctuation", _nothing, lambda p: "Use no commas.", lambda p, t: bool(words(t)) and "," not in t),
    "no_digits": Rule(
        "digits", _nothing, lambda p: "Use no digits.", lambda p, t: bool(words(t)) and not re.search(r"\d", t)),
    "capitals": Rule(
        "case", _nothing, lambda p: "Write in capital letters only.", lambda p, t: bool(words(t)) and t == t.upper()),
    "small": Rule(
        "case", _nothing, lambda p: "Write in small letters only.", lambda p, t: bool(words(t)) and t == t.lower()),
    "ends": Rule(
        "end", lambda d: {"words": [d.choice(_ENDINGS)]}, lambda p: f"End with the sentence {_listed(p['words'])}",
        lambda p, t: t.rstrip().rstrip('"').lower().endswith(p["words"][0].lower())),
    "begins": Rule(
        "begin", _keywords(1), lambda p: f"Begin with the word {_listed(p['words'])}.",
        lambda p, t: [word.lower() for word in words(t)[:1]] == p["words"]),
    "bullets": Rule(
        "form", _counted(2, 5), lambda p: f"Give exactly {p['n']} bullet points, each on a line that begins with \"- \".",
        lambda p, t: len(_BULLET.findall(t)) == p["n"]),
    "highlights": Rule(
        "form", _counted(2, 4), lambda p: f"Highlight at least {p['n']} parts between single asterisks, like *this*.",
        lambda p, t: len(_HIGHLIGHT.findall(t)) >= p["n"]),
    "placeholders": Rule(
        "form", _counted(2, 4), lambda p: f"Leave at least {p['n']} places to be filled in, in square brackets, like [name].",
        lambda p, t: len(_PLACEHOLDER.findall(t)) >= p["n"]),
    "title": Rule(
        "title", _nothing, lambda p: "Give it a title between double angle brackets, like <<title>>.",
        lambda p, t: bool(_TITLE.search(t))),
    "json": Rule(
        "whole", lambda d: {"words": d.sample(("summary", "reasons", "examples", "warning", "source"), 2)},
        lambda p: f"Answer with one JSON object with the keys {_listed(p['words'])} and nothing else.",
        lambda p, t: _json_with(p["words"], t)),
    "quoted": Rule(
        "whole", _nothing, lambda p: "Put the whole answer between double quotation marks.",
        lambda p, t: len(t.strip()) > 2 and t.strip().startswith('"') and t.strip().endswith('"')),
}  # fmt: skip
_ALONE = ("json",)
"""Rules that leave no room for others."""


def draw_rules(draw: random.Random, count: int) -> list[dict[str, Any]]:
    """Of different groups, each {"rule", …its parameters}."""
    chosen: list[str] = []
    for name in draw.sample(sorted(RULES), len(RULES)):
        groups = {RULES[other].group for other in chosen}
        if len(chosen) < count and RULES[name].group not in groups and (name not in _ALONE or count == 1):
            chosen.append(name)
    return [{"rule": name, **RULES[name].draw(draw)} for name in chosen]


def told(rule: Mapping[str, Any]) -> str:
    return RULES[rule["rule"]].text(rule)


def holds(rule: Mapping[str, Any], text: str) -> bool:
    return RULES[rule["rule"]].holds(rule, text)
