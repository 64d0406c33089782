"""Training step on CPU: ours against transformers' DeepseekV3 with torch.optim.Muon and AdamW.

Same weights (through our export), same configuration, same tokens. Losses must agree to 1e-4 first, then both take whole steps in turns:
forward, backward, gradient clipping, optimizer. Ours also measures the exact maximum logit of every head, applies QK-Clip, computes the
sequence balance loss and updates the router's bias, as in training; the peer has none of these.

The peer runs at its best: every combination of attention (sdpa, eager) and experts (grouped_mm, batched_mm, eager) is tried, the fastest kept;
no cache, fused AdamW, and experts given to Muon as views of the 3D tensors (torch.optim.Muon takes 2D parameters only).

    python bench/train_step.py --out train_step.json
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from interleaved import interleaved_seconds, machine, report, summary
from torch import Tensor, nn
from transformers import DeepseekV3ForCausalLM

from abruzzi.contracts.training import MODEL_PRESETS
from abruzzi_jobs.export import export_huggingface
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer

LOSS_TOLERANCE = 1e-4
TARGET = 1.3


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    config = ModelConfig.from_dict(MODEL_PRESETS[arguments.preset])
    tokens = torch.randint(
        0, config.vocab_size, (arguments.sequences, arguments.length + 1), generator=torch.Generator().manual_seed(1)
    )
    result: dict[str, Any] = {
        "bench": "train_step",
        "preset": arguments.preset,
        "sequences": arguments.sequences,
        "sequence_length": arguments.length,
        "parameters": sum(p.numel() for p in KimiK2(config, device="meta").parameters()),
        "peer": f"transformers {transformers.__version__} DeepseekV3ForCausalLM + torch {torch.__version__} Muon(match_rms_adamw), AdamW(fused)",
        "machine": machine(threads=arguments.threads),
    }
    for dtype in (torch.float32, torch.bfloat16):
        result[str(dtype).removeprefix("torch.")] = _compare(config, tokens, dtype, arguments.rounds)
    result["target_speedup_float32"] = TARGET
    result["ok"] = result["float32"]["losses_equal"] and result["float32"]["speedup"] >= TARGET
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def _compare(config: ModelConfig, tokens: Tensor, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    ours = KimiK2(config, seed=0)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    with tempfile.TemporaryDirectory() as folder:
        export_huggingface(ours.state_dict(), config, Path(folder))
        peer = DeepseekV3ForCausalLM.from_pretrained(folder, dtype=dtype).train()
    if dtype != torch.float32:
        narrow = KimiK2(config, dtype=dtype)
        narrow.load_state_dict(ours.state_dict())
        ours = narrow
    step_ours, step_peer = _our_step(ours, inputs, targets), _peer_step(peer, inputs, targets)
    settings = _best_settings(peer, inputs, targets)
    loss_ours, loss_peer = step_ours(), step_peer()
    difference = abs(loss_ours - loss_peer)
    tolerance = LOSS_TOLERANCE if dtype == torch.float32 else 2e-2
    seconds = interleaved_seconds({"ours": step_ours, "peer": step_peer}, rounds=rounds, warmup=1)
    count = inputs.numel()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "loss_ours": loss_ours,
        "loss_peer": loss_peer,
        "loss_difference": difference,
        "losses_equal": difference <= tolerance,
        "loss_tolerance": tolerance,
        "peer_settings": settings,
        "ours": {**summary(seconds["ours"]), "tokens_per_second": count / medians["ours"]},
        "peer": {**summary(seconds["peer"]), "tokens_per_second": count / medians["peer"]},
        "speedup": medians["peer"] / medians["ours"],
    }


def _our_step(model: KimiK2, inputs: Tensor, targets: Tensor) -> Callable[[], float]:
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(), model=model.config)

    def step() -> float:
        out = model(inputs, targets)
        assert out.loss is not None
        assert out.loss_sum is not None
        assert out.num_targets is not None
        out.loss.backward()
        norm = float(optimizer.gradient_norm())
        optimizer.step(grad_scale=min(1.0, 1.0 / (norm + 1e-6)))
        optimizer.clip_qk(out.max_logit_per_layer)
        model.update_router_bias(out.expert_counts)
        optimizer.zero_grad()
        return float(out.loss_sum.detach() / out.num_targets)

    return step


def _peer_step(model: DeepseekV3ForCausalLM, inputs: Tensor, targets: Tensor) -> Callable[[], float]:
    muon, adamw, views = _peer_parameters(model)
    settings = OptimizerConfig()
    optimizers: list[Any] = [
        torch.optim.Muon(
            muon,
            lr=settings.peak_lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            adamw, lr=settings.peak_lr, betas=settings.adam_betas, eps=settings.adam_eps, weight_decay=0.1, fused=True
        ),
    ]
    parameters = list(model.parameters())

    def step() -> float:
        out = model(input_ids=inputs, labels=targets, shift_labels=targets, use_cache=False)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for parameter, part, take in views:
            part.grad = take(parameter.grad)
        for optimizer in optimizers:
            optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        return float(out.loss.detach())

    return step


def _peer_parameters(
    model: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[tuple[nn.Parameter, nn.Parameter, Callable[[Tensor], Tensor]]]]:
    """(Muon's, AdamW's, (3D parameter, its 2D view as a parameter, how to take the same view of a gradient))."""
    muon: list[nn.Parameter] = []
    adamw: list[nn.Parameter] = []
    views: list[tuple[nn.Parameter, nn.Parameter, Callable[[Tensor], Tensor]]] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3:
            halves = 2 if name.endswith("gate_up_proj") else 1
            rows = parameter.shape[1] // halves
            for expert, half in itertools.product(range(parameter.shape[0]), range(halves)):

                def take(tensor: Tensor, e: int = expert, r: int = rows, h: int = half) -> Tensor:
                    return tensor[e, h * r : (h + 1) * r]

                part = nn.Parameter(take(parameter.data))
                muon.append(part)
                views.append((parameter, part, take))
        elif parameter.ndim == 2 and ".layers." in name:
            muon.append(parameter)
        else:
            adamw.append(parameter)
    return muon, adamw, views


def _best_settings(model: DeepseekV3ForCausalLM, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """Try each attention and experts implementation for forward and backward; leave the fastest set."""

    def run(attention: str, experts: str) -> Callable[[], None]:
        def once() -> None:
            model.set_attn_implementation(attention)
            model.set_experts_implementation(experts)
            model(input_ids=inputs, labels=targets, shift_labels=targets, use_cache=False).loss.backward()
            model.zero_grad(set_to_none=True)

        return once

    choices = list(itertools.product(("sdpa", "eager"), ("grouped_mm", "batched_mm", "eager")))
    # batched_mm gathers a weight copy for every routed row; it is left out where those alone take seconds.
    rows = inputs.numel() * model.config.num_experts_per_tok
    if rows * 3 * model.config.hidden_size * model.config.moe_intermediate_size * 4 > 256 << 20:
        choices = [choice for choice in choices if choice[1] != "batched_mm"]
    seconds = interleaved_seconds({f"{a}+{e}": run(a, e) for a, e in choices}, rounds=2, warmup=1)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(medians, key=medians.__getitem__)
    attention, experts = best.split("+")
    model.set_attn_implementation(attention)
    model.set_experts_implementation(experts)
    return {"attention": attention, "experts": experts, "forward_backward_s": medians}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=[name for name in MODEL_PRESETS if name != "k2"])
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
