"""What an executor is told about a node by whoever looks after nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from abruzzi.engine.view import Leave


@dataclass(frozen=True, slots=True)
class NodeWord:
    lost: str | None = None
    """A sentence: what ran there is given up, its pods are deleted without their kubelet."""
    leave: Leave | None = None
    """What runs there should save and go on elsewhere."""
    is_well: bool = False
    """It is known to answer."""


NodeWords = Callable[[str], NodeWord]
UNKNOWN = NodeWord()


def nothing_known(node: str) -> NodeWord:
    """Where nobody looks after nodes."""
    return UNKNOWN
