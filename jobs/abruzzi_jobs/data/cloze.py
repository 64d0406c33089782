"""Cloze items: a fact that the training text states, asked in a wording in which this fact was never stated."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.documents import Fact, choice
from abruzzi_jobs.data.knowledge_sources import WORDINGS

DISTRACTORS = 3
MAX_PER_RELATION = 400


@dataclass(frozen=True, kw_only=True)
class ClozeItem:
    id: str
    """`<relation>/<subject>`"""
    relation: str
    prompt: str
    answer: str
    """Continues the prompt: begins with a space."""
    distractors: tuple[str, ...]


def make_items(facts: Iterable[Fact]) -> list[ClozeItem]:
    """At most MAX_PER_RELATION a relation, relations in turn; the same facts in any order give the same items.

    Left out are a subject with several answers or one that was told in every wording, and a relation with too few answers for distractors.
    """
    by_relation: dict[str, dict[str, list[Fact]]] = defaultdict(lambda: defaultdict(list))
    shown: dict[tuple[str, str], set[int]] = defaultdict(set)
    for fact in facts:
        by_relation[fact.relation][fact.subject].append(fact)
        # "North East Lincolnshire belongs to" has also shown "Lincolnshire belongs to".
        words = fact.subject.split(" ")
        for first in range(len(words)):
            shown[fact.relation, " ".join(words[first:])].add(fact.wording)

    def unshown(fact: Fact) -> list[str]:
        """Wordings in which no document states this fact."""
        seen = shown[fact.relation, fact.subject]
        return [wording for index, wording in enumerate(WORDINGS[fact.relation]) if index not in seen]

    columns = []
    for _, subjects in sorted(by_relation.items()):
        answers = sorted({f.answer for told in subjects.values() for f in told})
        if len(answers) <= DISTRACTORS:
            continue
        sure = [told[0] for told in subjects.values() if len({f.answer for f in told}) == 1 and unshown(told[0])]
        sure.sort(key=lambda f: choice(f"order\0{f.relation}\0{f.subject}", 2**60))
        columns.append([_item(fact, unshown(fact), answers) for fact in sure[:MAX_PER_RELATION]])
    return [item for row in zip_longest(*columns) for item in row if item is not None]


def write_items(path: Path, items: list[ClozeItem]) -> None:
    path.write_text("".join(json.dumps(asdict(i), ensure_ascii=False) + "\n" for i in items), encoding="utf-8")


def read_items(path: Path) -> list[ClozeItem]:
    """Raises AbruzziError bad_data, with the line, when the file is of another shape."""
    items: list[ClozeItem] = []
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                raw: dict[str, Any] = json.loads(line)
                raw["distractors"] = tuple(raw["distractors"])
                items.append(ClozeItem(**raw))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AbruzziError(
            "bad_data", f"{path.name}:{len(items) + 1}: no cloze item ({error}).", hint="Run the corpus stage again."
        ) from error
    return items


def _item(fact: Fact, wordings: list[str], answers: list[str]) -> ClozeItem:
    key = f"{fact.relation}\0{fact.subject}"
    prompt = wordings[choice(f"question\0{key}", len(wordings))].format(fact.subject)
    distractors: list[str] = []
    attempt = 0
    while len(distractors) < DISTRACTORS:
        answer = answers[choice(f"distractor\0{key}\0{attempt}", len(answers))]
        attempt += 1
        if answer != fact.answer and f" {answer}" not in distractors:
            distractors.append(f" {answer}")
    return ClozeItem(
        id=f"{fact.relation}/{fact.subject}",
        relation=fact.relation,
        prompt=prompt,
        answer=f" {fact.answer}",
        distractors=tuple(distractors),
    )
