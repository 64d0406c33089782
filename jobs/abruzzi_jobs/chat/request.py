"""What is asked and what comes back, in the protocol's own shapes: messages and tools are the dictionaries of OpenAI's chat completions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from abruzzi_jobs.chat.failures import CallRejected

Message = Mapping[str, Any]
STANDIN_GENERATOR = "standin-rule-v1"
BYTES_PER_TOKEN = 4
"""Where nobody has counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One question. What is None is left to the role's settings, then to the server."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    """None: drawn from the stage's seed, the role and the question, so that the same question is asked the same way again."""
    logprobs: int | None = None
    """None: no log-probabilities. N: of each token of the answer, with its N likeliest rivals (0: none of them)."""
    response_format: Mapping[str, Any] | None = None
    sample: int = 0
    """Which answer of several to the same question; other samples get other seeds, and other places in the cache."""

    def body(self) -> dict[str, Any]:
        """Keys of the protocol that are set; all but the model."""
        found: dict[str, Any] = {"messages": list(self.messages)}
        for name in ("temperature", "top_p", "max_tokens", "seed", "response_format"):
            value = getattr(self, name)
            if value is not None:
                found[name] = value
        if self.tools:
            found["tools"] = list(self.tools)
            if self.tool_choice is not None:
                found["tool_choice"] = self.tool_choice
        if self.stop:
            found["stop"] = list(self.stop)
        if self.logprobs is not None:
            found["logprobs"] = True
            if self.logprobs:
                found["top_logprobs"] = self.logprobs
        return found


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str
    """As the model wrote them: meant to be a JSON object, and not always one."""

    def parsed(self) -> dict[str, Any]:
        """Raises CallRejected `bad_arguments` where they are no JSON object."""
        try:
            found = json.loads(self.arguments or "{}")
        except ValueError as error:
            raise CallRejected("bad_arguments", f"The arguments of {self.name!r} are no JSON ({error}).") from error
        if not isinstance(found, dict):
            raise CallRejected("bad_arguments", f"The arguments of {self.name!r} are no JSON object.")
        return found

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the server counted them; `is_estimated` where it did not say, at four bytes a token."""

    prompt_tokens: int
    completion_tokens: int
    is_estimated: bool = False

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatResponse:
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    """What a thinking model said to itself, where the server gives it apart."""
    finish_reason: str = "stop"
    """"stop", "length" (cut at max_tokens), "tool_calls" or the server's own word."""
    logprobs: Sequence[Mapping[str, Any]] | None = None
    """A token each: {"token", "logprob", "bytes", "top_logprobs"}, as the server gave them."""
    usage: Usage
    model: str
    generator: str
    """The model; of the stand-in `standin-rule-v1`."""
    is_llm: bool
    seconds: float = 0.0
    """From the first try to the answer, without waiting for limits."""
    tries: int = 1
    is_cached: bool = False
    call_id: str = ""
    """Of its record: the hash of role, endpoint, question and sample."""

    def message(self) -> dict[str, Any]:
        """The assistant's turn, to go on with the conversation."""
        turn: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            turn["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        return turn

    def as_dict(self) -> dict[str, Any]:
        """For a record; `from_dict` reads it back."""
        found: dict[str, Any] = {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": [self.usage.prompt_tokens, self.usage.completion_tokens, self.usage.is_estimated],
            "model": self.model,
            "generator": self.generator,
            "is_llm": self.is_llm,
        }
        if self.tool_calls:
            found["tool_calls"] = [[call.id, call.name, call.arguments] for call in self.tool_calls]
        if self.reasoning is not None:
            found["reasoning"] = self.reasoning
        if self.logprobs is not None:
            found["logprobs"] = self.logprobs
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], *, call_id: str) -> ChatResponse:
        """An answer out of a record: `is_cached`."""
        return cls(
            text=found["text"],
            tool_calls=tuple(ToolCall(*call) for call in found.get("tool_calls", ())),
            reasoning=found.get("reasoning"),
            finish_reason=found["finish_reason"],
            logprobs=found.get("logprobs"),
            usage=Usage(*found["usage"]),
            model=found["model"],
            generator=found["generator"],
            is_llm=found["is_llm"],
            is_cached=True,
            call_id=call_id,
        )


class ChatBackend(Protocol):
    """What stages ask. Raises CallRejected where this question has no usable answer (count it, go on), any other ChatFailure where there
    is no point in going on."""

    async def complete(self, request: ChatRequest) -> ChatResponse: ...


def content_hash(*parts: Any) -> str:
    """Hex SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def with_seed(request: ChatRequest, *salt: Any) -> ChatRequest:
    """The request with a seed that depends on nothing but `salt` and itself. Given seeds stay."""
    if request.seed is not None:
        return request
    drawn = content_hash(*salt, request.body(), request.sample)
    return replace(request, seed=int(drawn[:8], 16) & 0x7FFFFFFF)
