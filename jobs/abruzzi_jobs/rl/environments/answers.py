"""What a policy said, as rewards read it; and what a reward says of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from abruzzi.contracts.rollout import Outcome, Status

_STATED = re.compile(r"(?:^|\n|\s)answer\s*[:=]\s*(\S[^\n]*)", re.IGNORECASE)


def last_said(messages: Sequence[dict[str, Any]]) -> str:
    """The last message of the policy, '' where it said nothing."""
    return next((str(m.get("content") or "") for m in reversed(messages) if m.get("role") == "assistant"), "").strip()


def stated_answer(text: str) -> str:
    """What stands behind the last `Answer:`; without one, the last line."""
    stated = _STATED.findall(text)
    lines = [line for line in text.splitlines() if line.strip()]
    found = stated[-1] if stated else (lines[-1] if lines else "")
    return found.strip().rstrip(".").strip()


def scored(reference: str, reward: float, *, detail: str = "", **components: float) -> Outcome:
    return Outcome(status=Status.OK, reward=reward, components=components, version=reference, detail=detail)


def as_user(text: str, *, system: str = "") -> tuple[dict[str, Any], ...]:
    asked: Iterable[dict[str, Any]] = ({"role": "user", "content": text},)
    return ({"role": "system", "content": system}, *asked) if system else tuple(asked)


def as_assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}
