"""The paper's own studies: what each found, and the claims that ours are held against. The words are data (findings.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from abruzzi.contracts.training import Strict

ClaimKind = Literal["lower", "higher", "same", "falls", "saving", "clipped", "inference"]


class Claim(Strict):
    says: str
    kind: ClaimKind
    of: str = ""
    """An arm, of which it is said …"""
    over: str = ""
    """… against this one, which stands before it among the arms."""
    published: float | None = None
    """The paper's figure, in per cent, where ours are held against it."""


class Finding(Strict):
    title: str
    section: str
    """Of the paper."""
    finding: str
    conditions: str
    """At what size and settings the paper found it."""
    published: str = "published"
    """Whose figures stand beside ours, where each arm has one."""
    claims: tuple[Claim, ...]


@cache
def findings() -> Mapping[str, Finding]:
    """{study: what the paper found}."""
    text = Path(__file__).with_name("findings.toml").read_text(encoding="utf-8")
    return {key: Finding.model_validate(table) for key, table in tomllib.loads(text).items()}
