"""Conversations in OpenAI's shape, brought into one form, or refused by name. Pure.

One form: contents are text; arguments are JSON objects written one way; call ids are `functions.NAME:COUNTER`, the counter running over the whole
conversation from 0 (paper appendix B), and results name them. What a template renders and reads back is this form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
CALL_ID = re.compile(r"functions\.([A-Za-z0-9_.-]{1,128}):([0-9]{1,9})")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Malformed(ValueError):
    """`reason` is a word to count by, `hint` what to do about it."""

    def __init__(self, reason: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.reason, self.hint = reason, hint


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    """{"name", "description", "parameters"} each."""

    def texts(self) -> Iterator[str]:
        """All that is said in it, calls and declarations too."""
        for tool in self.tools:
            yield f"{tool['name']} {tool['description']}"
        for message in self.messages:
            yield message["content"]
            for call in message.get("tool_calls", ()):
                yield call["function"]["arguments"]


def read_conversation(row: Mapping[str, Any]) -> Conversation:
    """From `messages` and `tools` of a row. Raises Malformed."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Malformed("no_messages", "there are no messages", "Give `messages`, a list of {role, content}.")
    reader = _Reader()
    return Conversation(tuple(reader.message(i, m) for i, m in enumerate(messages)), read_tools(row.get("tools") or ()))


def read_observation(number: int, found: Any) -> Message:
    """A message that follows an assistant's and is none: a result names its call by the one form's id. Raises Malformed."""
    role = found.get("role") if isinstance(found, dict) else None
    if role not in ROLES or role == "assistant":
        raise Malformed("unknown_role", f"message {number} has the role {role!r}", "Roles are system, user and tool.")
    made: Message = {"role": role}
    if role == "tool":
        given = found.get("tool_call_id")
        if not isinstance(given, str) or CALL_ID.fullmatch(given) is None:
            hint = "A tool message names by `tool_call_id` the id that the assistant gave its call: functions.NAME:COUNTER."
            raise Malformed("unknown_call", f"message {number} is the result of {given!r}", hint)
        made["tool_call_id"] = given
    made["content"] = _text(number, found.get("content"))
    return made


def read_tools(found: Any) -> tuple[dict[str, Any], ...]:
    """Of OpenAI's `{"type": "function", "function": {…}}`, or the inner tables alone. Raises Malformed."""
    hint = 'Declare a tool as {"name", "description", "parameters": JSON Schema}, or as OpenAI does.'
    if not isinstance(found, list | tuple):
        raise Malformed("bad_tools", "`tools` is no list", hint)
    tools = []
    for number, given in enumerate(found):
        tool = given.get("function", given) if isinstance(given, dict) else None
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(tool, dict) or not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Malformed("bad_tools", f"tool {number} has no usable name", hint)
        parameters = tool.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, dict):
            raise Malformed("bad_tools", f"the parameters of {name!r} are no JSON Schema", hint)
        read = {"name": name, "description": str(tool.get("description") or ""), "parameters": parameters}
        if not _is_writable(read):
            raise Malformed("bad_tools", f"the declaration of {name!r} cannot be written as JSON", hint)
        tools.append(read)
    return tuple(tools)


def compact(value: Any) -> str:
    """JSON in the one form in which models see it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def call_id(name: str, number: int) -> str:
    return f"functions.{name}:{number}"


class _Reader:
    """The calls so far, by the ids that the row gave them."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._count = 0

    def message(self, number: int, found: Any) -> Message:
        role = found.get("role") if isinstance(found, dict) else None
        if role not in ROLES:
            raise Malformed("unknown_role", f"message {number} has the role {role!r}", f"Roles are {', '.join(ROLES)}.")
        made: Message = {"role": role}
        if role == "tool":
            given = found.get("tool_call_id")
            if not isinstance(given, str) or given not in self._ids:
                raise Malformed(
                    "unknown_call",
                    f"message {number} is the result of {given!r}, which no assistant has called before it",
                    "Each tool message names by `tool_call_id` a call of an earlier assistant message.",
                )
            made["tool_call_id"] = self._ids[given]
        made["content"] = _text(number, found.get("content"))
        calls = found.get("tool_calls") or ()
        if calls and role != "assistant":
            raise Malformed("bad_call", f"message {number}: a {role} calls tools", "Only assistants call tools.")
        if not isinstance(calls, list | tuple):
            raise Malformed("bad_call", f"message {number} has `tool_calls` that are no list", "Write them as one.")
        if calls:
            made["tool_calls"] = [self._call(number, call) for call in calls]
        return made

    def _call(self, number: int, found: Any) -> dict[str, Any]:
        given = found.get("function") if isinstance(found, dict) else None
        function = given if isinstance(given, dict) else {}
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Malformed(
                "bad_call", f"message {number} calls a tool of the name {name!r}", "Names are letters, digits, `_.-`."
            )
        renamed = call_id(name, self._count)
        self._count += 1
        self._ids[str(found.get("id"))] = renamed
        arguments = arguments_object(function.get("arguments"))
        if arguments is None:
            raise Malformed(
                "bad_arguments", f"message {number}: the arguments of {name!r} are no JSON object", "Write them as one."
            )
        return {"id": renamed, "type": "function", "function": {"name": name, "arguments": compact(arguments)}}


def arguments_object(given: Any) -> dict[str, Any] | None:
    """Of a call, as a table or as the JSON text of one; None where they are neither."""
    if isinstance(given, str):
        try:
            given = json.loads(given or "{}")
        except (ValueError, RecursionError):
            return None
    return given if isinstance(given, dict) and _is_writable(given) else None


def _text(number: int, content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise Malformed(
            "unsupported_content", f"message {number} has content that is no text", "Contents are text, or text parts."
        )
    if not _is_writable(content):
        raise Malformed("not_unicode", f"message {number} has half of a surrogate pair", "Write whole characters.")
    return content


def _is_writable(value: Any) -> bool:
    """As JSON in UTF-8: no half of a surrogate pair, no infinity."""
    try:
        compact(value).encode()
    except (ValueError, TypeError, RecursionError):
        return False
    return True
