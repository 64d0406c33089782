"""What happened in one conversation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from abruzzi.contracts.agent import CallRecord, ProbeRecord
from abruzzi_jobs.chat.request import ChatResponse
from abruzzi_jobs.synthesis.world import Snapshot

ENDED_WELL = ("user", "patience")
"""The user was content, or left."""


@dataclass(kw_only=True)
class Episode:
    """`ended_by`: "user", "patience" (it had asked often enough), "turns", "tokens", "empty" (the agent said nothing), "agent_<reason>" (a question
    that its endpoint did not answer), "server_<kind>" (a tool server at fault), "broken_tool"."""

    messages: list[dict[str, Any]]
    calls: list[CallRecord] = field(default_factory=list)
    before: Snapshot | None = None
    after: Snapshot | None = None
    digest_before: str | None = None
    digest_after: str | None = None
    probes: list[ProbeRecord] = field(default_factory=list)
    ended_by: str = ""
    why: str = ""
    """In words, where it did not end well."""
    call_ids: list[str] = field(default_factory=list)
    """Of the questions to endpoints, in order."""
    generators: dict[str, str] = field(default_factory=dict)
    """Role → who played it."""
    is_llm: bool = False
    """Of the agent."""
    turns: int = 0
    agent_tokens: int = 0
    user_fallbacks: Counter[str] = field(default_factory=Counter)
    """Answers of the user's model that were not taken, by reason; the script spoke instead."""
    slips: Counter[str] = field(default_factory=Counter)
    """Of the agent's calls: those that were none (bad_arguments, unknown_tool, too_many_calls)."""

    def heard(self, role: str, response: ChatResponse) -> None:
        self.call_ids.append(response.call_id)
        self.generators[role] = response.generator
        if role == "agent":
            self.is_llm = response.is_llm
            self.agent_tokens += response.usage.completion_tokens
