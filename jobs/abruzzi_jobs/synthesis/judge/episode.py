"""What the judge looks at: what was said, what was done, what became of the ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from abruzzi.contracts.agent import CallRecord, ProbeRecord
from abruzzi_jobs.synthesis.world import Snapshot


class Episode(Protocol):
    """`messages` as the protocol has them, the system's first. `before` and `after`: of a world. `probes`: of real servers."""

    @property
    def messages(self) -> Sequence[dict[str, Any]]: ...

    @property
    def calls(self) -> Sequence[CallRecord]: ...

    @property
    def before(self) -> Snapshot | None: ...

    @property
    def after(self) -> Snapshot | None: ...

    @property
    def probes(self) -> Sequence[ProbeRecord]: ...


@dataclass(frozen=True, kw_only=True)
class Played:
    """An episode that lies ready."""

    messages: Sequence[dict[str, Any]] = ()
    calls: Sequence[CallRecord] = ()
    before: Snapshot | None = None
    after: Snapshot | None = None
    probes: Sequence[ProbeRecord] = ()


def told(messages: Sequence[dict[str, Any]]) -> str:
    """What the agent said to the user after its first call of a tool; all that it said where it called none."""
    calling = [number for number, message in enumerate(messages) if message.get("tool_calls")]
    begin = calling[0] if calling else 0
    said = [str(m.get("content") or "") for m in messages[begin:] if m.get("role") == "assistant"]
    return "\n".join(text for text in said if text)
