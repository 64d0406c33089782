"""What a maker of tasks on real servers gives. Plans are not played here: the servers are started for that."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from abruzzi.contracts.agent import Difficulty, Fact
from abruzzi_jobs.sandbox.box import WORKSPACE

Call = tuple[str, str, dict[str, Any]]
"""(server, tool, arguments)."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What the platform asks a server once all is over."""

    text: str
    call: Call
    contains: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """`wishes` begin with a verb. `answers`: (what, a number, or the texts of which one has to be said)."""

    wishes: Sequence[str]
    facts: Sequence[Fact]
    calls: Sequence[Call]
    report: str
    answers: Sequence[tuple[str, float | tuple[str, ...]]] = ()
    probes: Sequence[Probe] = ()
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Maker:
    """`tools`: what the plan and the probes call."""

    tools: tuple[tuple[str, str], ...]
    difficulty: Difficulty
    make: Callable[[random.Random], Draft]


def given(name: str, value: object, text: str = "") -> Fact:
    return Fact(name=name, text=text or f"The {name} is {value}.", value=str(value))


def path(name: str) -> str:
    return f"{WORKSPACE}/{name}"
