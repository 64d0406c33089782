"""Optimizer step: our batched Muon against torch.optim.Muon, which takes its matrices one by one.

96 experts of K2's aspect (128×448), and 64 square matrices of 256×256. The square case states its limit: the time of the bare matrix
products of five plain iterations in the same precision, batched, which no scheduling can beat.
Both do the same work: momentum, five iterations, RMS-matched update, weight decay. torch.optim.Muon computes Newton-Schulz in bfloat16
always; ours is measured at its default (bfloat16 where the CPU multiplies it, as it says in the result), with float32 stated beside it.
Where the CPU has bfloat16 units the same is measured once more with oneDNN told not to use them, and ours at what it chooses there (float32):
the figure of a machine without them.

    python bench/optimizer_step.py --out optimizer_step.json

On one GPU, with torch and numpy alone, and with six matrices of K2's experts' true shape beside the others:

    PYTHONPATH=jobs:bench python bench/optimizer_step.py --device cuda --out gpu_optimizer_step.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleaved import interleaved_seconds, machine, report, summary
from torch import nn

from abruzzi_jobs.models import ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.optim.newton_schulz import Precision, compute_dtype

TARGET = 3.0
MODEL = ModelConfig(
    vocab_size=8,
    hidden_size=8,
    num_layers=1,
    num_heads=1,
    q_lora_rank=8,
    kv_lora_rank=8,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
    intermediate_size=8,
    moe_intermediate_size=8,
    num_experts=8,
    num_experts_per_token=1,
)
"""Only split rules read it, and expert tensors have none."""


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    is_cuda = arguments.device == "cuda"
    result: dict[str, Any] = {
        "bench": "optimizer_step",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if is_cuda else "cpu",
        "machine": machine(threads=arguments.threads),
        "experts_128x448": _compare(96, 128, 448, arguments),
        "square_256x256": _compare(64, 256, 256, arguments),
        "target_speedup_experts": TARGET,
    }
    if is_cuda:
        result["k2_experts_7168x2048"] = _compare(6, 7168, 2048, arguments)
    elif arguments.precision == "auto" and compute_dtype(torch.zeros(()), "auto") == torch.bfloat16:
        result["without_bfloat16_units"] = _without_bfloat16_units(arguments)
    result["ok"] = result["experts_128x448"]["speedup"] >= TARGET
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def _without_bfloat16_units(arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--precision", "float32", "--rounds", "7", "--threads", str(arguments.threads)]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
    child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    found = json.loads(child.stdout)
    return {name: found[name] for name in ("experts_128x448", "square_256x256")}


def _compare(count: int, rows: int, cols: int, arguments: argparse.Namespace) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(count, rows, cols, generator=generator) * 0.02).to(arguments.device)
    gradient = torch.randn(count, rows, cols, generator=generator).to(arguments.device)
    candidates = {
        "ours": _ours(weight.clone(), gradient, arguments.precision),
        "ours_float32": _ours(weight.clone(), gradient, "float32"),
        "torch": _torch(weight.clone(), gradient),
        "matmul_limit": _matmul_limit(weight, compute_dtype(weight, arguments.precision)),
    }
    seconds = interleaved_seconds(candidates, rounds=arguments.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "matrices": count,
        "shape": [rows, cols],
        "precision": str(compute_dtype(weight, arguments.precision)).removeprefix("torch."),
        **{name: summary(values) for name, values in seconds.items()},
        "speedup": medians["torch"] / medians["ours"],
        "speedup_float32": medians["torch"] / medians["ours_float32"],
        "matmul_limit_over_ours": medians["matmul_limit"] / medians["ours"],
    }


def _ours(weight: torch.Tensor, gradient: torch.Tensor, precision: Precision) -> Callable[[], None]:
    parameter = nn.Parameter(weight)
    parameter.grad = gradient.clone()
    optimizer = build_optimizer(
        [("layers.1.mlp.experts.down_proj", parameter)], OptimizerConfig(newton_schulz_precision=precision), model=MODEL
    )
    return lambda: optimizer.step()


def _torch(weight: torch.Tensor, gradient: torch.Tensor) -> Callable[[], None]:
    parameters = [nn.Parameter(matrix) for matrix in weight]
    for parameter, part in zip(parameters, gradient, strict=True):
        parameter.grad = part.clone()
    optimizer = torch.optim.Muon(
        parameters, lr=2e-3, weight_decay=0.1, momentum=0.95, nesterov=False, adjust_lr_fn="match_rms_adamw"
    )
    return lambda: optimizer.step()


def _matmul_limit(weight: torch.Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """The products of five plain iterations, nothing else: XXᵀ, AA, (bA + cA²)X, on the shorter side."""
    wide = weight if weight.shape[1] <= weight.shape[2] else weight.transpose(1, 2)
    x = torch.randn(wide.shape, device=weight.device).to(dtype)
    a = torch.randn(*wide.shape[:2], wide.shape[1], device=weight.device).to(dtype)

    def run() -> None:
        for _ in range(5):
            torch.bmm(x, x.transpose(1, 2))
            torch.bmm(a, a)
            torch.bmm(a, x)

    return run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto", help="of ours")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
