"""Which dtype things have: compute copy, accumulation, master weights.

bfloat16 models hold bfloat16 parameters (float32 for the router), float32 gradient accumulators and float32 masters in the optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

RECOMPUTED = ("layernorm", "swiglu", "mla_up_projection", "moe_down_projection")
"""What a policy may name. `moe_down_projection` holds whether named or not: the routing weight is applied before that product, so that nothing needs its output."""


@dataclass(frozen=True, kw_only=True)
class MemoryPolicy:
    """A recipe's `[stage.memory]`; saved.py executes it."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    recompute: tuple[str, ...] = ()
    """Outputs that are discarded, and computed once more in backward."""
    fp8_activations: bool = False
    """Inputs of experts' up-projections and of SwiGLU are stored in FP8 tiles (fp8.py)."""
    offload_activations: bool = False
    """All that is stored goes to the host (host.py)."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MemoryPolicy:
        """Raises ValueError for what is not executed: a policy is never dropped silently."""
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(f"MemoryPolicy: unknown field {', '.join(unknown)}; there are {', '.join(sorted(names))}")
        given: dict[str, Any] = {**values, "recompute": tuple(values.get("recompute", ()))}
        policy = cls(**given)
        others = [name for name in policy.recompute if name not in RECOMPUTED]
        if others:
            raise ValueError(f"memory.recompute: {', '.join(others)} is none of {', '.join(RECOMPUTED)}")
        return policy

    @property
    def keeps_all(self) -> bool:
        return not (self.recompute or self.fp8_activations or self.offload_activations)

    @property
    def compute_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


def widened(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are. What sums and softmaxes are taken in."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
