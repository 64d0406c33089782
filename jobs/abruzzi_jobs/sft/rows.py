"""Where conversations come from: what earlier stages made (kept, or accepted by people), and the user's own files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rl import TaughtGym
from abruzzi.contracts.stage import StoreConfig
from abruzzi_jobs.data import own_files
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.sft.conversation import Conversation, Malformed, read_conversation

OWN_LICENCE = "the user's own"
REJECTED = "rejected_by_people"
Verdicts = Mapping[str, Literal["accept", "reject"]]
"""By row id."""


@dataclass(frozen=True, kw_only=True)
class ConversationRow:
    id: str
    fate: str
    """`kept`, or why it is not learned from."""
    conversation: Conversation | None
    """None where it is not kept."""
    source: str
    licence: str
    generator: str
    is_llm: bool


def made_rows(folder: Path, noun: str, verdicts: Verdicts) -> Iterator[ConversationRow]:
    """Of an artifact. People's verdicts go before the fate that the row was given; what is malformed is counted by its reason.

    Raises AbruzziError bad_data where a shard is damaged.
    """
    for row in read_rows(folder, noun):
        fate = {"accept": KEPT, "reject": REJECTED}.get(verdicts.get(row["id"], ""), row["fate"])
        conversation = None
        if fate == KEPT:
            try:
                conversation = read_conversation(row)
            except Malformed as error:
                fate = error.reason
        yield ConversationRow(
            id=f"{noun}/{row['id']}",
            fate=fate,
            conversation=conversation,
            source=str(row.get("source") or noun),
            licence=str(row.get("licence") or "unknown"),
            generator=str(row.get("generator") or "unknown"),
            is_llm=bool(row.get("is_llm")),
        )


def own_rows(source: str, *, store: StoreConfig | None = None) -> Iterator[ConversationRow]:
    """Of the user's files. Raises AbruzziError bad_data, with file and line, for anything that is no conversation: who wrote it can mend it."""
    for file in own_files.find_files(source, store=store):
        if not file.name.lower().endswith((".jsonl", ".jsonl.zst")):
            raise AbruzziError(
                "bad_data",
                f"{file.name}: conversations are read from .jsonl and .jsonl.zst.",
                hint="Narrow data.sources.",
            )
        for where, record in own_files.read_json_lines(file):
            if not isinstance(record, dict):
                raise AbruzziError("bad_data", f"{where}: no JSON object.", hint="One object with `messages` a line.")
            try:
                conversation = read_conversation(record)
            except Malformed as error:
                raise AbruzziError("bad_data", f"{where}: {error}.", hint=error.hint) from error
            yield ConversationRow(
                id=where,
                fate=KEPT,
                conversation=conversation,
                source=str(record.get("source") or source),
                licence=str(record.get("licence") or OWN_LICENCE),
                generator=str(record.get("generator") or "own"),
                is_llm=bool(record.get("is_llm")),
            )


def gym_rows(gyms: Iterable[TaughtGym], *, seed: int) -> Iterator[ConversationRow]:
    """Tasks of environments with right answers, each once, also where an environment is named again with other options that allow the same task;
    fewer than asked for where there are no more. None of the held-out tasks.

    Raises AbruzziError `unknown_environment`, `bad_options`, `unknown_family`, `no_answer` where nobody knows the answers.
    """
    rows = (row for taught in gyms for row in _taught_rows(taught, seed=seed))
    seen: set[str] = set()
    for row in rows:
        if row.id not in seen:
            seen.add(row.id)
            yield row


def _taught_rows(taught: TaughtGym, *, seed: int) -> Iterator[ConversationRow]:
    taught_gym = gym(taught.name, taught.options)
    families = taught.families or taught_gym.families
    tasks = (
        taught_gym.task(seed, index, family=families[index % len(families)]) for index in range(taught.conversations)
    )
    for task in {task.id: task for task in tasks}.values():
        row = asyncio.run(taught_gym.conversation(task))
        if row is None:
            raise AbruzziError(
                "no_answer",
                f"The environment {taught.name!r} knows no right answers of the family {task.family!r}.",
                hint="Leave it out of data.gyms, or name other families.",
            )
        yield ConversationRow(
            id=f"{row['source']}/{row['id']}",
            fate=KEPT,
            conversation=read_conversation(row),
            **{key: row[key] for key in ("source", "licence", "generator", "is_llm")},
        )


def row_facts(row: ConversationRow) -> dict[str, Any]:
    """Provenance, as every row of ours has it."""
    return {
        "id": row.id, "source": row.source, "licence": row.licence, "generator": row.generator, "is_llm": row.is_llm,
    }  # fmt: skip
