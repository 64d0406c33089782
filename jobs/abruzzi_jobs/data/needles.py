"""Needles in a haystack: pairs of words hidden in sentences that say nothing, asked for at the end.

What long contexts are trained and measured on ("Landmark Attention", Mohtashami and Jaggi 2023, arXiv 2305.16300, for the passkey; RULER, Hsieh et al.
2024, arXiv 2404.06654, for keys among distractors). Which word a name is paired with is drawn anew in each text, so that it can be found in the text alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from abruzzi_jobs.data.documents import Document

DOMAIN = "needles"
TOLD, ASKED = "Remember this pair: {} {}.", "Complete this pair: {}"
"""After what is asked the word follows, after one space."""
NAMES = tuple(
    [
        "Anna",
        "Bruno",
        "Carla",
        "Dario",
        "Elena",
        "Fabio",
        "Greta",
        "Hugo",
        "Irene",
        "Jakob",
        "Klara",
        "Luca",
        "Marta",
        "Nino",
        "Olga",
        "Paolo",
        "Quinta",
        "Rosa",
        "Sara",
        "Tullio",
        "Ulla",
        "Vito",
        "Wanda",
        "Xenia",
        "Yara",
        "Zeno",
        "Alba",
        "Boris",
        "Celia",
        "Dora",
        "Enzo",
        "Flora",
    ]
)
WORDS = tuple(
    [
        "lantern",
        "anchor",
        "barrel",
        "candle",
        "drum",
        "engine",
        "feather",
        "goblet",
        "hammer",
        "iron",
        "jacket",
        "kettle",
        "ladder",
        "magnet",
        "needle",
        "orange",
        "pepper",
        "quiver",
        "ribbon",
        "saddle",
        "teapot",
        "umbrella",
        "violin",
        "wagon",
        "yarn",
        "zipper",
        "acorn",
        "basket",
        "compass",
        "diamond",
        "emerald",
        "falcon",
    ]
)
_HOW = [
    "old",
    "young",
    "quiet",
    "green",
    "white",
    "brown",
    "tall",
    "small",
    "early",
    "late",
    "warm",
    "cold",
    "narrow",
    "broad",
    "bright",
    "grey",
    "steep",
    "plain",
    "distant",
    "famous",
    "humble",
    "lonely",
    "merry",
    "tired",
]
_WHO = [
    "farmer",
    "miller",
    "sailor",
    "baker",
    "teacher",
    "painter",
    "shepherd",
    "carpenter",
    "doctor",
    "hunter",
    "weaver",
    "fisher",
    "mason",
    "gardener",
    "tailor",
    "potter",
    "soldier",
    "singer",
    "writer",
    "driver",
    "cooper",
    "judge",
    "pilot",
    "nurse",
]
_DID = [
    "saw",
    "left",
    "found",
    "crossed",
    "followed",
    "described",
    "reached",
    "forgot",
    "admired",
    "measured",
    "visited",
    "drew",
    "praised",
    "passed",
    "sold",
    "bought",
    "entered",
    "guarded",
    "watched",
    "remembered",
]
_WHAT = [
    "river",
    "bridge",
    "garden",
    "village",
    "meadow",
    "tower",
    "market",
    "forest",
    "harbour",
    "valley",
    "chapel",
    "road",
    "mountain",
    "island",
    "castle",
    "orchard",
    "square",
    "station",
    "quarry",
    "vineyard",
    "canal",
    "library",
    "mill",
    "pasture",
]
FILLER_WORDS = 7
PAIR_WORDS = 5

_DOCUMENTS = 32_000
_SHORT_SHARE = 0.92
_SHORT, _LONG = (30, 60), (250, 900)
"""Words of a text. Most are short: rows are cut from texts, and what was told before the cut cannot be answered."""
_FILLER_SHARES = (0.8, 0.9, 0.95)
"""Of a long text. Filler teaches nothing, so short texts have none."""
_NAMES_AT_HAND = (2, 2, 3, 3, 4, 4, 8, 16, len(NAMES))
"""How many names a text may speak of. With all of them in each, the pair told last stays the model's best guess for long; looking one up by its name
is learned among few first."""
_TOLD_TWICE = "Remember this pair: {0} {1} {0} {1}."
"""Saying the name after its word takes a head that sees the token before, half of what a look-up is made of (an induction head: Olsson et al. 2022,
arXiv 2209.11895)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Haystack:
    text: str
    """All of it, with the question at its end."""
    key: str
    value: str
    others: tuple[str, ...]
    """Values of the pairs that were not asked for."""


