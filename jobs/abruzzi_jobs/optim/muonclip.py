"""MuonClip: Muon for matrices, AdamW for the rest, QK-Clip per head (paper section 2.1, Algorithm 1).

M ← μM + G ; O = NewtonSchulz(M) · 0.2 · sqrt(max(n, m)) ; W ← W − η(O + λW). The factor gives updates the RMS of AdamW's (0.2), so
that rate and decay carry over. Matrices of one shape are orthogonalised in one batch; their momentum lives in one stacked buffer.

Shapes: N matrices of one shape, m rows, n columns, Y layers, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from abruzzi_jobs.models.config import DecoderConfig
from abruzzi_jobs.optim.config import OptimizerConfig
from abruzzi_jobs.optim.newton_schulz import matrices_per_chunk, newton_schulz
from abruzzi_jobs.optim.plan import ParameterPlan, count_matrices, layer_of, plan_parameters
from abruzzi_jobs.optim.qk_clip import ClipStatistics, clip_heads_, clip_statistics, gammas, query_key_matrices
from abruzzi_jobs.optim.spectrum import Spectrum, key_rows, spectrum

RMS_MATCH = 0.2


@dataclass(frozen=True)
class OptimizerStatistics:
    muon_matrices: int
    muon_parameters: int
    adamw_parameters: int
    update_rms_muon: float | None
    """RMS of O at the last measured step; about 0.2. None before one, or without Muon."""
    update_rms_adamw: float | None


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, *, model: DecoderConfig
) -> MuonClip:
    """An optimizer over parameters with logical names; they stay where they are and are updated in place."""
    return MuonClip(dict(named_parameters), config, model=model)


class MuonClip:
    """`step`, then `clip_qk` with the maxima of the step's forward passes. Bfloat16 parameters get float32 masters here."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, *, model: DecoderConfig
    ) -> None:
        self.config = config
        self.model = model
        self.parameters = dict(parameters)
        self.plans = plan_parameters({name: tuple(p.shape) for name, p in parameters.items()}, config, model=model)
        self._masters = {
            name: p.detach() if p.dtype in (torch.float32, torch.float64) else p.detach().float()
            for name, p in parameters.items()
        }
        self._groups = _group_by_shape([plan for plan in self.plans if plan.kind == "muon"], self._masters)
        self._adamw = [plan.name for plan in self.plans if plan.kind == "adamw"]
        self._exp_avg = {name: torch.zeros_like(self._masters[name]) for name in self._adamw}
        self._exp_avg_sq = {name: torch.zeros_like(self._masters[name]) for name in self._adamw}
        self._steps = torch.zeros((), dtype=torch.int64)
        self._update_rms: dict[str, float] = {}

    @property
    def num_matrices(self) -> int:
        """Matrices that Muon owns; logged at start, so that Muon that is not Muon shows."""
        return count_matrices(self.plans)

    @torch.no_grad()
    def step(
        self,
        lr_scale: float = 1.0,
        *,
        gradients: Mapping[str, Tensor] | None = None,
        grad_scale: float | Tensor = 1.0,
        measure: bool = False,
    ) -> None:
        """One update at peak rates times `lr_scale`.

        `gradients` by name (float32; by default each parameter's `.grad`; absent means zero), times `grad_scale` (clipping, averaging).
        A scale that is a tensor stays on the device: nothing here waits for it unless `measure`.
        `measure` also takes the updates' RMS for `statistics` (a pass more over the updates).
        """
        config = self.config
        grads = self._gradients(gradients)
        self._steps += 1
        squares, count = 0.0, 0
        lr = config.peak_lr * lr_scale
        for group in self._groups:
            more_squares, more = group.step(grads, config, lr=lr, grad_scale=grad_scale, measure=measure)
            squares, count = squares + more_squares, count + more
        if measure and count:
            self._update_rms["muon"] = math.sqrt(squares / count)
        self._step_adamw(grads, lr_scale=lr_scale, grad_scale=grad_scale, measure=measure)
        self._copy_masters(self.parameters)

    @torch.no_grad()
    def clip_qk(self, max_logit_per_layer: Tensor, *, layers: Sequence[int] | None = None) -> ClipStatistics:
        """QK-Clip with the step's maxima [Y, H] (over micro-batches and ranks), a row for each layer of these parameters, in order, or for
        each of `layers`, of whose matrices some may be with other ranks.

        Without effect under kind "muon" and "adamw".
        """
        return clip_statistics(self.scale_qk(max_logit_per_layer, layers=layers))

    @torch.no_grad()
    def scale_qk(self, max_logit_per_layer: Tensor, *, layers: Sequence[int] | None = None) -> Tensor:
        """`clip_qk` without its statistics: the factors γ [Y, H], of which `clip_statistics` counts. On CUDA nothing waits for the device,
        every head is scaled, by 1 where it is below the threshold."""
        if self.config.kind != "muonclip":
            return torch.ones_like(max_logit_per_layer)
        gamma_YH = gammas(max_logit_per_layer, threshold=self.config.qk_clip_threshold)
        layers = self._attention_layers() if layers is None else layers
        if len(layers) != len(gamma_YH):
            raise ValueError(f"clip_qk: maxima of {len(gamma_YH)} layers, but there are {len(layers)} attention layers")
        for layer, gamma_H in zip(layers, gamma_YH, strict=True):
            if gamma_H.is_cuda or bool((gamma_H < 1).any()):
                queries, keys = (self._of_layer(layer, suffix) for suffix in query_key_matrices(self.model))
                clip_heads_(
                    [self._masters[name] for name in queries],
                    [self._masters[name] for name in keys],
                    gamma_H,
                    alpha=self.config.qk_clip_alpha,
                    config=self.model,
                )
                self._copy_masters((*queries, *keys))
        return gamma_YH

    def gradient_norm(self, gradients: Mapping[str, Tensor] | None = None) -> Tensor:
        """The global L2 norm, float32 scalar."""
        grads = self._gradients(gradients)
        norms = torch._foreach_norm(list(grads.values()))
        return torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms])) if norms else torch.zeros(())

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def statistics(self) -> OptimizerStatistics:
        sizes = {"muon": 0, "adamw": 0}
        for plan in self.plans:
            sizes[plan.kind] += math.prod(plan.shape)
        return OptimizerStatistics(
            muon_matrices=self.num_matrices,
            muon_parameters=sizes["muon"],
            adamw_parameters=sizes["adamw"],
            update_rms_muon=self._update_rms.get("muon"),
            update_rms_adamw=self._update_rms.get("adamw"),
        )

    def spectra(self) -> dict[int, dict[str, Spectrum]]:
        """layer → {"q": of the queries' matrix, "k": of the keys' rows}, from the masters."""
        found: dict[int, dict[str, Spectrum]] = {}
        query, key = query_key_matrices(self.model)
        for layer in range(self.model.num_layers):
            for name in self._of_layer(layer, query):
                found.setdefault(layer, {})["q"] = spectrum(self._masters[name])
            for name in self._of_layer(layer, key):
                found.setdefault(layer, {})["k"] = spectrum(key_rows(self._masters[name], self.model))
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Flat, for safetensors: `step`, `momentum.<name>`, `exp_avg.<name>`, `exp_avg_sq.<name>`, `master.<name>` (where the parameter is
        not float32). The tensors share memory with the optimizer: copy before the next step if saving later."""
        state = {"step": self._steps}
        for group in self._groups:
            for plan, momentum in zip(group.plans, group.momentum_views, strict=True):
                state[f"momentum.{plan.name}"] = momentum.view(plan.shape)
        for name in self._adamw:
            state[f"exp_avg.{name}"] = self._exp_avg[name]
            state[f"exp_avg_sq.{name}"] = self._exp_avg_sq[name]
        for name, master in self._masters.items():
            if master.dtype != self.parameters[name].dtype:
                state[f"master.{name}"] = master
        return state

    @torch.no_grad()
    def reset(self) -> None:
        """Momenta, averages and the count of steps begin anew; the weights stay."""
        for name, tensor in self.state_dict().items():
            if not name.startswith("master."):
                tensor.zero_()

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Exactly the tensors of `state_dict`, copied in; parameters of another dtype are rounded from their masters again."""
        own = self.state_dict()
        missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        if missing or unknown:
            raise ValueError(
                f"optimizer state: missing {', '.join(missing[:3]) or 'nothing'}, unknown {', '.join(unknown[:3]) or 'nothing'}; "
                "it was saved by another model, optimizer kind or dtype"
            )
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise ValueError(
                    f"optimizer state {name}: shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
                )
            tensor.copy_(state[name])
        self.give_masters()

    @torch.no_grad()
    def take_masters(self) -> None:
        """From parameters that were given other values."""
        for name, parameter in self.parameters.items():
            if self._masters[name].dtype != parameter.dtype:
                self._masters[name].copy_(parameter)

    def give_masters(self) -> None:
        """To the parameters, after the tensors of `state_dict` were given other values."""
        self._copy_masters(self.parameters)

    def _gradients(self, gradients: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        if gradients is not None:
            return {name: gradients[name] for name in self.parameters if name in gradients}
        return {name: p.grad.to(self._masters[name].dtype) for name, p in self.parameters.items() if p.grad is not None}

    def _step_adamw(
        self, grads: Mapping[str, Tensor], *, lr_scale: float, grad_scale: float | Tensor, measure: bool
    ) -> None:
        names = [name for name in self._adamw if name in grads]
        if not names:
            return
        config = self.config
        used = [grads[name] for name in names]
        if isinstance(grad_scale, Tensor) or grad_scale != 1.0:
            used = list(torch._foreach_mul(used, grad_scale))
        before = torch._foreach_mul([self._masters[name] for name in names], 1.0) if measure else None
        lr = (config.adamw_lr or config.peak_lr) * lr_scale
        masters = [self._masters[name] for name in names]
        before_this = float(self._steps) - 1
        adamw(
            masters,
            used,
            [self._exp_avg[name] for name in names],
            [self._exp_avg_sq[name] for name in names],
            [],
            [torch.full((), before_this, device=master.device) for master in masters],  # raised by one inside
            fused=True,
            amsgrad=False,
            beta1=config.adam_betas[0],
            beta2=config.adam_betas[1],
            lr=lr,
            weight_decay=config.weight_decay,
            eps=config.adam_eps,
            maximize=False,
        )
        if before is not None and lr > 0:
            decayed = torch._foreach_mul(before, 1 - lr * config.weight_decay)
            norms = torch._foreach_norm(torch._foreach_sub(masters, decayed))
            total = math.sqrt(sum(float(norm) ** 2 for norm in norms))
            self._update_rms["adamw"] = total / lr / math.sqrt(sum(master.numel() for master in masters))

    def _copy_masters(self, names: Iterable[str]) -> None:
        for name in names:
            if self._masters[name].dtype != self.parameters[name].dtype:
                self.parameters[name].data.copy_(self._masters[name])

    def _attention_layers(self) -> list[int]:
        query, _ = query_key_matrices(self.model)
        return sorted(
            layer for name in self.parameters if name.endswith(query) and (layer := layer_of(name)) is not None
        )

    def _of_layer(self, layer: int, suffix: str) -> list[str]:
        return [name for name in self.parameters if name.endswith(suffix) and layer_of(name) == layer]


class _ShapeGroup:
    """All Muon matrices of one shape: their stacked momentum, taken through the whole update a chunk at a time.

    A chunk is as many matrices as go through Newton-Schulz together. Momentum, iterations and weight update of one chunk before the next
    begins means that on a CPU each tensor comes from memory once a step, and that only one chunk's update is ever held.
    """

    def __init__(self, plans: list[ParameterPlan], masters: Mapping[str, Tensor]) -> None:
        self.plans = plans
        first = masters[plans[0].name]
        rows, cols = plans[0].rows, plans[0].cols
        counts = [plan.num_matrices for plan in plans]
        self.momentum_Nmn = first.new_zeros(sum(counts), rows, cols)
        self.momentum_views = self.momentum_Nmn.split(counts)
        self.adjustment = RMS_MATCH * math.sqrt(max(rows, cols))
        size = min(sum(counts), matrices_per_chunk(rows, cols, first.device))
        self._update = first.new_empty(size, rows, cols)
        self._chunks = _chunks(plans, masters, self.momentum_Nmn, size)

    def step(
        self,
        grads: Mapping[str, Tensor],
        config: OptimizerConfig,
        *,
        lr: float,
        grad_scale: float | Tensor,
        measure: bool,
    ) -> tuple[float, int]:
        """One update of every matrix. With `measure` the sum of squares of all updates O, and how many entries they have."""
        views = {plan.name: plan.view(grads[plan.name].contiguous()) for plan in self.plans if plan.name in grads}
        squares, count = 0.0, 0
        for momentum, pieces in self._chunks:
            update = self._update[: len(momentum)]
            self._direction(momentum, update, pieces, views, config, grad_scale)
            source = update if config.nesterov else momentum
            newton_schulz(
                source, steps=config.newton_schulz_steps, precision=config.newton_schulz_precision, out=update
            )
            masters = [piece.master for piece in pieces]
            if config.weight_decay:
                torch._foreach_mul_(masters, 1 - lr * config.weight_decay)
            updates = list(update.split([piece.last - piece.first for piece in pieces]))
            torch._foreach_add_(masters, updates, alpha=-lr * self.adjustment)
            if measure:
                squares += float(update.square().sum()) * self.adjustment**2
                count += update.numel()
        return squares, count

    def _direction(
        self,
        momentum: Tensor,
        update: Tensor,
        pieces: list[_Piece],
        views: Mapping[str, Tensor],
        config: OptimizerConfig,
        grad_scale: float | Tensor,
    ) -> None:
        """Takes this step's gradients into the momentum; under Nesterov also writes the direction to `update`."""
        present = [piece for piece in pieces if piece.name in views]
        parts = [views[piece.name][piece.first : piece.last] for piece in present]
        momentum.mul_(config.momentum)
        if parts:
            _add_scaled_([momentum[piece.span] for piece in present], parts, grad_scale)
        if config.nesterov:
            torch.mul(momentum, config.momentum, out=update)
            if parts:
                _add_scaled_([update[piece.span] for piece in present], parts, grad_scale)


@dataclass(frozen=True)
class _Piece:
    """Matrices `first` to `last` of one parameter, at `span` of their chunk."""

    name: str
    first: int
    last: int
    span: slice
    master: Tensor


def _add_scaled_(targets: list[Tensor], parts: list[Tensor], scale: float | Tensor) -> None:
    if isinstance(scale, Tensor):
        for target, part in zip(targets, parts, strict=True):
            target.addcmul_(part, scale)
    else:
        torch._foreach_add_(targets, parts, alpha=scale)


def _chunks(
    plans: list[ParameterPlan], masters: Mapping[str, Tensor], momentum_Nmn: Tensor, size: int
) -> list[tuple[Tensor, list[_Piece]]]:
    chunks: list[tuple[Tensor, list[_Piece]]] = [(chunk, []) for chunk in momentum_Nmn.split(size)]
    place = 0
    for plan in plans:
        first = 0
        while first < plan.num_matrices:
            index, offset = divmod(place, size)
            length = min(plan.num_matrices - first, size - offset)
            master = plan.view(masters[plan.name])[first : first + length]
            chunks[index][1].append(_Piece(plan.name, first, first + length, slice(offset, offset + length), master))
            first += length
            place += length
    return chunks


def _group_by_shape(plans: list[ParameterPlan], masters: Mapping[str, Tensor]) -> list[_ShapeGroup]:
    by_shape: dict[tuple[int, int], list[ParameterPlan]] = {}
    for plan in plans:
        by_shape.setdefault((plan.rows, plan.cols), []).append(plan)
    return [_ShapeGroup(group, masters) for group in by_shape.values()]
