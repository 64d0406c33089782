"""What can go wrong with a call, and what follows.

- `CallRejected`: this question has no usable answer. A stage counts it by `reason` and goes on.
- `EndpointUnavailable`: nobody answers; the platform tries the stage again later (status 503).
- `EndpointRefused`: it answers, and will not serve us (key, model, path): a person must mend the recipe.
- `EndpointFailed`: it answers, with what is no chat completion, every time: a person must look.
- `BudgetReached`: the role has used up what the recipe gave it. Finished work is kept.

Inside, one try of a call ends in a `TryFailed`, whose `fate` says what is done about it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from abruzzi.contracts.errors import AbruzziError


class ChatFailure(AbruzziError):
    """Any end of a call but an answer."""


class CallRejected(ChatFailure):
    """`reason` is a word to count by: refused, too_long, timeout, truncated, garbage, unavailable, bad_arguments."""

    def __init__(self, reason: str, message: str, **facts: Any) -> None:
        super().__init__("call_rejected", message, status=422, **facts)
        self.reason = reason


class EndpointUnavailable(ChatFailure):
    def __init__(self, endpoint: str, message: str) -> None:
        super().__init__(
            "endpoint_unavailable",
            f"Endpoint {endpoint!r}: {message}",
            status=503,
            endpoint=endpoint,
            hint="Is it running, and can this machine reach it? Answers so far are kept; the stage goes on from them.",
        )


class EndpointRefused(ChatFailure):
    def __init__(self, endpoint: str, message: str, hint: str) -> None:
        super().__init__(
            "endpoint_refused", f"Endpoint {endpoint!r}: {message}", status=403, hint=hint, endpoint=endpoint
        )


class EndpointFailed(ChatFailure):
    def __init__(self, endpoint: str, message: str) -> None:
        super().__init__(
            "endpoint_failed",
            f"Endpoint {endpoint!r}: {message}",
            status=422,
            endpoint=endpoint,
            hint="Does base_url lead to a server that speaks OpenAI's chat completions? `abruzzi endpoints check RECIPE` asks it one question.",
        )


class BudgetReached(ChatFailure):
    def __init__(self, role: str, *, what: str, used: int, budget: int) -> None:
        super().__init__(
            "budget_reached",
            f"Role {role!r} has used {used:,} of its {budget:,} {what}.",
            status=402,
            hint=f"Raise stage.<id>.roles.{role}.budget_{what} and run again: finished work is kept, and answers are not asked for twice.",
        )


class Fate(StrEnum):
    RETRY = "retry"
    """Likely to pass: down, slow, overloaded, cut short, garbled."""
    REJECT = "reject"
    """The same question would fail the same way: too long for the model, an answer beyond all bounds."""
    STOP = "stop"
    """No question will be answered: wrong key, no such model."""


class TryFailed(Exception):
    """One try of a call."""

    def __init__(
        self, reason: str, message: str, fate: Fate, *, retry_after: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fate = fate
        self.retry_after = retry_after
        """Seconds that the server asks to be left alone."""
        self.hint = hint
