"""A step's gradients computed twice: on a sound machine they are the same, and what differs is silent corruption.

The field finds a corrupting machine about once a week or two at the size of such runs, by deterministic replay (reference/reliability.md, Gemini). A corrupted
step stops here before anything of it reaches the weights or another rank, and the attempt that follows avoids the node.
What both passes cannot see, a weight that was wrong before, checkpoint/seal.py does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.checkpoint.seal import CORRUPTION, bit_sum
from abruzzi_jobs.distributed import node_name

_NORM_TOLERANCE = 1e-3
"""Relative, on devices whose kernels add in no fixed order."""

Fingerprint = Mapping[str, int | float]


@torch.no_grad()
def fingerprint(gradients: Mapping[str, Tensor]) -> Fingerprint:
    """Of tensors by name. On a CPU the sums of their bits, which any one flipped bit changes; elsewhere their norms."""
    if not gradients:
        return {}
    if next(iter(gradients.values())).device.type == "cpu":
        found = [bit_sum(gradient) for gradient in gradients.values()]
    else:
        found = [torch.linalg.vector_norm(gradient) for gradient in gradients.values()]
    return dict(zip(gradients, torch.stack(found).tolist(), strict=True))


def refuse_difference(step: int, first: Fingerprint, again: Fingerprint) -> None:
    """Raises AbruzziError `corruption` (exit code 75: tried again on another node)."""
    differing = [name for name in first if not _alike(first[name], again.get(name))]
    if not differing and first.keys() == again.keys():
        return
    named = f"of {differing[0]} and {len(differing) - 1} others" if len(differing) > 1 else f"of {differing[0]}"
    raise AbruzziError(
        CORRUPTION,
        f"Step {step}: computed twice from the same weights and tokens, the gradients {named} differ. {node_name()} is suspected of silent corruption.",
        status=503,
        hint="Nothing of the step was used. The next attempt avoids the node; test its memory and its accelerators before others use it.",
    )


def _alike(one: float, other: float | None) -> bool:
    if other is None:
        return False
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    return math.isclose(one, other, rel_tol=_NORM_TOLERANCE) or (math.isnan(one) and math.isnan(other))
