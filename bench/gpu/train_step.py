"""Training step on one GPU in bfloat16: tokens a second, model FLOP/s, peak memory, and what the optimizer takes of it.

Needs torch and numpy only, so it runs on a bare GPU machine:

    PYTHONPATH=jobs python bench/gpu/train_step.py --out gpu.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer

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


def main() -> int:
    arguments = _arguments()
    if not torch.cuda.is_available():
        sys.stdout.write(json.dumps({"bench": "gpu_train_step", "skipped": "no CUDA device"}) + "\n")
        return 0
    model = KimiK2(MODEL, seed=0, device="cuda", dtype=torch.bfloat16)
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(), model=MODEL)
    tokens = torch.randint(0, MODEL.vocab_size, (arguments.sequences, arguments.length + 1), device="cuda")
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    seconds: dict[str, list[float]] = {"forward": [], "backward": [], "optimizer": [], "step": []}
    for index in range(arguments.rounds + 3):
        marks = [_now()]
        out = model(inputs, targets)
        marks.append(_now())
        assert out.loss is not None
        out.loss.backward()
        marks.append(_now())
        norm = float(optimizer.gradient_norm())
        optimizer.step(grad_scale=min(1.0, 1.0 / norm))
        optimizer.clip_qk(out.max_logit_per_layer)
        model.update_router_bias(out.expert_counts)
        optimizer.zero_grad()
        marks.append(_now())
        if index >= 3:
            for name, first, last in zip(seconds, (0, 1, 2, 0), (1, 2, 3, 3), strict=True):
                seconds[name].append(marks[last] - marks[first])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    flops = _flops_per_token(arguments.length)
    rate = inputs.numel() / medians["step"]
    result: dict[str, Any] = {
        "bench": "gpu_train_step",
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sequences": arguments.sequences,
        "sequence_length": arguments.length,
        "rounds": arguments.rounds,
        "median_s": medians,
        "tokens_per_second": rate,
        "model_flop_per_second": rate * flops,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        "muon_matrices": optimizer.num_matrices,
    }
    text = json.dumps(result, indent=2)
    sys.stdout.write(text + "\n")
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    return 0


def _flops_per_token(length: int) -> float:
    """6 a multiplied parameter that a token meets, and causal attention."""
    c = MODEL
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


def _now() -> float:
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
