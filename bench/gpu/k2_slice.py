"""One layer of K2's true shape on one GPU in bfloat16: forward and backward as a share of the card's measured matrix-product peak, and what MuonClip takes
of a step.

The layer is what a rank holds of one layer under 16-way expert parallelism: MLA (7168, 64 heads, latents 1536 and 512) over one sequence of 4096,
the shared expert, and 24 of the 384 experts. A rank's experts get 16 · 4096 · 8 / 384 = 1365 tokens each; so do 24 experts that are all there are, at
8 a token, and that is what is run: the exchange between ranks is a gather here. What is left out: the exchange's network, and a router of 384.

The rival is transformers' DeepseekV3 layer of the same shape and weights under torch.compile, with its fused attention at its best. It takes
no maxima of logits, no balance loss, and does not count its experts' tokens.

MuonClip comes once a step. The paper's batch of 67M tokens goes through the 16 ranks that hold a layer: 4.19M tokens a rank, 1024 sequences, on 32
nodes; on 256 nodes eight groups share them, 128 sequences each, and share the matrices too.

Needs torch and numpy only (the rival: transformers), so it runs on a bare GPU machine:

    PYTHONPATH=jobs:bench python bench/gpu/k2_slice.py --out k2_slice.json
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from interleaved import interleaved_seconds, machine, report, summary
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from abruzzi_jobs.distributed import GradientAccumulator, Ranks
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer

K2 = ModelConfig(
    vocab_size=163840,
    hidden_size=7168,
    num_layers=3,
    num_heads=64,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    intermediate_size=18432,
    moe_intermediate_size=2048,
    num_experts=24,
    num_experts_per_token=8,
    max_position=4096,
)
LAYERS = range(1, 2)
"""A middle stage's: an expert layer, without embedding and head."""
TARGET_SHARE = 0.45
TARGET_MUON_SHARE = 0.02
STEP_TOKENS = 67_108_864
EXPERT_PARALLEL = 16
PEAK_SIZE = 8192
PEAK_PRODUCTS = 8
TOLERANCE = 0.03
"""Relative difference of the median token's output and input gradient between the two: both round to bfloat16 after every operation."""


