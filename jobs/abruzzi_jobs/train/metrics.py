"""A step's numbers under their public keys."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from abruzzi_jobs.distributed.zero1 import ShardedMuonClip
from abruzzi_jobs.optim import MuonClip
from abruzzi_jobs.train.trainer import StepResult
from abruzzi_jobs.train.update import UpdateResult


def step_metrics(
    result: StepResult, *, lr: float, tokens: int, seconds: float, tokens_per_second: float
) -> dict[str, float]:
    return {
        "train/loss": result.loss,
        "train/bits_per_byte": result.bits_per_byte,
        "train/aux_loss": result.aux_loss,
        "train/lr": lr,
        "train/tokens": float(tokens),
        "train/step_seconds": seconds,
        "train/tokens_per_second": tokens_per_second,
        **weight_metrics(result),
    }


def weight_metrics(result: UpdateResult) -> dict[str, float]:
    """Per layer: the largest attention logit, and the busiest expert's load over the mean."""
    found: dict[str, float] = {
        "train/grad_norm": result.grad_norm,
        "train/clipped_heads": float(result.clip.clipped_heads),
        "train/qk_clip_gamma_min": float(result.clip.gamma_min),
    }
    maxima = result.max_logit_YH.amax(dim=1).tolist()
    found["train/max_logit"] = max(maxima)
    for layer, value in enumerate(maxima):
        found[f"train/max_logit/layer.{layer:02d}"] = value
    if result.expert_counts_ME.numel():
        counts_ME = result.expert_counts_ME.to(torch.float32)
        loads = (counts_ME.amax(dim=1) / counts_ME.mean(dim=1).clamp(min=1e-9)).tolist()
        first = len(maxima) - len(loads)
        for index, load in enumerate(loads):
            found[f"train/expert_load/layer.{first + index:02d}"] = load
    return found


def rank_metrics(rank_seconds: Sequence[float]) -> dict[str, float]:
    """What ranks computed before they waited for each other: where the slowest lies above the median, it holds the others up."""
    if len(rank_seconds) < 2 or not all(rank_seconds):
        return {}
    return {
        "train/rank_seconds/median": statistics.median(rank_seconds),
        "train/rank_seconds/slowest": max(rank_seconds),
    }


def update_metrics(optimizer: MuonClip | ShardedMuonClip) -> dict[str, float]:
    """RMS of the last measured update by group; Muon's is about 0.2 by construction (RMS match)."""
    statistics = optimizer.statistics()
    found = {
        "train/update_rms/muon": statistics.update_rms_muon,
        "train/update_rms/adamw": statistics.update_rms_adamw,
    }
    return {key: value for key, value in found.items() if value is not None}


def spectral_metrics(optimizer: MuonClip | ShardedMuonClip) -> dict[str, float]:
    """Spectral norms and singular-value entropy of W_q and W_k (paper appendix E)."""
    found: dict[str, float] = {}
    for layer, sides in optimizer.spectra().items():
        for side, spectrum in sides.items():
            found[f"train/spectral_norm/layer.{layer:02d}.{side}"] = spectrum.spectral_norm
            found[f"train/sv_entropy/layer.{layer:02d}.{side}"] = spectrum.singular_value_entropy
    return found
