"""state.json: everything beside the tensors that resumes training bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import Tensor

from abruzzi_jobs.distributed.whole import Part, WholeModel, WholeOptimizer, whole_parts

STATE_FILE = "state.json"
VERSION = 1


class Stateful(Protocol):
    """A model or an optimizer: tensors by logical name, which share memory with it."""

    def state_dict(self) -> Mapping[str, Tensor]: ...


def parts_of(of: Stateful | WholeModel | WholeOptimizer) -> list[Part]:
    """What this rank saves."""
    return of.parts() if isinstance(of, WholeModel | WholeOptimizer) else whole_parts(of.state_dict())


def targets_of(of: Stateful | WholeModel | WholeOptimizer) -> list[Part]:
    """What this rank takes from a checkpoint; they are filled in place."""
    return of.targets() if isinstance(of, WholeModel | WholeOptimizer) else whole_parts(of.state_dict())


def resident_of(of: Stateful | WholeModel | WholeOptimizer) -> list[Part]:
    """All that this rank computes with, also what others save."""
    return of.resident() if isinstance(of, WholeModel | WholeOptimizer) else whole_parts(of.state_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    step: int
    """Steps done."""
    tokens: int
    """Trained on so far, over all ranks."""
    phase: str
    """Of the schedule, at this step."""
    lr_scale: float
    """Share of the peak rate that this step was made with."""
    loader: Mapping[str, Any]
    divergence: Mapping[str, Any]
    config: Mapping[str, Any]
    """The stage's resolved table."""
    random: Sequence[str] = field(default_factory=tuple)
    """Random states (abruzzi_jobs.checkpoint.randomness), one a rank."""
    loss: float | None = None
    valid_loss: float | None = None

    def to_bytes(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> TrainingState:
        """Raises ValueError, TypeError for what is not one of this version."""
        content = json.loads(text)
        version = content.pop("version", None)
        if version != VERSION:
            raise ValueError(f"{STATE_FILE} has version {version}, this program reads {VERSION}")
        return cls(**content)
