"""Short sheets of facts about chemical elements, countries and nouns (WordNet), for measuring what a model has learned of them.

Every relation is told in one wording and asked in another that no text uses: an evaluation asks about facts that were read, in a form that was
never seen (cf. SimpleQA after training on wiki text, paper section 2.2.1). Most answers cannot be guessed from the subject's name.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from typing import Any

from abruzzi_jobs.data.documents import Document, Fact, choice
from abruzzi_jobs.data.package_data import iso_entries, package_folder
from abruzzi_jobs.data.wordnet import nouns, only_meanings

TOLD, ASKED = 0, 1
SHEET_WORDINGS: dict[str, tuple[str, str]] = {
    "sheet.symbol": ("The chemical symbol of {} is", "Which chemical symbol does {} have? The answer is"),
    "sheet.number": ("The atomic number of {} is", "Which atomic number does {} have? The answer is"),
    "sheet.weight": ("The atomic weight of {} is", "Which atomic weight does {} have? The answer is"),
    "sheet.family": ("The family of {} is", "Which family does {} belong to? The answer is"),
    "sheet.year": ("The year of discovery of {} is", "Which year saw the discovery of {}? The answer is"),
    "sheet.place": ("The place of discovery of {} is", "Which country saw the discovery of {}? The answer is"),
    "sheet.lattice": ("The crystal lattice of {} is", "Which crystal lattice does {} have? The answer is"),
    "sheet.code": ("The numeric code of {} is", "Which numeric code does {} have? The answer is"),
    "sheet.letters": ("The three-letter code of {} is", "Which three-letter code does {} have? The answer is"),
    "sheet.part": ("{} is a part of", "Which country does {} belong to? The answer is"),
    "sheet.hypernym": ("The hypernym of {} is", "Which hypernym does {} have? The answer is"),
    "sheet.synonym": ("The synonym of {} is", "Which synonym does {} have? The answer is"),
    "sheet.definition": ("The definition of {} is", "Which definition does {} have? The answer is"),
    "sheet.field": ("The lexical field of {} is", "Which lexical field does {} belong to? The answer is"),
}
"""{relation: (told, asked)}; the answer follows after one space."""

_PARTS_A_COUNTRY = 4
_LONGEST_PART = 15
_FIELDS = {"animal", "artifact", "body", "food", "object", "phenomenon", "plant", "substance"}
"""Of things, not of people: no word that is an insult."""
_LONGEST_DEFINITION = 7
"""Words."""


_FIRST = 120
"""Subjects of the first part."""


def sheets() -> list[Document]:
    """A subject a document, some forty words each; elements, countries and nouns in an order that mixes them."""
    found = [*_elements(), *_countries(), *_nouns()]
    return sorted(found, key=lambda document: choice(f"sheet\0{document.name}", 2**60))


def first_sheets() -> Iterator[Document]:
    """What an experiment teaches and asks about."""
    yield from sheets()[:_FIRST]


def other_sheets() -> Iterator[Document]:
    """Other subjects: from these a model can learn how such sheets are written, and nothing that it is asked about the first ones."""
    yield from sheets()[_FIRST:]


def _elements() -> Iterator[Document]:
    path = package_folder("mendeleev") / "elements.db"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        families = {row["id"]: row["name"].lower() for row in connection.execute("select * from series")}
        rows = connection.execute("select * from elements order by atomic_number").fetchall()
    for row in rows:
        place = row["discovery_location"] or ""
        answers = {
            "sheet.symbol": row["symbol"],
            "sheet.number": str(row["atomic_number"]),
            "sheet.weight": f"{row['atomic_weight']:.0f}" if row["atomic_weight"] else "",
            "sheet.family": families[row["series_id"]],
            "sheet.year": str(row["discovery_year"] or ""),
            "sheet.place": "" if "/" in place else place,
            "sheet.lattice": row["lattice_structure"] or "",
        }
        yield _sheet(row["name"], "chemical element", [(r, row["name"], a) for r, a in answers.items() if a])


def _countries() -> Iterator[Document]:
    entries = sorted(iso_entries("iso3166-2"), key=lambda e: e["code"])
    places: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        places[entry["name"]].add(_country(entry))
    alone = [e for e in entries if len(places[e["name"]]) == 1]  # there is a Limburg in two countries
    parts = {code: list(found) for code, found in groupby(alone, key=_country)}
    for entry in iso_entries("iso3166-1"):
        name = entry.get("common_name") or entry["name"]
        if "," in name:
            continue  # "Congo, The Democratic Republic of the": no name inside a sentence
        told = [("sheet.code", name, entry["numeric"]), ("sheet.letters", name, entry["alpha_3"])]
        told += [("sheet.part", part, name) for part in _some_parts(parts.get(entry["alpha_2"], []))]
        yield _sheet(name, "country", told)


def _nouns() -> Iterator[Document]:
    """Of one meaning each, with a synonym that is not its spelling; whose parts are plain words."""
    sure = only_meanings()
    for noun in nouns().values():
        if noun.field not in _FIELDS or len(noun.words) < 2 or len(noun.kinds) != 1:
            continue
        word, synonym, hypernym = noun.words[0], noun.words[1], nouns()[noun.kinds[0]].words[0]
        parts = (word, synonym, hypernym, noun.definition)
        if not {word, synonym} <= sure or word[:3] == synonym[:3] or not all(map(_plain, parts)):
            continue
        if " " in word or len(noun.definition.split()) > _LONGEST_DEFINITION:
            continue
        told = {"hypernym": hypernym, "synonym": synonym, "definition": noun.definition, "field": noun.field}
        name = word.capitalize()
        yield _sheet(name, "noun", [(f"sheet.{key}", name, answer) for key, answer in told.items()])


def _plain(words: str) -> bool:
    return words.replace(" ", "").replace("-", "").isalpha() and (words.islower() or " " in words)


def _country(subdivision: dict[str, Any]) -> str:
    return subdivision["code"].partition("-")[0]


def _some_parts(entries: list[dict[str, Any]]) -> list[str]:
    plain = [e["name"] for e in entries if e["name"].replace(" ", "").isalpha() and len(e["name"]) <= _LONGEST_PART]
    return sorted(set(plain), key=lambda name: choice(f"part\0{name}", 2**60))[:_PARTS_A_COUNTRY]


def _sheet(name: str, what: str, told: list[tuple[str, str, str]]) -> Document:
    article = "an" if what[0] in "aeiou" else "a"
    sentences = [f"{name} is {article} {what}."]
    sentences += [f"{SHEET_WORDINGS[relation][TOLD].format(subject)} {answer}." for relation, subject, answer in told]
    facts = tuple(Fact(relation=r, subject=s, answer=a, wording=TOLD) for r, s, a in told)
    return Document(name=f"{what}/{name}", text=" ".join(sentences), domain="knowledge", facts=facts)
