"""The picture of docs: plain Muon and MuonClip at a learning rate that makes attention logits grow.

Two runs of one small model, same seed, same batches of text (this Python's standard library, as bytes), same rate; only the clip differs.
Draws the largest logit over all heads and the loss over steps.

    python bench/qk_clip_curve.py --picture docs/images/qk-clip.png --out docs/images/qk-clip.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer

MODEL = ModelConfig(
    vocab_size=256,
    hidden_size=96,
    num_layers=4,
    num_heads=4,
    q_lora_rank=48,
    kv_lora_rank=32,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=16,
    intermediate_size=256,
    moe_intermediate_size=64,
    num_experts=8,
    num_experts_per_token=2,
    max_position=128,
)
WARMUP_STEPS = 20


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    text = _text(4 << 20)
    runs = {kind: _train(kind, text, arguments) for kind in ("muon", "muonclip")}
    result: dict[str, Any] = {
        "bench": "qk_clip_curve",
        "text": "Python standard library, bytes",
        "steps": arguments.steps,
        "peak_lr": arguments.lr,
        "threshold": arguments.threshold,
        "model": MODEL.to_dict(),
        "runs": runs,
    }
    # After the clip the maximum of the next forward pass may exceed the threshold by what one step adds.
    result["max_logit"] = {kind: max(run["max_logit"]) for kind, run in runs.items()}
    result["final_loss"] = {kind: float(np.mean(run["loss"][-20:])) for kind, run in runs.items()}
    body = json.dumps(result)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(body + "\n")
    if arguments.picture is not None:
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        _draw(result, arguments.picture)
    shown = {key: value for key, value in result.items() if key not in ("runs", "model")}
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return 0


def _train(kind: str, text: torch.Tensor, arguments: argparse.Namespace) -> dict[str, Any]:
    model = KimiK2(MODEL, seed=arguments.seed)
    config = OptimizerConfig.from_dict(
        {
            "kind": kind,
            "peak_lr": arguments.lr,
            "qk_clip_threshold": arguments.threshold,
            "adamw_lr": arguments.adamw_lr,
        }
    )
    optimizer = build_optimizer(model.named_parameters(), config, model=MODEL)
    generator = torch.Generator().manual_seed(arguments.seed)
    length = MODEL.max_position
    losses: list[float] = []
    maxima: list[float] = []
    clipped: list[int] = []
    started = time.perf_counter()
    for step in range(arguments.steps):
        first = torch.randint(0, len(text) - length - 1, (arguments.sequences, 1), generator=generator)
        tokens = text[first + torch.arange(length + 1)]
        out = model(tokens[:, :-1], tokens[:, 1:])
        assert out.loss is not None
        out.loss.backward()
        norm = float(optimizer.gradient_norm())
        optimizer.step(min(1.0, (step + 1) / WARMUP_STEPS), grad_scale=min(1.0, 1.0 / (norm + 1e-6)))
        clipped.append(optimizer.clip_qk(out.max_logit_per_layer).clipped_heads)
        model.update_router_bias(out.expert_counts)
        optimizer.zero_grad()
        losses.append(float(out.loss.detach()) / math.log(2))
        maxima.append(float(out.max_logit_per_layer.max()))
        if step % 50 == 0:
            elapsed = time.perf_counter() - started
            sys.stderr.write(f"{kind} step {step} loss {losses[-1]:.3f} max logit {maxima[-1]:.1f} {elapsed:.0f} s\n")
    return {"loss": losses, "max_logit": maxima, "clipped_heads": clipped}


def _text(size: int) -> torch.Tensor:
    """int64 bytes of the standard library's modules in order of their names."""
    parts: list[bytes] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        parts.append(path.read_bytes())
        if sum(map(len, parts)) >= size:
            break
    return torch.from_numpy(np.frombuffer(b"".join(parts), dtype=np.uint8).astype(np.int64))


def _draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colors = {"muon": "#c2410c", "muonclip": "#1d4ed8"}
    labels = {"muon": "Muon", "muonclip": "MuonClip"}
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 2))
    for kind, run in result["runs"].items():
        top.plot(run["max_logit"], color=colors[kind], linewidth=1.2, label=labels[kind])
        window = np.ones(10) / 10
        bottom.plot(np.convolve(run["loss"], window, "valid"), color=colors[kind], linewidth=1.2, label=labels[kind])
    top.axhline(result["threshold"], color="#52525b", linestyle="--", linewidth=1)
    top.annotate(
        f"τ = {result['threshold']:g}",
        (0, result["threshold"]),
        xytext=(4, 4),
        textcoords="offset points",
        color="#52525b",
    )
    top.set_yscale("log")
    top.set_ylabel("largest attention logit")
    top.set_title(f"QK-Clip holds what Muon lets grow (peak rate {result['peak_lr']:g}, {MODEL.num_layers} layers)")
    bottom.set_ylabel("bits per byte, mean of 10")
    bottom.set_xlabel("step")
    for axis in (top, bottom):
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--lr", type=float, default=5e-2)
    parser.add_argument("--adamw-lr", type=float, default=3e-3)
    parser.add_argument("--threshold", type=float, default=30.0)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
