"""Calls of tools in answers: those that the protocol carries, or a JSON array of them in the text of a target without tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from abruzzi_jobs.evals.suites.suite import Transcript

FORM = (
    'Answer with a JSON array of the calls to make and nothing else, such as [{"name": "f", "arguments": {"a": 1}}]; '
    "with [] where none of the functions serves, or what they need is not told."
)
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST = 1 << 20


class Call(NamedTuple):
    name: str
    arguments: dict[str, Any]


def sendable(name: str) -> str:
    """A function's name as chat protocols take it: `math.factorial` is sent as `math_factorial`."""
    return _UNNAMEABLE.sub("_", name)[:64]


def made(message: Mapping[str, Any], names: Iterable[str] = ()) -> list[Call] | None:
    """The calls of an assistant's message under their owner's names; None where one cannot be read. Calls in its text count where it makes no others."""
    own = {sendable(name): name for name in names}
    carried = message.get("tool_calls") or ()
    if carried:
        found = [_read(call["function"]["name"], call["function"]["arguments"]) for call in carried]
    else:
        found = [_read(call.get("name"), call.get("arguments")) for call in _written(str(message.get("content") or ""))]
    if any(call is None for call in found):
        return None
    return [Call(own.get(call.name, call.name), call.arguments) for call in found if call is not None]


def last_message(transcript: Transcript) -> Mapping[str, Any]:
    """What the target said last; its answer alone where there is no conversation."""
    if transcript.messages:
        return transcript.messages[-1]
    return {"role": "assistant", "content": transcript.answer}


def written(calls: Sequence[Call]) -> str:
    return json.dumps([{"name": call.name, "arguments": call.arguments} for call in calls], ensure_ascii=False)


def _written(text: str) -> list[dict[str, Any]]:
    begin, end = text.find("["), text.rfind("]")
    if not 0 <= begin < end or end - begin > _LONGEST:
        return []
    try:
        found = json.loads(text[begin : end + 1])
    except (ValueError, RecursionError):
        return []
    return [call for call in found if isinstance(call, dict)] if isinstance(found, list) else []


def _read(name: Any, arguments: Any) -> Call | None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return None
    return Call(name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None
