"""state.json: everything beside the tensors that resumes training bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

STATE_FILE = "state.json"
VERSION = 1


class Stateful(Protocol):
    """A model or an optimizer: tensors by logical name."""

    def state_dict(self) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, slots=True)
class Held(Stateful):
    """States that have been taken already, from all ranks."""

    tensors: Mapping[str, Tensor]

    def state_dict(self) -> Mapping[str, Tensor]:
        return self.tensors


class Loading(Protocol):
    """A model that takes whole tensors by logical name, and says which were missing or unknown."""

    def load_state_dict(self, state_dict: Mapping[str, Any], /, *, strict: bool = True) -> Sequence[Sequence[str]]: ...


class LoadingOptimizer(Protocol):
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


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

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> TrainingState:
        """Raises OSError, ValueError, TypeError for a file that is not one of this version."""
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("version", None)
        if version != VERSION:
            raise ValueError(f"{STATE_FILE} has version {version}, this program reads {VERSION}")
        return cls(**content)
