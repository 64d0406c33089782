"""Activation memory of K2-shaped layers on CPU, policy by policy, against keeping everything: bytes between forward and backward, peak, step time.

Kimi K2's layer with every width divided by `--scale` (head sizes stay), 8 of `--experts` experts a token, in float32. A step is forward and backward, weight gradients included; keeping
and the paper's policy take turns. Bytes are the ledger's and stand beside the planner's. The peak is what operations made and nobody has let go of, looked at after each of them, in a pass of its own;
gradients of weights, known by their shapes, are left out: they are the same for all.

    python bench/activation_memory.py --out bench/results/activation_memory.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleaved import interleaved_seconds, machine, report, summary
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from abruzzi.contracts.training import MODEL_PRESETS, MemoryConfig
from abruzzi.contracts.training import ModelConfig as ModelTable
from abruzzi.plan.activations import activation_bytes_per_token
from abruzzi_jobs.memory import MemoryPolicy
from abruzzi_jobs.models import KimiK2, ModelConfig

SMALLER, SLOWER = 3.0, 1.15
RECOMPUTE = ("layernorm", "swiglu", "mla_up_projection", "moe_down_projection")
POLICIES: dict[str, dict[str, Any]] = {
    "keep": {},
    "recompute": {"recompute": RECOMPUTE},
    "recompute + FP8": {"recompute": RECOMPUTE, "fp8_activations": True},
    "recompute + FP8 + offload": {"recompute": RECOMPUTE, "fp8_activations": True, "offload_activations": True},
}
PAPER = "recompute + FP8 + offload"


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    table = _layer(arguments.scale, arguments.experts, arguments.layers)
    model = KimiK2(ModelConfig.from_dict(table.model_dump()), seed=0)
    rows = arguments.sequences * arguments.length
    alike = {rows, rows * table.num_experts_per_token} & {size for p in model.parameters() for size in p.shape}
    if alike:
        raise SystemExit(
            f"--length: {alike} is also a size of weights, whose gradients are told apart by their shape; take another"
        )
    generator = torch.Generator().manual_seed(1)
    tokens_BL = torch.randint(0, table.vocab_size, (arguments.sequences, arguments.length), generator=generator)
    steps = {name: _step(model, POLICIES[name], tokens_BL) for name in ("keep", PAPER)}
    result: dict[str, Any] = {
        "bench": "activation_memory",
        "model": {k: v for k, v in table.model_dump().items() if k in MODEL_PRESETS["k2"]},
        "tokens": tokens_BL.numel(),
        "machine": machine(threads=arguments.threads),
        "policies": {name: _bytes(model, table, policy, tokens_BL) for name, policy in POLICIES.items()},
    }
    seconds = interleaved_seconds(steps, rounds=arguments.rounds, warmup=1)
    keep = result["policies"]["keep"]
    for name, found in result["policies"].items():
        found["stored_against_keep"] = keep["device_bytes"] / found["device_bytes"]
        found["stored_anywhere_against_keep"] = keep["device_bytes"] / (found["device_bytes"] + found["host_bytes"])
        found["peak_against_keep"] = keep["peak_bytes"] / found["peak_bytes"]
        if name in seconds:
            pairs = zip(seconds[name], seconds["keep"], strict=True)
            found |= summary(seconds[name]) | {"time_against_keep": statistics.median(a / b for a, b in pairs)}
    paper = result["policies"][PAPER]
    result["load_average_after"] = machine(threads=arguments.threads)["load_average"]
    result["target"] = {"peak_against_keep": SMALLER, "time_against_keep": SLOWER}
    result["ok"] = paper["peak_against_keep"] >= SMALLER and paper["time_against_keep"] <= SLOWER
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def _layer(scale: int, experts: int, layers: int) -> ModelTable:
    k2 = MODEL_PRESETS["k2"]
    widths = ("hidden_size", "num_heads", "q_lora_rank", "kv_lora_rank", "moe_intermediate_size", "intermediate_size")
    smaller = {name: k2[name] // scale for name in widths}
    return ModelTable.model_validate(
        {**k2, **smaller, "vocab_size": 512, "num_layers": layers, "num_dense_layers": 0, "num_experts": experts, "max_position": 4096}
    )  # fmt: skip


def _step(model: KimiK2, policy: dict[str, Any], tokens_BL: Tensor) -> Callable[[], None]:
    def step() -> None:
        model.activations.policy = MemoryPolicy.from_dict(policy)
        out = model(tokens_BL)
        out.hidden_BLD.backward(torch.ones_like(out.hidden_BLD))

    return step


def _bytes(model: KimiK2, table: ModelTable, policy: dict[str, Any], tokens_BL: Tensor) -> dict[str, Any]:
    _step(model, policy, tokens_BL)()  # gradients are there, and the host's buffers
    ledger = model.activations.count(model)
    with Peak(model) as peak:
        _step(model, policy, tokens_BL)()
    planned = (
        activation_bytes_per_token(table, MemoryConfig.model_validate(policy)) * table.num_layers * tokens_BL.numel()
    )
    stored = ledger.device_bytes + ledger.host_bytes
    return {
        "device_bytes": ledger.device_bytes,
        "host_bytes": ledger.host_bytes,
        "by_kind": ledger.by_kind(),
        "of_layer_1": {
            k.removeprefix("layers.1."): v for k, v in ledger.by_module().items() if k.startswith("layers.1.")
        },
        "planned_bytes": planned,
        "stored_over_planned": stored / planned,
        "peak_bytes": peak.most,
    }


class Peak(TorchDispatchMode):
    """`most`: bytes of living storages that operations made inside, after any of them."""

    def __init__(self, model: KimiK2) -> None:
        super().__init__()
        self._weights = {tuple(sorted(p.shape)) for p in model.parameters()}
        self._living: dict[StorageWeakRef, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        theirs = {StorageWeakRef(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tuple(sorted(tensor.shape)) not in self._weights:
                storage = tensor.untyped_storage()
                key = StorageWeakRef(storage)
                if key not in theirs:  # views, and what lies on the host
                    self._living[key] = storage.nbytes()
        self._living = {key: size for key, size in self._living.items() if not key.expired()}
        self.most = max(self.most, sum(self._living.values()))
        return out


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=4, help="divides K2's widths")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=1)
    parser.add_argument("--length", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
