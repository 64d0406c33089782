"""A scripted agent where a conversation wants somebody to ask: it answers at once, and its answers are marked as the stand-in's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from abruzzi.contracts.agent import Task
from abruzzi_jobs.chat.request import ChatResponse, ToolCall, Usage
from abruzzi_jobs.synthesis.players.scripted import ScriptedAgent


class StandinSpeaker:
    """Of one conversation. Tokens are estimated at four characters each."""

    def __init__(self, task: Task, *, error_rate: float = 0.0, seed: int = 0) -> None:
        self._agent = ScriptedAgent(task, error_rate=error_rate, seed=seed)

    async def reply(self, messages: Sequence[dict[str, Any]], toolbox: object) -> ChatResponse:
        turn = self._agent.reply(messages)
        calls = tuple(
            ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in turn.get("tool_calls", ())
        )
        said = len(turn["content"]) + sum(len(call.arguments) for call in calls)
        heard = sum(len(str(message.get("content") or "")) for message in messages)
        return ChatResponse(
            text=turn["content"],
            tool_calls=calls,
            finish_reason="tool_calls" if calls else "stop",
            usage=Usage(heard // 4 + 1, said // 4 + 1, is_estimated=True),
            model=self._agent.generator,
            generator=self._agent.generator,
            is_llm=False,
        )
