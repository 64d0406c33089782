"""Which dtype things have: compute copy, accumulation, master weights.

bfloat16 models hold bfloat16 parameters (float32 for the router), float32 gradient accumulators and float32 masters in the optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MemoryPolicy:
    """A recipe's `[stage.memory]`. Norms and SwiGLU are always recomputed in backward; the rest of the list needs GPU-sized models."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    recompute: tuple[str, ...] = ()
    fp8_activations: bool = False
    offload_activations: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MemoryPolicy:
        """Raises ValueError for what this version does not execute: a policy is never dropped silently."""
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(f"MemoryPolicy: unknown field {', '.join(unknown)}; there are {', '.join(sorted(names))}")
        given: dict[str, Any] = {**values, "recompute": tuple(values.get("recompute", ()))}
        policy = cls(**given)
        later = [name for name in policy.recompute if name not in ("layernorm", "swiglu")]
        if later:
            raise ValueError(
                f"memory.recompute: {', '.join(later)} is not executed by this version; it always recomputes layernorm and swiglu"
            )
        for name in ("fp8_activations", "offload_activations"):
            if getattr(policy, name):
                raise ValueError(f"memory.{name}: not executed by this version; leave it false")
        return policy

    @property
    def compute_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


def widened(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are. What sums and softmaxes are taken in."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