def main() -> int:
    arguments = _arguments()
    if not torch.cuda.is_available():
        sys.stdout.write('{"bench": "gpu_k2_slice", "skipped": "no CUDA device"}\n')
        return 0
    result = measure(K2, device="cuda", length=arguments.length, rounds=arguments.rounds, peer=not arguments.alone)
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def measure(config: ModelConfig, *, device: str, length: int, rounds: int, peer: bool) -> dict[str, Any]:
    layer = _Slice(config, device=device, length=length)
    candidates = {"matmul_peak": _peak(device), "ours": layer.run, "ours_accumulated": layer.accumulate}
    if device == "cuda":
        candidates["ours_graph"] = layer.captured()
    agreement: dict[str, Any] = {}
    if peer:
        rival = _Peer(layer)
        agreement = rival.agreement()
        candidates["peer_compiled"] = rival.run
    seconds = interleaved_seconds(candidates, rounds=rounds, warmup=3)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    muon = statistics.median(interleaved_seconds({"step": layer.optimizer_step}, rounds=max(5, rounds // 4))["step"])
    products, flops = 2.0 * (PEAK_SIZE if device == "cuda" else 256) ** 3 * PEAK_PRODUCTS, layer.flops
    peak = products / medians["matmul_peak"]
    ours = min(medians["ours"], medians.get("ours_graph", medians["ours"]))
    shares = {name: flops / median / peak for name, median in medians.items() if name != "matmul_peak"}
    sequences = STEP_TOKENS // EXPERT_PARALLEL // length
    muon_share = muon / (muon + sequences * medians["ours_accumulated"])
    return {
        "bench": "gpu_k2_slice",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "machine": machine(threads=torch.get_num_threads()),
        "parameters": sum(p.numel() for p in layer.model.parameters()),
        "sequence_length": length,
        "tokens_by_expert": {"min": int(layer.counts.min()), "max": int(layer.counts.max())},
        "model_flop": flops,
        "matmul_peak_flop_per_second": peak,
        **{name: summary(values) for name, values in seconds.items()},
        "flop_per_second": {name: share * peak for name, share in shares.items()},
        "share_of_peak": shares,
        "note": "ours: forward and backward; ours_accumulated: and gradients added in float32; ours_graph: ours as one CUDA graph",
        **({"peer": agreement, "speedup": medians["peer_compiled"] / ours} if peer else {}),
        "muonclip": {
            "matrices": layer.optimizer.num_matrices,
            "median_s": muon,
            "sequences_a_step_and_rank_on_32_nodes": sequences,
            "share_of_step_on_32_nodes": muon_share,
            "share_of_step_on_256_nodes_matrices_shared_by_8": muon / 8 / (muon / 8 + sequences / 8 * medians["ours_accumulated"]),
            "share_of_step_on_256_nodes_matrices_not_shared": muon / (muon + sequences / 8 * medians["ours_accumulated"]),
        },
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
        "targets": {"share_of_peak": TARGET_SHARE, "muonclip_share": TARGET_MUON_SHARE},
        "ok": flops / ours / peak >= TARGET_SHARE
        and muon_share <= TARGET_MUON_SHARE
        and (not peer or agreement["equal"]),
    }  # fmt: skip


class _Slice:
    """Our layer, its input and the gradient of its output."""

    def __init__(self, config: ModelConfig, *, device: str, length: int) -> None:
        torch.manual_seed(0)
        self.config, self.length = config, length
        self.model = KimiK2(config, layers=LAYERS, device=device, dtype=torch.bfloat16)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(1) if parameter.ndim == 1 else parameter.normal_(0, config.init_std)
        self.x_BLD = torch.randn(1, length, config.hidden_size, device=device).bfloat16().requires_grad_()
        self.grad_BLD = torch.randn_like(self.x_BLD)
        self.optimizer = build_optimizer(self.model.named_parameters(), OptimizerConfig(), model=config)
        self._gradients = GradientAccumulator(
            self.model.named_parameters(), ranks=Ranks(rank=0, world_size=1, device=torch.device(device))
        )
        self.run()

    def run(self) -> None:
        """Forward and backward."""
        self._forget()
        out = self.model(None, hidden_BLD=self.x_BLD)
        torch.autograd.backward((out.hidden_BLD, out.aux_loss), (self.grad_BLD, torch.ones_like(out.aux_loss)))
        self.out_BLD, self.counts, self.maxima = out.hidden_BLD.detach(), out.expert_counts, out.max_logit_per_layer

    def accumulate(self) -> None:
        self.run()
        self._gradients.accumulate()

    def captured(self) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.run()
        self._forget()
        return graph.replay

    def optimizer_step(self) -> None:
        gradients = self._gradients.reduce()
        scale = (1 / (self.optimizer.gradient_norm(gradients) + 1e-6)).clamp(max=1)
        self.optimizer.step(gradients=gradients, grad_scale=scale)
        self.optimizer.scale_qk(self.maxima)
        self.model.update_router_bias(self.counts)

    @property
    def flops(self) -> float:
        """6 a multiplied parameter that a token meets, and causal attention; nothing that is computed twice counts twice."""
        c = self.config
        attention = sum(p.numel() for name, p in self.model.named_parameters() if "self_attn" in name and p.ndim == 2)
        expert = 3 * c.hidden_size * c.moe_intermediate_size
        sparse = expert * (c.num_experts_per_token + c.num_shared_experts) + c.hidden_size * c.num_experts
        core = c.num_heads * (c.qk_head_dim + c.v_head_dim) * self.length / 2
        return 6.0 * (attention + sparse + core) * self.length

    def _forget(self) -> None:
        self.x_BLD.grad = None
        self.optimizer.zero_grad()


class _Peer:
    """transformers' layer with our weights, compiled."""

    def __init__(self, ours: _Slice) -> None:
        import transformers
        from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
        from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
            DeepseekV3DecoderLayer,
            DeepseekV3RotaryEmbedding,
        )

        c = ours.config
        config = DeepseekV3Config(
            vocab_size=c.vocab_size, hidden_size=c.hidden_size, num_hidden_layers=c.num_layers, num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_heads, q_lora_rank=c.q_lora_rank, kv_lora_rank=c.kv_lora_rank, qk_nope_head_dim=c.qk_nope_head_dim,
            qk_rope_head_dim=c.qk_rope_head_dim, v_head_dim=c.v_head_dim, intermediate_size=c.intermediate_size,
            moe_intermediate_size=c.moe_intermediate_size, n_routed_experts=c.num_experts, num_experts_per_tok=c.num_experts_per_token,
            n_shared_experts=c.num_shared_experts, first_k_dense_replace=c.num_dense_layers, n_group=1, topk_group=1,
            routed_scaling_factor=c.routed_scaling_factor, norm_topk_prob=c.norm_topk_prob, max_position_embeddings=c.max_position,
            rms_norm_eps=c.rms_norm_eps, rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        )  # fmt: skip
        config._attn_implementation, config._experts_implementation = "sdpa", "grouped_mm"
        x_BLD = ours.x_BLD.detach()
        self._ours, self._version = ours, transformers.__version__
        with torch.device("meta"):
            layer = DeepseekV3DecoderLayer(config, LAYERS.start)
        layer = layer.to(torch.bfloat16).to_empty(device=x_BLD.device)
        layer.load_state_dict(_peer_weights(ours.model, LAYERS.start), strict=True, assign=True)
        layer.requires_grad_(True)
        self._parameters = list(layer.parameters())
        places = torch.arange(ours.length, device=x_BLD.device).unsqueeze(0)
        self._rotations = DeepseekV3RotaryEmbedding(config).to(x_BLD.device)(x_BLD, places)
        self._x_BLD = x_BLD.clone().requires_grad_()
        self._attention = _fastest_attention(ours)
        self._layer = torch.compile(layer)
        self.run()

    def run(self) -> None:
        for tensor in (self._x_BLD, *self._parameters):
            tensor.grad = None
        with _only(self._attention):
            out = self._layer(self._x_BLD, attention_mask=None, position_embeddings=self._rotations)
        self._out_BLD = out.detach()
        out.backward(self._ours.grad_BLD)

    def agreement(self) -> dict[str, Any]:
        """Before anything is timed."""
        self.run()
        self._ours.run()
        assert self._ours.x_BLD.grad is not None
        assert self._x_BLD.grad is not None
        output = _difference(self._ours.out_BLD - self._ours.x_BLD, self._out_BLD - self._x_BLD)
        gradient = _difference(self._ours.x_BLD.grad, self._x_BLD.grad)
        return {
            "name": f"transformers {self._version} DeepseekV3DecoderLayer, torch.compile {torch.__version__}",
            "attention": self._attention.name if self._attention is not None else "default",
            "experts": "grouped_mm",
            "output_difference": output,
            "input_gradient_difference": gradient,
            "tolerance": TOLERANCE,
            "equal": max(output, gradient) <= TOLERANCE,
        }


def _peer_weights(model: nn.Module, layer: int) -> dict[str, Tensor]:
    prefix = f"layers.{layer}."
    state = {name.removeprefix(prefix): tensor.detach().clone() for name, tensor in model.state_dict().items()}
    gate, up = state.pop("mlp.shared_experts.gate_up_proj.weight").chunk(2)
    return {**state, "mlp.shared_experts.gate_proj.weight": gate, "mlp.shared_experts.up_proj.weight": up}


def _fastest_attention(ours: _Slice) -> SDPBackend | None:
    """Of PyTorch's fused kernels, at this shape, forward and backward; None where the device has none to choose."""
    c, x = ours.config, ours.x_BLD
    if not x.is_cuda:
        return None
    shapes = [(1, c.num_heads, ours.length, size) for size in (c.qk_head_dim, c.qk_head_dim, c.v_head_dim)]
    q, k, v = (torch.randn(shape, device=x.device, dtype=x.dtype, requires_grad=True) for shape in shapes)
    grad = torch.randn_like(v)
    found: dict[SDPBackend, float] = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):

        def run(backend: SDPBackend = backend) -> None:
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(grad)

        with contextlib.suppress(RuntimeError):
            found[backend] = statistics.median(interleaved_seconds({"run": run}, rounds=5)["run"])
    return min(found, key=lambda backend: found[backend]) if found else None


def _only(backend: SDPBackend | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if backend is None else sdpa_kernel(backend)


def _difference(a_BLD: Tensor, b_BLD: Tensor) -> float:
    """Of the median token: where two experts' scores are all but equal, rounding sends a token to one or the other."""
    a, b = a_BLD.detach().float(), b_BLD.detach().float()
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1)).median())


def _peak(device: str) -> Callable[[], None]:
    size = PEAK_SIZE if device == "cuda" else 256
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        for _ in range(PEAK_PRODUCTS):
            torch.mm(a, b, out=out)

    return run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--alone", action="store_true", help="without the rival")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
