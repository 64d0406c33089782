"""Preferences as conversations: a question, two answers in either order, and which is better. What a critic is before reinforcement learning refines it
(paper 3.2.2: it is initialised by fine-tuning on preference data)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from abruzzi.contracts.critic import CriticForm
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rl import TaughtGym
from abruzzi.contracts.rollout import Segment, Status, Task, TokenSource, Trajectory
from abruzzi.contracts.rubric import RubricSet
from abruzzi.contracts.stage import StoreConfig
from abruzzi_jobs.data import own_files
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.rl.critic.form import SIDES, lessons, question_and_answer
from abruzzi_jobs.rl.environments import Gym, gym
from abruzzi_jobs.sft.rows import OWN_LICENCE, ConversationRow

_HINT = 'Write {"prompt": "…", "chosen": "…", "rejected": "…"}; instead of texts, lists of messages will do.'
_CLEARLY = 0.5
"""A right answer's reward is above a wrong one's by so much at least."""
_OTHERS = 40
"""Tasks whose answers are tried as the wrong one."""


def own_preferences(
    source: str, rubrics: RubricSet, form: CriticForm, *, store: StoreConfig | None = None
) -> Iterator[ConversationRow]:
    """Of the user's files, two rows a line. Raises AbruzziError bad_data, with file and line."""
    for file in own_files.find_files(source, store=store):
        for where, record in own_files.read_json_lines(file):
            question, chosen, rejected = _read(where, record)
            yield from _rows(
                where, question, chosen, rejected, rubrics, form,
                source=str(record.get("source") or source),
                licence=str(record.get("licence") or OWN_LICENCE),
                generator=str(record.get("generator") or "own"),
                is_llm=bool(record.get("is_llm")),
            )  # fmt: skip


def taught_preferences(
    taught: TaughtGym, rubrics: RubricSet, form: CriticForm, *, seed: int
) -> Iterator[ConversationRow]:
    """Of each task its right answer beside another task's that its own reward finds wrong; two rows a pair, none of the held-out tasks.

    Raises AbruzziError `unknown_environment`, `bad_options`, `unknown_family`, `no_answer` where nobody knows the answers.
    """
    made = gym(taught.name, taught.options)
    families = taught.families or made.families
    seen: set[str] = set()
    for index in range(taught.conversations):
        family = families[index % len(families)]
        task = made.task(seed, index, family=family)
        if task.id in seen:
            continue
        seen.add(task.id)
        right = _solved(made, task, taught.name)
        asked = str(task.data.get("prompt", ""))
        others = (made.task(seed, index + step, family=family) for step in range(1, _OTHERS))
        wrong = next(
            (w for w in (_solved(made, o, taught.name) for o in others) if _is_worse(made, task, right, w)), None
        )
        if wrong is not None and asked:
            yield from _rows(
                f"{made.reference}/{task.id}", asked, right, wrong, rubrics, form, source=made.reference, licence="Apache-2.0",
                generator=made.reference, is_llm=False,
            )  # fmt: skip


def _rows(
    name: str, question: str, right: str, wrong: str, rubrics: RubricSet, form: CriticForm, **provenance: Any
) -> Iterator[ConversationRow]:
    for side, conversation in zip(SIDES, lessons(question, right, wrong, rubrics.rubrics, form), strict=True):
        yield ConversationRow(id=f"{name}/{side}", fate=KEPT, conversation=conversation, **provenance)


def _read(where: str, record: Any) -> tuple[str, str, str]:
    found = record if isinstance(record, Mapping) else {}
    asked = found.get("prompt", found.get("messages"))
    answers = []
    for key in ("chosen", "rejected"):
        answer = found.get(key)
        if isinstance(answer, list) and all(isinstance(message, Mapping) for message in answer):
            question, said = question_and_answer(answer)
            asked, answer = asked or question, said
        if not isinstance(answer, str) or not answer.strip():
            raise AbruzziError("bad_data", f"{where}: no text for {key!r}.", hint=_HINT)
        answers.append(answer)
    if isinstance(asked, list) and all(isinstance(message, Mapping) for message in asked):
        asked = question_and_answer(asked)[0]
    if not isinstance(asked, str) or not asked.strip():
        raise AbruzziError("bad_data", f"{where}: no question.", hint=_HINT)
    return asked, answers[0], answers[1]


def _solved(made: Gym, task: Task, name: str) -> str:
    said = made.solution(task)
    if len(said) != 1 or not said[0].get("content"):
        raise AbruzziError(
            "no_answer",
            f"The environment {name!r} knows no right answer of one message of the family {task.family!r}.",
            hint='Leave out form = "preferences", or name other families.',
        )
    return str(said[0]["content"])


def _is_worse(made: Gym, task: Task, right: str, other: str) -> bool:
    good, bad = (_reward(made, task, answer) for answer in (right, other))
    return good is not None and bad is not None and good - bad >= _CLEARLY


def _reward(made: Gym, task: Task, answer: str) -> float | None:
    nothing = Segment(source=TokenSource.PROMPT, tokens=())
    ended = Trajectory(id="p/0", group="p", member=0, task=task, segments=(nothing,), status=Status.OK, turns=1)
    said = ({"role": "user", "content": str(task.data.get("prompt", ""))}, {"role": "assistant", "content": answer})
    return made.score(ended, said, {}).reward
