"""The scripted user: tells what it is asked for, goes on to its next wish when the agent reports, and ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from abruzzi.contracts.agent import Fact, Task
from abruzzi_jobs.synthesis.judge.checks import says

STOP = "###STOP###"
"""What a user says once it is done."""
_NO_MORE = "I have told you all that I know. Please go on with it."
_UNSURE = "I am not sure what you mean. What exactly do you need to know?"


def scripted_reply(task: Task, messages: Sequence[dict[str, Any]]) -> str:
    """To the agent's last message, from the conversation as the agent sees it. Ends with STOP where nothing is left to say."""
    last = _last_of(messages, "assistant")
    missing = missing_facts(task, messages)
    told = [fact for fact in missing if is_asked(fact, last)]
    if not told and missing and "?" in last:
        # An agent may ask in words that nobody thought of: it is answered when it asks again.
        if not any(message.get("content") == _UNSURE for message in messages):
            return _UNSURE
        told = missing
    if told:
        return " ".join(fact.text for fact in told)
    if last.rstrip().endswith("?"):
        return _NO_MORE
    wish = next((fact for fact in missing_facts(task, messages, "after")), None)
    return wish.text if wish is not None else STOP


def missing_facts(task: Task, messages: Sequence[dict[str, Any]], told: str = "asked") -> list[Fact]:
    """Those of the kind that the user has not said yet."""
    return [fact for fact in task.facts if fact.told == told and not was_told(fact, messages)]


def was_told(fact: Fact, messages: Sequence[dict[str, Any]]) -> bool:
    return fact.told == "first" or any(
        says(str(message.get("content") or ""), fact.value) for message in messages if message.get("role") == "user"
    )


def is_asked(fact: Fact, text: str) -> bool:
    return "?" in text and any(says(text, word) for word in fact.words)


def _last_of(messages: Sequence[dict[str, Any]], role: str) -> str:
    return next((str(m.get("content") or "") for m in reversed(messages) if m.get("role") == role), "")
