"""The nouns of Princeton's WordNet 3.0: files of the package `wn`, read as data in the format that wndb(5WN) describes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

from abruzzi_jobs.data.package_data import package_folder

LICENCE = "WordNet 3.0 licence of Princeton University (free use and distribution with its notice; package: Apache-2.0)"
_FOLDER = ("data", "wordnet-3.0")
_KIND_OF = "@"
"""The pointer from a synset to its hypernym; `@i`, from a single thing such as a city to its kind, is another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noun:
    """A synset: words of one meaning."""

    key: str
    """Its place in the file, which other synsets point to."""
    field: str
    """Of meaning, such as `animal`: the lexicographers' file that it stands in."""
    words: tuple[str, ...]
    """The most usual first."""
    kinds: tuple[str, ...]
    """Keys of what it is a kind of."""
    definition: str
    examples: tuple[str, ...]


@cache
def nouns() -> dict[str, Noun]:
    """{key: noun} in the order of the file. Raises ModuleNotFoundError where the package is not installed."""
    folder = package_folder("wn").joinpath(*_FOLDER)
    fields = [line.split("\t")[1] for line in (folder / "lexnames").read_text(encoding="utf-8").splitlines()]
    lines = (folder / "data.noun").read_text(encoding="utf-8").splitlines()
    read = (_noun(line, fields) for line in lines if not line.startswith(" "))  # the licence comes first, indented
    return {noun.key: noun for noun in read}


def only_meanings() -> set[str]:
    """Words that are nouns with one meaning."""
    return {word for word, meanings in Counter(w for n in nouns().values() for w in n.words).items() if meanings == 1}


def _noun(line: str, fields: list[str]) -> Noun:
    head, _, gloss = line.partition(" | ")
    parts = head.split(" ")
    after_words = 4 + 2 * int(parts[3], 16)
    pointers = parts[after_words + 1 :]
    said = [part.strip() for part in gloss.split("; ")]
    return Noun(
        key=parts[0],
        field=fields[int(parts[1])].removeprefix("noun."),
        words=tuple(word.replace("_", " ") for word in parts[4:after_words:2]),
        kinds=tuple(pointers[at + 1] for at in range(0, len(pointers), 4) if pointers[at] == _KIND_OF),
        definition="; ".join(part for part in said if part and not part.startswith('"')),
        examples=tuple(part.strip('"') for part in said if part.startswith('"')),
    )
