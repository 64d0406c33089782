"""Faults planted into honest rewrites, each in several ways. It shares no code and no word list with the verifier: names are those that
the sources' own tables say are names, or words with a capital inside a sentence; verbs and numbers are found by plain patterns."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from fidelity_rewrites import Honest, passages

from abruzzi_jobs.data.package_data import iso_entries, package_folder

CLAIMS = (
    "It was later confirmed by an independent committee.", "Most experts consider this the best result so far.",
    "Its inventor received a medal for it.", "The idea came from a student who worked there in the summer.",
    "Many companies have since adopted the same approach.", "Older books describe this in a different way.",
    "The method was first presented at a conference in Vienna.", "This has caused a long dispute among historians.",
    "Doctors recommend it against headaches.", "Its price has doubled over the last decade.",
    "Children learn about it in primary school.", "The original manuscript was lost in a fire.",
    "A museum was opened in its honour.", "Farmers had long suspected as much.",
    "It is particularly popular in South America.", "Engineers were surprised by how cheap it is.",
    "The government plans to regulate it soon.", "It has been shown to reduce energy consumption considerably.",
    "Only a handful of laboratories can reproduce it.", "The name is often misspelled in newspapers.",
    "Early versions suffered from frequent crashes.", "Its popularity grew after a television programme.",
    "The work was funded by a private foundation.", "A patent was granted two years later.",
    "Tourists visit the place because of it.", "The military kept it secret for a while.",
)  # fmt: skip
CLAUSES = (
    "which made its author famous", "as every schoolchild knows", "although critics disagree", "which later turned out to be dangerous",
    "despite protests from local farmers", "and a museum displays the original", "which customers appreciate very much",
    "as a court confirmed afterwards", "which saves a great deal of money", "and newspapers reported it widely",
    "while competitors struggled to follow", "after a night of heavy drinking", "as his brother had predicted",
    "which explains its enormous popularity abroad", "and investors were delighted", "because the weather was favourable",
)  # fmt: skip
_VAGUE = ("several", "some", "a certain number of", "many")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?![\w])")
_SMALL = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "fifteen")
_AUXILIARY = re.compile(
    r"\b(is|are|was|were|can|could|should|will|would|must|may|has been|have been|does|did)\b(?!\s+not\b|['’]t)"
)
_NEGATION = re.compile(
    r"\b(is|are|was|were|can|could|should|will|would|must|may|does|do|did|has|have)\s+not\b|\b(cannot)\b|\b(\w+)n['’]t\b"
)
_TURNED = (
    ("always", "never"), ("never", "always"), ("without", "with"), ("no", "every"), ("none", "all"), ("all", "none"), ("largest", "smallest"),
    ("lightest", "heaviest"), ("possible", "impossible"), ("most", "least"), ("stable", "unstable"), ("increase", "decrease"),
    ("true", "false"), ("equal", "unequal"), ("first", "last"), ("easy", "hard"), ("strong", "weak"),
)  # fmt: skip


@dataclass(frozen=True)
class Planted:
    base: Honest
    text: str
    kind: str
    variant: str


Planter = Callable[[Honest, random.Random], str | None]


def planted(base: Honest) -> list[Planted]:
    """One of each kind that the text has a place for; which variant, the text's own hash says."""
    found = []
    for kind, variants in PLANTERS.items():
        rng = random.Random(f"{kind}\0{base.method}\0{base.document}\0{base.rewrite[:60]}")
        order = list(variants)
        rng.shuffle(order)
        for variant in order:
            text = variants[variant](base, rng)
            if text is not None and text != base.rewrite:
                found.append(Planted(base, text, kind, variant))
                break
    return found


def _drop(base: Honest, rng: random.Random) -> str | None:
    match = _one(_NUMBER, base.rewrite, rng)
    return None if match is None else _joined(base.rewrite[: match.start()], base.rewrite[match.end() :])


def _blur(base: Honest, rng: random.Random) -> str | None:
    match = _one(_NUMBER, base.rewrite, rng)
    return None if match is None else base.rewrite[: match.start()] + rng.choice(_VAGUE) + base.rewrite[match.end() :]


