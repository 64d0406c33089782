"""The optimizer's configuration: the fields of a recipe's `[stage.optimizer]` table, without pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """MuonClip (paper section 2.1). Same names as `abruzzi.contracts.training.OptimizerConfig`."""

    kind: Literal["muonclip", "muon", "adamw"] = "muonclip"
    peak_lr: float = 2e-3
    adamw_lr: float | None = None
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = False
    newton_schulz_steps: int = 5
    newton_schulz_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    muon_split: Literal["matrix", "head"] = "matrix"
    qk_clip_threshold: float = 100.0
    qk_clip_alpha: float = 0.5
    adam_betas: tuple[float, float] = (0.9, 0.95)
    adam_eps: float = 1e-8
    max_grad_norm: float | None = 1.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OptimizerConfig:
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(
                f"OptimizerConfig: unknown field {', '.join(unknown)}; there are {', '.join(sorted(names))}"
            )
        known = dict(values)
        if "adam_betas" in known:
            known["adam_betas"] = tuple(known["adam_betas"])
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
