"""A chat request's body, checked: what the engine is to do, or what is wrong with it. Pure, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SkipValidation,
    StrictBool,
    StrictInt,
    ValidationError,
    field_validator,
)

from abruzzi_jobs.sft.conversation import Conversation, Malformed, read_conversation

DEFAULT_MAX_TOKENS = 256


class BadRequest(Exception):
    """A sentence for the one who asked."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: str
    content: str


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    include_usage: StrictBool = False


class Asked(BaseModel):
    """Parameters of the protocol that are served. Unknown ones are passed over, as servers of the protocol do; those that would change
    the answer and are not served are refused."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    messages: tuple[_Message, ...] = Field(min_length=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: StrictInt = Field(default=DEFAULT_MAX_TOKENS, ge=1)
    stop: tuple[str, ...] = Field(default=(), max_length=16)
    seed: StrictInt | None = None
    logprobs: StrictBool = False
    top_logprobs: StrictInt = Field(default=0, ge=0, le=20)
    stream: StrictBool = False
    """Server-sent events, text as it comes."""
    stream_options: _StreamOptions | None = None
    conversation: SkipValidation[Conversation | None] = None
    """Messages and tools, where the model has a chat template."""

    @property
    def wants_usage(self) -> bool:
        """Of a stream, at its end."""
        return self.stream_options is not None and self.stream_options.include_usage

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return () if value is None else (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("an empty text cannot end an answer")
        return value


_NOT_SERVED = {
    "n": (None, 1),
    "response_format": (None, {"type": "text"}),
}


def read_asked(body: Any, *, has_template: bool = False) -> Asked:
    """`has_template`: the model was fine-tuned on chats, so it takes turns and tools. Raises BadRequest."""
    if not isinstance(body, Mapping):
        raise BadRequest("The body is no JSON object.")
    for name, served in _NOT_SERVED.items():
        if body.get(name) not in served:
            raise BadRequest(f"{name}: not served by this engine.")
    conversation: Conversation | None = None
    given = {name: value for name, value in body.items() if value is not None}
    if has_template:
        conversation = _conversation(body)
        given["messages"] = [{"role": m["role"], "content": m["content"]} for m in conversation.messages]
    elif body.get("tools"):
        raise BadRequest("tools: not served by this checkpoint, which was not fine-tuned on chats.")
    given["conversation"] = conversation  # never what a caller calls so
    if "max_completion_tokens" in given:
        given["max_tokens"] = given["max_completion_tokens"]
    try:
        return Asked.model_validate(given)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise BadRequest("; ".join(problems)) from error


def _conversation(body: Mapping[str, Any]) -> Conversation:
    try:
        read = read_conversation(body)
    except Malformed as error:
        raise BadRequest(f"messages: {error}. {error.hint}") from error
    forced = body.get("tool_choice")
    if forced not in (None, "auto", "none"):
        raise BadRequest("tool_choice: this engine leaves the choice to the model.")
    return Conversation(read.messages) if forced == "none" else read


def prompt_of(asked: Asked) -> str:
    """The text that the model goes on from: contents of the messages, a blank line between them.

    For a pre-trained checkpoint, which knows no turns; one that was fine-tuned on chats has a template.
    Tokens carry the space before a word, so one at the end would leave the next word without its own.
    """
    return "\n\n".join(message.content for message in asked.messages).rstrip(" ")