def _digit(base: Honest, rng: random.Random) -> str | None:
    match = _one(_NUMBER, base.rewrite, rng)
    if match is None:
        return None
    places = [i for i, c in enumerate(match[0]) if c.isdigit()]
    place = rng.choice(places)
    other = rng.choice([d for d in "123456789" if d != match[0][place]])
    return (
        base.rewrite[: match.start()] + match[0][:place] + other + match[0][place + 1 :] + base.rewrite[match.end() :]
    )


def _next(base: Honest, rng: random.Random) -> str | None:
    match = _one(re.compile(r"(?<![\w.,])\d+(?![\w,]|\.\d)"), base.rewrite, rng)
    return (
        None if match is None else base.rewrite[: match.start()] + str(int(match[0]) + 1) + base.rewrite[match.end() :]
    )


def _magnitude(base: Honest, rng: random.Random) -> str | None:
    match = _one(re.compile(r"(?<![\w.,])[1-9]\d*(?![\w,]|\.\d)"), base.rewrite, rng)
    return None if match is None else base.rewrite[: match.end()] + "0" + base.rewrite[match.end() :]


def _two_numbers(base: Honest, rng: random.Random) -> str | None:
    found = list(_NUMBER.finditer(base.rewrite))
    pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :] if a[0] != b[0]]
    return _exchanged(base.rewrite, *rng.choice(pairs)) if pairs else None


def _spelled(base: Honest, rng: random.Random) -> str | None:
    match = _one(re.compile(rf"\b({'|'.join(_SMALL)})\b"), base.rewrite, rng)
    return (
        None
        if match is None
        else base.rewrite[: match.start()]
        + rng.choice([w for w in _SMALL if w != match[0]])
        + base.rewrite[match.end() :]
    )


def _foreign_name(base: Honest, rng: random.Random) -> str | None:
    matches = _names(base)
    if not matches:
        return None
    match = rng.choice(matches)
    pool = [name for name in _pool(base.source) if name not in base.text and name not in base.rewrite]
    return base.rewrite[: match.start()] + rng.choice(pool) + base.rewrite[match.end() :]


def _two_names(base: Honest, rng: random.Random) -> str | None:
    """Between two sentences that say different things of them."""
    if base.document.startswith("Parts of "):
        return None  # two parts of one country: what is said of the one is true of the other
    found = _names(base)
    pairs = [
        (a, b)
        for i, a in enumerate(found)
        for b in found[i + 1 :]
        if a[0] != b[0] and a[0] not in b[0] and b[0] not in a[0]
    ]
    pairs = [
        (a, b) for a, b in pairs if re.search(r"[a-z0-9)][.!?]\s+[A-Z]", base.rewrite[a.end() : b.start()])
    ]  # "A and B" says what "B and A" says
    return _exchanged(base.rewrite, *rng.choice(pairs)) if pairs else None


def _insert_not(base: Honest, rng: random.Random) -> str | None:
    match = _one(_AUXILIARY, base.rewrite, rng)
    if match is None:
        return None
    first = match.end() if " " not in match[0] else match.start() + match[0].index(" ")
    return f"{base.rewrite[:first]} not{base.rewrite[first:]}"


def _remove_not(base: Honest, rng: random.Random) -> str | None:
    match = _one(_NEGATION, base.rewrite, rng)
    if match is None:
        return None
    kept = match[1] or ("can" if match[2] else {"ca": "can", "wo": "will"}.get(match[3], match[3]))
    return base.rewrite[: match.start()] + kept + base.rewrite[match.end() :]


def _turn(base: Honest, rng: random.Random) -> str | None:
    found = [(m, other) for word, other in _TURNED for m in re.finditer(rf"\b{word}\b", base.rewrite)]
    if not found:
        return None
    match, other = rng.choice(found)
    return base.rewrite[: match.start()] + other + base.rewrite[match.end() :]


def _claim(base: Honest, rng: random.Random) -> str | None:
    return _inserted(base.rewrite, rng.choice(_half(CLAIMS, base)), rng)


