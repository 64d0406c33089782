"""Reading what a server sent: a chat completion, or a TryFailed that says what is wrong and what follows. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from abruzzi_jobs.chat.failures import Fate, TryFailed
from abruzzi_jobs.chat.request import BYTES_PER_TOKEN, STANDIN_GENERATOR, ChatRequest, ChatResponse, ToolCall, Usage

_EXCERPT = 300
_LONGEST_WAIT_SECONDS = 3600.0


def read_completion(content: bytes, request: ChatRequest, *, model: str) -> ChatResponse:
    """The answer in a body of status 200. Raises TryFailed `truncated` or `garbage`."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        if _breaks_off(content):
            raise TryFailed("truncated", f"its answer breaks off after {len(content):,} bytes", Fate.RETRY) from error
        raise TryFailed("garbage", f"its answer is no JSON: {excerpt(content)}", Fate.RETRY) from error
    try:
        choice = found["choices"][0]
        message = choice["message"]
        text = message.get("content")
        calls = tuple(_tool_call(call) for call in message.get("tool_calls") or ())
        if text is None:
            text = ""
        if not isinstance(text, str):
            raise TypeError("content is no text")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        logprobs = (choice.get("logprobs") or {}).get("content") if request.logprobs is not None else None
        if logprobs is not None and not isinstance(logprobs, list):
            raise TypeError("logprobs.content is no list")
        usage = _usage(found.get("usage"), request, text, calls)
        is_llm = found.get("system_fingerprint") != STANDIN_GENERATOR
        said = found.get("model")
        name = said if isinstance(said, str) and said else model
        return ChatResponse(
            text=text,
            tool_calls=calls,
            reasoning=reasoning if isinstance(reasoning, str) else None,
            finish_reason=str(choice.get("finish_reason") or "stop"),
            logprobs=logprobs,
            usage=usage,
            model=name,
            generator=name if is_llm else STANDIN_GENERATOR,
            is_llm=is_llm,
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if isinstance(found, dict) and isinstance(found.get("error"), dict | str):
            # Some proxies tell errors with status 200.
            raise TryFailed("garbage", f"it answers with an error: {excerpt(content)}", Fate.RETRY) from error
        raise TryFailed(
            "garbage", f"its answer is no chat completion ({error}): {excerpt(content)}", Fate.RETRY
        ) from error


def failure_of_status(status: int, headers: Mapping[str, str], content: bytes, *, now: datetime) -> TryFailed:
    """What a status other than 200 means."""
    said = excerpt(content)
    if status in (401, 403):
        return TryFailed(
            "refused",
            f"it does not take our key (HTTP {status}): {said}",
            Fate.STOP,
            hint="Check api_key in the recipe, and the ABRUZZI_SECRET_… variable that it names.",
        )
    if status in (402, 404, 405):
        return TryFailed(
            "refused",
            f"HTTP {status}: {said}",
            Fate.STOP,
            hint="Check base_url (it ends before /chat/completions, often in /v1), model, and the account.",
        )
    if 300 <= status < 400:
        return TryFailed(
            "refused",
            f"it sends us elsewhere (HTTP {status}); a key is not taken to another address",
            Fate.STOP,
            hint=f"Write the address into base_url: {headers.get('Location', 'none was given').split('?')[0]}",
        )
    if status in (408, 409, 425, 429) or status >= 500:
        reason = {408: "timeout", 429: "rate_limited"}.get(status, "unavailable")
        return TryFailed(
            reason, f"HTTP {status}: {said}", Fate.RETRY, retry_after=retry_after(headers.get("Retry-After"), now)
        )
    return TryFailed("refused", f"it refuses the question (HTTP {status}): {said}", Fate.REJECT)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds of a Retry-After header, a number or a date; None where there is none that can be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS) if seconds == seconds else None


def estimated_tokens(request: ChatRequest) -> int:
    """What a call may need at most, as far as one can tell before it is made: its prompt at four bytes a token, and max_tokens."""
    size = sum(len(str(m.get("content") or "")) for m in request.messages)
    size += sum(len(json.dumps(tool)) for tool in request.tools)
    return size // BYTES_PER_TOKEN + 1 + (request.max_tokens or 256)


def excerpt(content: bytes) -> str:
    """One line for an error."""
    text = " ".join(content[: 4 * _EXCERPT].decode("utf-8", "replace").split())
    return f"{text[:_EXCERPT]}…" if len(text) > _EXCERPT else text or "(nothing)"


def _breaks_off(content: bytes) -> bool:
    """Whether it begins as JSON and its end is missing, rather than being something else."""
    start = content.lstrip()[:1]
    return start == b"" or (start in (b"{", b"[") and content.rstrip()[-1:] not in (b"}", b"]"))


def _tool_call(found: Any) -> ToolCall:
    function = found["function"]
    name, arguments = function["name"], function.get("arguments", "")
    if not isinstance(name, str):
        raise TypeError("a tool call without a name")
    if not isinstance(arguments, str):  # some servers parse them
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(str(found.get("id") or ""), name, arguments)


def _usage(found: Any, request: ChatRequest, text: str, calls: tuple[ToolCall, ...]) -> Usage:
    if isinstance(found, dict):
        counts = found.get("prompt_tokens"), found.get("completion_tokens")
        if all(isinstance(count, int) and count >= 0 for count in counts):
            return Usage(*counts)  # type: ignore[arg-type]
    said = len(text.encode()) + sum(len(c.arguments.encode()) for c in calls)
    asked = sum(len(str(m.get("content") or "").encode()) for m in request.messages)
    return Usage(asked // BYTES_PER_TOKEN + 1, said // BYTES_PER_TOKEN + 1, is_estimated=True)