def filler(rng: Random) -> str:
    """A sentence of seven words."""
    how, who, did, what, which = (
        words[int(rng.random() * len(words))]  # three times as fast as rng.choice
        for words in (_HOW, _WHO, _DID, _HOW, _WHAT)
    )
    return f"The {how} {who} {did} the {what} {which}."


def haystack(seed: str, *, words: int, depth: float, distractors: int) -> Haystack:
    """About `words` words of filler with one pair at `depth` (0: first sentence, 1: last before the question) and `distractors` others anywhere.

    Raises ValueError where the pairs do not fit into so few words, or there are fewer names than pairs.
    """
    if not 0 <= depth <= 1:
        raise ValueError(f"depth {depth}: a share of the text, from 0 to 1")
    if 1 + distractors > len(NAMES):
        raise ValueError(f"{distractors} distractors: there are {len(NAMES)} names, one of which is asked for")
    sentences = (words - PAIR_WORDS * (1 + distractors)) // FILLER_WORDS
    if sentences < 0:
        raise ValueError(f"{words} words: {1 + distractors} pairs take {PAIR_WORDS * (1 + distractors)}")
    rng = Random(f"haystack {seed}")
    keys, values = rng.sample(NAMES, 1 + distractors), rng.sample(WORDS, 1 + distractors)
    text = [filler(rng) for _ in range(sentences)]
    for key, value in zip(keys[1:], values[1:], strict=True):
        text.insert(rng.randint(0, len(text)), TOLD.format(key, value))
    text.insert(round(depth * len(text)), TOLD.format(keys[0], values[0]))
    return Haystack(
        text=" ".join([*text, ASKED.format(keys[0])]), key=keys[0], value=values[0], others=tuple(values[1:])
    )


def documents() -> Iterator[Document]:
    """Texts to learn it from: pairs are told and asked for all along, so that rows of any length have some to answer."""
    for number in range(_DOCUMENTS):
        rng = Random(f"needles {number}")
        short = rng.random() < _SHORT_SHARE
        least, most = _SHORT if short else _LONG
        words = round(least * (most / least) ** rng.random())
        text = _told_and_asked(rng, words, 0.0 if short else rng.choice(_FILLER_SHARES))
        yield Document(name=f"needles/{number}", text=" ".join(text), domain=DOMAIN)


def _told_and_asked(rng: Random, words: int, filler_share: float) -> list[str]:
    names = rng.choice(_NAMES_AT_HAND)
    pairs = list(zip(rng.sample(NAMES[:names], names), rng.sample(WORDS, names), strict=True))
    untold = pairs[: rng.randint(1, names)]
    told: list[tuple[str, str]] = []
    text: list[str] = []
    length = 0
    while length < words or not told:
        if rng.random() < filler_share:
            text.append(filler(rng))
            length += FILLER_WORDS
            continue
        if untold and (not told or rng.random() < 0.6):
            told.append(untold.pop())
            text.append(rng.choice((TOLD, _TOLD_TWICE)).format(*told[-1]))
        else:
            text.append(_answered(rng, told))
        length += PAIR_WORDS
    return [*text, _answered(rng, told)]


def _answered(rng: Random, told: list[tuple[str, str]]) -> str:
    key, value = rng.choice(told)
    return f"{ASKED.format(key)} {value}."