def _neighbour(base: Honest, rng: random.Random) -> str | None:
    """A sentence of another passage of the same source: on the subject, and not said here."""
    others = [s for s in _sentences_of(base.source) if len(s.split()) >= 6 and s not in base.text]
    return _inserted(base.rewrite, rng.choice(others), rng) if others else None


def _clause(base: Honest, rng: random.Random) -> str | None:
    ends = list(re.finditer(r"(?<![ (]e\.g)(?<![ (]i\.e)(?<=[a-z)])\.(?=\s+[A-Z]|$)", base.rewrite))
    if not ends:
        return None
    end = rng.choice(ends)
    return f"{base.rewrite[: end.start()]}, {rng.choice(_half(CLAUSES, base))}{base.rewrite[end.start() :]}"


PLANTERS: dict[str, dict[str, Planter]] = {
    "number_dropped": {"dropped": _drop, "blurred": _blur},
    "number_changed": {
        "digit": _digit,
        "next": _next,
        "magnitude": _magnitude,
        "exchanged": _two_numbers,
        "spelled": _spelled,
    },
    "entity_swapped": {"foreign": _foreign_name, "exchanged": _two_names},
    "negation_flipped": {"inserted": _insert_not, "removed": _remove_not, "turned": _turn},
    "claim_added": {"sentence": _claim, "neighbour": _neighbour, "clause": _clause},
}


def _half(claims: tuple[str, ...], base: Honest) -> tuple[str, ...]:
    """Those of the test were never seen while the verifier was written."""
    return claims[1::2] if base.is_test else claims[0::2]


def _one(pattern: re.Pattern[str], text: str, rng: random.Random) -> re.Match[str] | None:
    found = list(pattern.finditer(text))
    return rng.choice(found) if found else None


def _joined(before: str, after: str) -> str:
    return re.sub(r" +([.,;])", r"\1", f"{before.rstrip()} {after.lstrip()}")


def _exchanged(text: str, a: re.Match[str], b: re.Match[str]) -> str:
    return text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]


def _inserted(text: str, sentence: str, rng: random.Random) -> str:
    ends = [m.end() for m in re.finditer(r"(?<![ (]e\.g)(?<![ (]i\.e)(?<=[a-z)\"])[.!?](?=\s+[A-Z]|$)", text)] or [
        len(text)
    ]
    at = rng.choice(ends)
    return f"{text[:at]} {sentence}{text[at:]}"


def _names(base: Honest) -> list[re.Match[str]]:
    known = [n for n in _tables(base.source) if n in base.rewrite]
    pattern = "|".join(re.escape(n) for n in sorted(known, key=len, reverse=True))
    found = list(re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", base.rewrite)) if known else []
    inner = re.finditer(r"(?<=[a-z,] )[A-Z][a-z]{3,}(?: [A-Z][a-z]{3,})*\b(?! ?[(:\[])", base.rewrite)
    taken = [m.span() for m in found]
    return found + [m for m in inner if not any(a < m.end() and m.start() < b for a, b in taken)]


@cache
def _tables(source: str) -> tuple[str, ...]:
    """Names that a source's own data says are names."""
    if source == "pycountry":
        return tuple(sorted({e["name"] for n in ("iso3166-1", "iso3166-2") for e in iso_entries(n)}))
    if source != "mendeleev":
        return ()
    path = package_folder("mendeleev") / "elements.db"
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as connection:
        return tuple(sorted(row[0] for row in connection.execute("select name from elements")))


@cache
def _pool(source: str) -> tuple[str, ...]:
    """Names that take a name's place: of the same source, else words of other passages that never stand there in small letters."""
    if _tables(source):
        return _tables(source)
    inner = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,}\b")
    small = {w for _, _, passage in passages() for w in re.findall(r"\b[a-z]{4,}\b", passage)}
    return tuple(sorted({m[0] for _, _, p in passages() for m in inner.finditer(p) if m[0].lower() not in small}))


@cache
def _sentences_of(source: str) -> tuple[str, ...]:
    found = [
        s
        for name, _, passage in passages()
        if name == source
        for s in re.split(r"(?<=[a-z)\"][.!?])\s+(?=[A-Z])", passage)
    ]
    return tuple(found or _sentences_of("mendeleev"))
