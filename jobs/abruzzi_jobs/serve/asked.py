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

from abruzzi.contracts.graph import nearest
from abruzzi_jobs.sft.conversation import Conversation, Malformed, read_conversation

DEFAULT_MAX_TOKENS = 256
ANY = "*"
"""Of tools: no name, since names have no asterisk."""


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
    called: SkipValidation[str | None] = None
    """A tool must be called: this one, or `ANY`; None: as the model likes."""
    parallel_tool_calls: StrictBool = True
    answer_schema: SkipValidation[dict[str, Any] | None] = None
    """JSON Schema of the whole answer (`response_format`)."""

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


_NOT_SERVED = {"n": (None, 1)}


def read_asked(body: Any, *, has_template: bool = False) -> Asked:
    """`has_template`: the model was fine-tuned on chats, so it takes turns and tools. Raises BadRequest."""
    if not isinstance(body, Mapping):
        raise BadRequest("The body is no JSON object.")
    for name, served in _NOT_SERVED.items():
        if body.get(name) not in served:
            raise BadRequest(f"{name}: not served by this engine.")
    conversation: Conversation | None = None
    called: str | None = None
    given = {name: value for name, value in body.items() if value is not None}
    if has_template:
        conversation, called = _conversation(body)
        given["messages"] = [{"role": m["role"], "content": m["content"]} for m in conversation.messages]
    elif body.get("tools"):
        raise BadRequest("tools: not served by this checkpoint, which was not fine-tuned on chats.")
    # Never what a caller calls so.
    given |= {"conversation": conversation, "called": called, "answer_schema": _answer_schema(body, conversation)}
    if "max_completion_tokens" in given:
        given["max_tokens"] = given["max_completion_tokens"]
    try:
        return Asked.model_validate(given)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise BadRequest("; ".join(problems)) from error


def _conversation(body: Mapping[str, Any]) -> tuple[Conversation, str | None]:
    """With the tool that must be called."""
    try:
        read = read_conversation(body)
    except Malformed as error:
        raise BadRequest(f"messages: {error}. {error.hint}") from error
    names = [tool["name"] for tool in read.tools]
    match body.get("tool_choice"):
        case None | "auto":
            return read, None
        case "none":
            return Conversation(read.messages), None
        case "required" if names:
            return read, ANY
        case {"type": "function", "function": {"name": str(name)}} if name in names:
            return read, name
        case "required":
            raise BadRequest("tool_choice: required, but there are no tools.")
        case {"type": "function", "function": {"name": str(name)}}:
            raise BadRequest(f"tool_choice: there is no tool {name!r}. {nearest(name, names)}".strip())
    raise BadRequest('tool_choice: "none", "auto", "required", or {"type": "function", "function": {"name": …}}.')


def _answer_schema(body: Mapping[str, Any], conversation: Conversation | None) -> dict[str, Any] | None:
    match body.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            schema: dict[str, Any] = {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            pass
        case _:
            raise BadRequest(
                'response_format: {"type": "text"}, {"type": "json_object"}, or {"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}.'
            )
    if conversation is None:
        raise BadRequest("response_format: not served by this checkpoint, which was not fine-tuned on chats.")
    if conversation.tools:
        raise BadRequest('response_format: not beside tools; leave them out, or say tool_choice = "none".')
    return schema


def prompt_of(asked: Asked) -> str:
    """The text that the model goes on from: contents of the messages, a blank line between them.

    For a pre-trained checkpoint, which knows no turns; one that was fine-tuned on chats has a template.
    Tokens carry the space before a word, so one at the end would leave the next word without its own.
    """
    return "\n\n".join(message.content for message in asked.messages).rstrip(" ")
