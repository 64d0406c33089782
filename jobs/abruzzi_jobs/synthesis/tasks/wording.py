"""A task's instruction in a model's words. What was lost or invented on the way is found by rule, and then the instruction stays as it was."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from abruzzi.contracts.agent import Task
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest, ChatResponse
from abruzzi_jobs.synthesis.judge.checks import numbers, says
from abruzzi_jobs.synthesis.wording import answer_text, in_other_words

_ASKED = """You are {name}. Your style: {style}.
Say the request below in your own words, to an assistant. Keep its meaning, its order, and every number, name, code and quoted text exactly as they
stand. Add nothing. Answer with the request alone.

{instruction}"""
_SHORTEST, _LONGEST = 0.5, 2.0
_NEGATION = re.compile(r"\b(?:not|never|no|cannot|nobody|nothing)\b|n't\b", re.IGNORECASE)
_VERBS = {
    "raise": ("raise", "increase", "up", "add"),
    "lower": ("lower", "reduce", "decrease", "cut", "down"),
    "create": ("create", "make", "add", "new", "register", "set up", "open"),
    "delete": ("delete", "remove", "erase"),
    "move": ("move", "transfer", "shift", "send"),
    "change": ("change", "update", "set", "modify", "alter"),
    "give": ("give", "assign", "move", "transfer"),
    "tell me": ("tell", "what", "how", "let me know", "give me", "find out", "which"),
}
"""What an instruction asks for must still be asked for, by one of these."""


def wording_request(task: Task) -> ChatRequest:
    """For the role `user`."""
    asked = _ASKED.format(name=task.persona.name, style=task.persona.style, instruction=task.instruction)
    return ChatRequest(messages=[{"role": "user", "content": asked}], max_tokens=2 * len(task.instruction) // 3 + 40)


def wording_fault(task: Task, text: str) -> str:
    """Why `text` does not say what the task's instruction says; empty where nothing is lost, given away or invented."""
    ratio = len(text) / len(task.instruction)
    if not _SHORTEST <= ratio <= _LONGEST:
        return "length"
    for fact in task.facts:
        if says(text, fact.value) != says(task.instruction, fact.value):
            return "lost_a_fact" if fact.told == "first" else "gave_away_a_fact"
    if Counter(numbers(text)) != Counter(numbers(task.instruction)):
        return "numbers"
    if any(
        f'"{quoted}"' in task.instruction and quoted not in text
        for quoted in re.findall(r'"([^"]+)"', task.instruction)
    ):
        return "lost_a_quotation"
    if len(_NEGATION.findall(text)) % 2 != len(_NEGATION.findall(task.instruction)) % 2:
        return "negation"
    for verb, others in _VERBS.items():
        if says(task.instruction, verb) and not any(says(text, other) for other in others):
            return "lost_a_wish"
    return ""


def reworded(task: Task, response: ChatResponse) -> tuple[Task, str]:
    """(the task in the model's words, "") or (the task as it was, why)."""
    text = answer_text(response)
    if fault := wording_fault(task, text):
        return task, fault
    generator = f"{task.generator}+{response.generator}"
    return task.model_copy(update={"instruction": text, "generator": generator, "is_llm": response.is_llm}), ""


async def reword(tasks: Sequence[Task], user: ChatBackend) -> tuple[list[Task], Counter[str]]:
    """As `in_other_words`."""
    return await in_other_words(tasks, user, wording_request, reworded)
