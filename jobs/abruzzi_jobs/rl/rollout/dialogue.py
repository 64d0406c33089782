"""Between an environment's messages and the policy's tokens, with the chat template: prompt and observations become tokens once, turns are read off tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from abruzzi.contracts.rollout import Ending, Segment, TokenSource
from abruzzi_jobs.rl.engine.enforcer import Enforcer
from abruzzi_jobs.rl.engine.protocol import Constraint
from abruzzi_jobs.rl.environments.environment import Message, Observation
from abruzzi_jobs.sft.conversation import read_conversation, read_observation
from abruzzi_jobs.sft.declarations import Style
from abruzzi_jobs.sft.template import ChatTemplate, MalformedTurn


@dataclass(frozen=True, slots=True)
class Turn:
    message: Message
    """As the environment gets it. One that does not follow the template has the text as `content`, no calls, and the reason by `malformed`."""
    is_last: bool
    """The policy ended the text, not only its turn."""


class Dialogue:
    """Prompts and observations that are no messages of a chat raise `sft.conversation.Malformed`."""

    def __init__(self, template: ChatTemplate, style: Style = "typescript", enforcer: Enforcer | None = None) -> None:
        """`enforcer`: calls are drawn by the tools' schemas."""
        self._template, self._style, self._enforcer = template, style, enforcer
        self.stop_tokens = frozenset({template.end, template.end_of_text})

    def prompt(self, first: Observation) -> tuple[Segment, list[Message]]:
        """With the messages in the form that the template renders."""
        conversation = read_conversation({"messages": list(first.messages), "tools": list(first.tools)})
        tokens = self._template.prompt(conversation, self._style)
        return Segment(source=TokenSource.PROMPT, tokens=tuple(tokens)), list(conversation.messages)

    def observed(self, observation: Observation) -> Segment:
        """From the end of the policy's turn to the beginning of its next one; where the observation restarts, another prompt."""
        if observation.restarts:
            return self.prompt(observation)[0]
        messages = [read_observation(number, message) for number, message in enumerate(observation.messages)]
        return Segment(source=TokenSource.ENVIRONMENT, tokens=tuple(self._template.continuation(messages)))

    def constraint(
        self, segments: Sequence[Segment], before: Iterable[Message], tools: Sequence[dict[str, Any]]
    ) -> Constraint | None:
        """Of what comes next in the policy's turn, part of which may be in `segments`. Raises AbruzziError unsupported_schema."""
        if self._enforcer is None or not tools:
            return None
        calls_before = sum(len(message.get("tool_calls", ())) for message in before)
        said = _turn_tokens(segments) if segments[-1].ending is not Ending.STOP else []
        return self._enforcer.turn(tools, calls_before=calls_before, said=said)

    def turn(self, segments: Sequence[Segment], before: Iterable[Message]) -> Turn:
        """The policy's last one, which has ended; `before`: the messages so far. Ids of calls need not be the next ones, only new:
        what a call that broke off counts for is nowhere said."""
        tokens = _turn_tokens(segments)
        closing = tokens.pop()
        used = {call["id"] for message in before for call in message.get("tool_calls", ())}
        try:
            message = self._template.read_turn([*tokens, self._template.end])
            if twice := [call["id"] for call in message.get("tool_calls", ()) if call["id"] in used]:
                raise MalformedTurn("bad_call_id", f"{twice[0]} is the id of an earlier call.")
        except MalformedTurn as error:
            message = {"role": "assistant", "content": self._template.shown(tokens), "malformed": error.reason}
        return Turn(message, is_last=closing == self._template.end_of_text)


def _turn_tokens(segments: Sequence[Segment]) -> list[int]:
    """What the policy has said since it was its turn."""
    tokens: list[int] = []
    for segment in reversed(segments):
        if segment.source is not TokenSource.POLICY:
            break
        tokens[:0] = segment.tokens
    return tokens
