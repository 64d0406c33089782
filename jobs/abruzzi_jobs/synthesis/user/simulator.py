"""The user of one conversation. It asks nobody itself: `next` gives what is said, or the question for the role `user`; `read` takes the answer.

A small model gives away what it should keep, forgets what it was asked for, invents, or plays the assistant. Such an answer is not taken: the script
speaks instead, and the reason is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from abruzzi.contracts.agent import Task
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.synthesis.judge.checks import numbers, says
from abruzzi_jobs.synthesis.user.script import STOP, is_asked, missing_facts, scripted_reply

_SAID_AT_MOST = 800
_ROLE = """You play {name}, who writes to an assistant. You are {style}.
What you want: {goal}
You wrote first: {instruction}
{facts}Stay in your role: you are the user, never the assistant. Answer the assistant's last message in one to three short sentences.
Tell only what is written here, and invent nothing. When all you want is done, or cannot be done, answer with {stop} and nothing else."""
_SECRETS = """Tell these only when the assistant asks for them, word by word:
{lines}
"""
_WISHES = """Once the assistant says that the first part is done, ask for this next:
{lines}
"""
_ASSISTANT = re.compile(
    r"\bas an ai\b|\b(?:i am|i'm) an ai\b|\bai assistant\b|\blanguage model\b|how (?:can|may) i (?:help|assist)|\bi(?:'| wi)ll help you\b|\bassist you\b"
    r"|\byou(?:'re| are) welcome\b|sorry for any (?:misunderstanding|confusion|inconvenience)|<tool_call|\"arguments\"",
    re.IGNORECASE,
)


class UserSimulator:
    """`scripted`: nobody plays the user, the script does. `fallbacks` counts, by reason, the model's answers that were not taken. `ended` is "user" once it
    is done, "patience" once it has had enough."""

    def __init__(self, task: Task, *, scripted: bool = False) -> None:
        self.task = task
        self.scripted = scripted
        self.fallbacks: Counter[str] = Counter()
        self.ended: str | None = None
        self._messages: Sequence[dict[str, Any]] = ()
        self._turns = 0
        self._lingered = False

    def first(self) -> str:
        return self.task.instruction

    def next(self, messages: Sequence[dict[str, Any]]) -> ChatRequest | str | None:
        """What is said to the agent's last message: a text, a question whose answer goes to `read`, or None where the user is gone (`ended`)."""
        self._messages = messages
        if self._turns == self.task.persona.patience:
            self.ended = "patience"
            return None
        self._turns += 1
        if not self.scripted:
            return ChatRequest(messages=self._turned_round(), max_tokens=160, stop=["\nAssistant:", "\nUser:"])
        text, ended = self._ends(scripted_reply(self.task, messages))
        return None if ended else text

    def read(self, text: str | None) -> tuple[str, bool]:
        """(what the user says, whether it is done) from the model's answer; None: it gave none."""
        said = _cleaned(text or "")
        fault = self._fault(said)
        if fault:
            self.fallbacks[fault] += 1
            said = scripted_reply(self.task, self._messages)
        return self._ends(said)

    def _ends(self, said: str) -> tuple[str, bool]:
        if STOP in said:
            self.ended = "user"
            return said.replace(STOP, "").strip(), True
        return said, False

    def _turned_round(self) -> list[dict[str, Any]]:
        """The conversation as the user sees it: its own turns are the assistant's in the protocol, calls of tools are unseen."""
        persona, task = self.task.persona, self.task
        parts = ""
        for kind, frame in (("asked", _SECRETS), ("after", _WISHES)):
            lines = [f"- {fact.text}" for fact in task.facts if fact.told == kind]
            parts += frame.format(lines="\n".join(lines)) if lines else ""
        role = _ROLE.format(
            name=persona.name,
            style=persona.style,
            goal=persona.hidden_goal,
            instruction=task.instruction,
            facts=parts,
            stop=STOP,
        )
        turns: list[dict[str, Any]] = [{"role": "system", "content": role}]
        for message in self._messages:
            text = str(message.get("content") or "")
            if text and message.get("role") in ("user", "assistant"):
                turned = "assistant" if message["role"] == "user" else "user"
                if turns[-1]["role"] == turned:
                    turns[-1] = {"role": turned, "content": f"{turns[-1]['content']}\n{text}"}
                else:
                    turns.append({"role": turned, "content": text})
        if turns[1:] and turns[1]["role"] == "assistant":
            turns.insert(1, {"role": "user", "content": "Hello, what can I do for you?"})
        return turns

    def _fault(self, said: str) -> str:
        """Why the answer cannot be taken; empty where it can."""
        last = next((str(m.get("content") or "") for m in reversed(self._messages) if m.get("role") == "assistant"), "")
        wanted = [fact for fact in missing_facts(self.task, self._messages) if is_asked(fact, last)]
        wishes = missing_facts(self.task, self._messages, "after")
        plain = said.replace(STOP, "").strip()
        if not said:
            return "empty"
        if len(said) > _SAID_AT_MOST:
            return "too_long"
        if _ASSISTANT.search(plain):
            return "plays_the_assistant"
        if any(not says(plain, fact.value) for fact in wanted):
            return "forgot_a_fact"
        if STOP in said and (wanted or wishes):
            return "left_early"
        # A question in other words than the script knows is the model's to understand.
        free = "?" in last and not wanted
        kept = [fact for fact in missing_facts(self.task, self._messages) if fact not in wanted and not free]
        if any(says(plain, fact.value) for fact in kept):
            return "gave_away_a_fact"
        if any(str(m.get("content") or "").strip() == plain for m in self._messages):
            return "repeats"
        if wishes and not wanted and not last.rstrip().endswith("?") and not says(plain, wishes[0].value):
            return "forgot_a_wish"
        if set(numbers(plain)) - self._known_numbers():
            return "invented_a_number"
        return self._lingers(said, last)

    def _lingers(self, said: str, last: str) -> str:
        """With nothing asked and nothing left to wish for it may object once; a model that cannot end is ended."""
        if STOP in said or last.rstrip().endswith("?") or missing_facts(self.task, self._messages, "after"):
            return ""
        fault = "lingers" if self._lingered else ""
        self._lingered = True
        return fault

    def _known_numbers(self) -> set[float]:
        texts = [self.task.instruction, *(fact.text for fact in self.task.facts)]
        texts += [str(m.get("content") or "") for m in self._messages if m.get("role") == "assistant"]
        return {number for text in texts for number in numbers(text)}


def _cleaned(text: str) -> str:
    """Without quotation marks around it, and without what a model writes for the other side."""
    head = re.split(r"\n\s*(?:assistant|user|system)\s*:", text.strip(), maxsplit=1, flags=re.IGNORECASE)[0]
    head = re.sub(r"^(?:user|me)\s*:\s*", "", head.strip(), flags=re.IGNORECASE)
    return head.strip().strip('"').strip()
