"""Which optimizer owns which parameter, from its name: the one place that decides.

Muon takes every matrix inside the layers, the router's included, and each expert by itself; AdamW takes embedding, head and norms.
A parameter may hold several matrices (experts, gate and up halves, heads): `view` splits it without copying.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor

from abruzzi_jobs.models.config import DecoderConfig, LlamaConfig
from abruzzi_jobs.optim.config import OptimizerConfig

Kind = Literal["muon", "adamw"]
Split = Literal["whole", "halves", "experts", "expert_halves", "heads"]

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


@dataclass(frozen=True)
class ParameterPlan:
    """One parameter. `num_matrices` matrices of `rows` × `cols`; zeros under AdamW."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    split: Split = "whole"
    num_matrices: int = 0
    rows: int = 0
    cols: int = 0

    def view(self, tensor: Tensor) -> Tensor:
        """The parameter (or its gradient, or its state) as [num_matrices, rows, cols], sharing memory."""
        return tensor.view(self.num_matrices, self.rows, self.cols)


def plan_parameters(
    shapes: Mapping[str, tuple[int, ...]], config: OptimizerConfig, *, model: DecoderConfig
) -> list[ParameterPlan]:
    """A plan for every name, in the given order. A parameter that no rule knows is an error: no matrix is left to AdamW by accident."""
    return [_plan_one(name, tuple(shape), config, model) for name, shape in shapes.items()]


def layer_of(name: str) -> int | None:
    """The layer's number in a logical name; None outside the layers."""
    match = _LAYER.search(name)
    return int(match.group(1)) if match else None


def count_matrices(plans: Iterable[ParameterPlan]) -> int:
    return sum(plan.num_matrices for plan in plans)


def _plan_one(name: str, shape: tuple[int, ...], config: OptimizerConfig, model: DecoderConfig) -> ParameterPlan:
    if config.kind == "adamw" or len(shape) == 1 or layer_of(name) is None:
        return ParameterPlan(name=name, kind="adamw", shape=shape)
    split, matrices = _split_of(name, shape, config, model)
    if len(shape) not in (2, 3) or shape[-2] * (shape[0] if len(shape) == 3 else 1) % matrices:
        raise ValueError(f"{name}: shape {shape} cannot be split into {matrices} matrices; add a rule in optim/plan.py")
    rows = shape[-2] * (shape[0] if len(shape) == 3 else 1) // matrices
    return ParameterPlan(
        name=name, kind="muon", shape=shape, split=split, num_matrices=matrices, rows=rows, cols=shape[-1]
    )


def _split_of(name: str, shape: tuple[int, ...], config: OptimizerConfig, model: DecoderConfig) -> tuple[Split, int]:
    if len(shape) == 3:
        return ("expert_halves", 2 * shape[0]) if name.endswith("gate_up_proj") else ("experts", shape[0])
    if name.endswith("gate_up_proj.weight"):
        return "halves", 2
    if config.muon_split == "head" and name.endswith(("q_b_proj.weight", "kv_b_proj.weight", ".q_proj.weight")):
        return "heads", model.num_heads
    if config.muon_split == "head" and name.endswith((".k_proj.weight", ".v_proj.weight")):
        return "heads", cast(LlamaConfig, model).num_kv_heads
    return "whole", 1
