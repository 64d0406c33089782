"""Training step on one GPU in bfloat16: tokens a second, model FLOP/s, peak memory, and what the optimizer takes of it.

`packed`: rows of several documents, as the trainer always passes them. `plain`: rows of one. Both by flex attention.

Needs torch and numpy only, so it runs on a bare GPU machine:

    PYTHONPATH=jobs python bench/gpu/train_step.py --out gpu.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import MuonClip, OptimizerConfig, build_optimizer

MODEL = ModelConfig(
    vocab_size=32768,
    hidden_size=1024,
    num_layers=8,
    num_heads=8,
    q_lora_rank=512,
    kv_lora_rank=256,
    qk_nope_head_dim=64,
    qk_rope_head_dim=32,
    v_head_dim=64,
    intermediate_size=2816,
    moe_intermediate_size=512,
    num_experts=32,
    num_experts_per_token=4,
    max_position=2048,
)

DOCUMENTS_A_ROW = 4
WARM_UP = 3
PARTS = ("forward", "backward", "optimizer", "step")


def main() -> int:
    arguments = _arguments()
    if not torch.cuda.is_available():
        sys.stdout.write(json.dumps({"bench": "gpu_train_step", "skipped": "no CUDA device"}) + "\n")
        return 0
    result = measure(
        MODEL, device="cuda", sequences=arguments.sequences, length=arguments.length, rounds=arguments.rounds
    )
    text = json.dumps(result, indent=2)
    sys.stdout.write(text + "\n")
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    return 0


def measure(config: ModelConfig, *, device: str, sequences: int, length: int, rounds: int) -> dict[str, Any]:
    """Both ways of attention, step by step in turn, on one model: what the trainer takes, and what it could have without packing."""
    model = KimiK2(config, seed=0, device=device, dtype=torch.bfloat16)
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(), model=config)
    tokens = torch.randint(0, config.vocab_size, (sequences, length + 1), device=device)
    documents = torch.arange(length, device=device).div(max(1, length // DOCUMENTS_A_ROW), rounding_mode="floor")
    segments: dict[str, Tensor | None] = {"packed": documents.to(torch.int32).expand(sequences, -1), "plain": None}
    seconds: dict[str, dict[str, list[float]]] = {name: {part: [] for part in PARTS} for name in segments}
    peak_bytes = dict.fromkeys(segments, 0)
    load = os.getloadavg()[0]
    for index in range(rounds + WARM_UP):
        for name, segments_BL in segments.items():
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            marks = _step(model, optimizer, tokens, segments_BL, device)
            if device == "cuda":
                peak_bytes[name] = max(peak_bytes[name], torch.cuda.max_memory_allocated())
            if index >= WARM_UP:
                for part, first, last in zip(PARTS, (0, 1, 2, 0), (1, 2, 3, 3), strict=True):
                    seconds[name][part].append(marks[last] - marks[first])
    flops = _flops_per_token(config, length)
    ways = {}
    for name, parts in seconds.items():
        medians = {part: statistics.median(values) for part, values in parts.items()}
        rate = sequences * length / medians["step"]
        ways[name] = {
            "attention": "flex" if device == "cuda" else "blockwise",
            "median_s": medians,
            "tokens_per_second": rate,
            "model_flop_per_second": rate * flops,
            "peak_memory_bytes": peak_bytes[name],
        }
    return {
        "bench": "gpu_train_step",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "muon_matrices": optimizer.num_matrices,
        "sequences": sequences,
        "sequence_length": length,
        "documents_a_row": DOCUMENTS_A_ROW,
        "rounds": rounds,
        "note": "the trainer always packs documents: `packed` is its speed, `plain` is not reached in training",
        "machine": {"cpus": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()[0]},
        **ways,
    }


def _step(
    model: KimiK2, optimizer: MuonClip, tokens: Tensor, segments_BL: Tensor | None, device: str
) -> tuple[float, float, float, float]:
    """Moments: before, after forward, after backward, after the optimizer."""
    began = _now(device)
    out = model(tokens[:, :-1], tokens[:, 1:], segments_BL)
    forward = _now(device)
    assert out.loss is not None
    out.loss.backward()
    backward = _now(device)
    norm = float(optimizer.gradient_norm())
    optimizer.step(grad_scale=min(1.0, 1.0 / norm))
    optimizer.clip_qk(out.max_logit_per_layer)
    model.update_router_bias(out.expert_counts)
    optimizer.zero_grad()
    return began, forward, backward, _now(device)


def _flops_per_token(c: ModelConfig, length: int) -> float:
    """6 a multiplied parameter that a token meets, and causal attention over the whole row (packing makes it less)."""
    attention = (
        c.hidden_size * (c.q_lora_rank + c.kv_lora_rank + c.qk_rope_head_dim)
        + c.q_lora_rank * c.num_heads * c.qk_head_dim
        + c.kv_lora_rank * c.num_heads * (c.qk_nope_head_dim + c.v_head_dim)
        + c.num_heads * c.v_head_dim * c.hidden_size
    )
    expert = 3 * c.hidden_size * c.moe_intermediate_size
    sparse = expert * (c.num_experts_per_token + c.num_shared_experts) + c.hidden_size * c.num_experts
    dense = 3 * c.hidden_size * c.intermediate_size
    linear = c.num_layers * attention + c.num_dense_layers * dense + c.num_moe_layers * sparse
    linear += c.vocab_size * c.hidden_size
    core = c.num_layers * c.num_heads * (c.qk_head_dim + c.v_head_dim) * length / 2
    return 6.0 * (linear + core)


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
