"""ZeRO-1 around MuonClip: every rank computes with all parameters of its stage and accumulates their gradients in float32; the states of a piece
(masters, momenta, averages) are with its owner alone (ownership.py), who gets the piece's gradient summed, and gives the new piece to all.

Pieces of one owner lie in one flat buffer where they can: parameters and gradients are views into them. A step has few messages (owned.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from abruzzi_jobs.distributed.mesh import Group, Mesh
from abruzzi_jobs.distributed.owned import Owned, OwnedPieces
from abruzzi_jobs.distributed.ownership import Piece, share_dense, share_experts_out
from abruzzi_jobs.models import DecoderConfig
from abruzzi_jobs.optim import (
    ClipStatistics,
    MuonClip,
    OptimizerConfig,
    OptimizerStatistics,
    Spectrum,
    plan_parameters,
)
from abruzzi_jobs.optim.qk_clip import clip_statistics, gammas


class ShardedMuonClip:
    """Of the parameters of a pipeline rank. All ranks call everything together: each method but `accumulate`, `own_gradients` and `zero` is a collective."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: OptimizerConfig,
        *,
        model: DecoderConfig,
        layers: Sequence[int],
        mesh: Mesh,
    ) -> None:
        """`layers` of this rank, in ascending order. Moves the parameters into flat buffers; their values stay."""
        self.config, self.model, self.mesh = config, model, mesh
        self.parameters = dict(parameters)
        self._layers = list(layers)
        plans = plan_parameters({name: tuple(p.shape) for name, p in parameters.items()}, config, model=model)
        self.pieces = {
            "dense": share_dense(plans, mesh.data.size, steps=config.newton_schulz_steps),
            "experts": share_experts_out(plans, mesh.expert_data.size),
        }
        self._gradients: dict[str, Tensor] = {}
        self._owned = [
            *self._lay_out(self.pieces["dense"], mesh.data),
            *self._lay_out(self.pieces["experts"], mesh.expert_data),
        ]
        self._shared = OwnedPieces(self._owned, rank=mesh.ranks.rank)
        mine = self.own_pieces = self._mine()
        self.own = MuonClip(
            {piece.name: nn.Parameter(self.parameters[piece.name].data[piece.first : piece.last]) for piece in mine},
            config,
            model=model,
        )
        self._own_gradients = {piece.name: self._gradients[piece.name][piece.first : piece.last] for piece in mine}
        self._attach()
        self._statistics: OptimizerStatistics | None = None

    @torch.no_grad()
    def accumulate(self) -> None:
        """Gradients that are not float32 go into their float32 accumulators; the others are there already."""
        for name, parameter in self.parameters.items():
            gradient = self._gradients[name]
            if parameter.grad is not None and parameter.dtype != gradient.dtype:
                gradient.add_(parameter.grad)
                parameter.grad = None

    def own_gradients(self) -> Mapping[str, Tensor]:
        """Of this rank's parameters so far, by name, float32; before `reduce`."""
        self.accumulate()
        return self._gradients

    @torch.no_grad()
    def reduce(self) -> float:
        """Sum each piece's gradient at its owner. Returns the global norm, over all stages."""
        self.accumulate()
        self._shared.reduce()
        squares = torch.zeros((), dtype=torch.float64, device=self.mesh.ranks.device)
        if self._own_gradients:
            squares += torch.stack(torch._foreach_norm([*self._own_gradients.values()])).double().square().sum()
        return math.sqrt(float(self.mesh.ranks.sum_(squares)))

    @torch.no_grad()
    def step(self, lr_scale: float = 1.0, *, grad_scale: float = 1.0, measure: bool = False) -> None:
        """One update of the owned pieces; `share` gives them to the others. Rates as in `MuonClip.step`."""
        self.own.step(lr_scale, gradients=self._own_gradients, grad_scale=grad_scale, measure=measure)
        if measure:
            self._statistics = None

    @torch.no_grad()
    def clip_qk(self, max_logit_YH: Tensor) -> ClipStatistics:
        """QK-Clip with the maxima of all layers of the model; each owner scales what it has."""
        rows = max_logit_YH[self._layers]
        self.own.clip_qk(rows, layers=self._layers)
        if self.config.kind != "muonclip":
            return clip_statistics(torch.ones_like(max_logit_YH))
        return clip_statistics(gammas(max_logit_YH, threshold=self.config.qk_clip_threshold))

    @torch.no_grad()
    def share(self) -> None:
        """Give the owned pieces' new values to all who compute with them, and begin new gradients."""
        self._shared.broadcast()
        self.zero()

    @torch.no_grad()
    def zero(self) -> None:
        for piece in self._owned:
            piece.gradient.zero_()
        self._attach()

    def statistics(self) -> OptimizerStatistics:
        """Over all ranks."""
        if self._statistics is None:
            own = self.own.statistics()
            rms = [own.update_rms_muon, own.update_rms_adamw]
            sizes = [own.muon_parameters, own.adamw_parameters]
            squares = [0.0 if value is None else value**2 * size for value, size in zip(rms, sizes, strict=True)]
            seen = [0 if value is None else size for value, size in zip(rms, sizes, strict=True)]
            table = torch.tensor([own.muon_matrices, *sizes, *squares, *seen], dtype=torch.float64)
            matrices, muon, adamw, *rest = self.mesh.ranks.sum_(table.to(self.mesh.ranks.device)).tolist()
            means = [math.sqrt(rest[i] / rest[i + 2]) if rest[i + 2] else None for i in (0, 1)]
            self._statistics = OptimizerStatistics(int(matrices), int(muon), int(adamw), means[0], means[1])
        return self._statistics

    def spectra(self) -> dict[int, dict[str, Spectrum]]:
        """Of all layers, on all ranks."""
        sides = ("q", "k")
        table = torch.zeros(self.model.num_layers, len(sides), 2, dtype=torch.float64)
        for layer, found in self.own.spectra().items():
            for side, spectrum in found.items():
                table[layer, sides.index(side)] = torch.tensor(
                    [spectrum.spectral_norm, spectrum.singular_value_entropy]
                )
        rows = self.mesh.ranks.sum_(table.to(self.mesh.ranks.device)).tolist()
        return {
            layer: {side: Spectrum(*row[place]) for place, side in enumerate(sides)} for layer, row in enumerate(rows)
        }

    def place(self, piece: Piece) -> tuple[int, int]:
        """(first row, rows) of a piece in the whole tensor, experts of other ranks included."""
        parameter = self.parameters[piece.name]
        if parameter.ndim < 3:
            return piece.first, len(parameter)
        return piece.first + self.mesh.ep_rank * len(parameter), len(parameter) * self.mesh.layout.ep

    def _mine(self) -> list[Piece]:
        places = {"dense": self.mesh.data_rank, "experts": self.mesh.edp_rank}
        return [piece for kind, pieces in self.pieces.items() for piece in pieces if piece.owner == places[kind]]

    def _lay_out(self, pieces: Sequence[Piece], group: Group) -> list[Owned]:
        """Whole parameters of one owner and dtype in one buffer; a parameter of several owners in its own."""
        found: list[Owned] = []
        owners: dict[str, list[Piece]] = {}
        for piece in pieces:
            owners.setdefault(piece.name, []).append(piece)
        buckets: dict[tuple[int, torch.dtype], list[str]] = {}
        for name, parts in owners.items():
            if len(parts) == 1:
                buckets.setdefault((parts[0].owner, self.parameters[name].dtype), []).append(name)
                continue
            parameter = self.parameters[name]
            parameter.data = parameter.data.contiguous()
            gradient = self._gradients[name] = torch.zeros_like(parameter, dtype=_wide(parameter.dtype))
            for part in parts:
                rows = slice(part.first, part.last)
                found.append(Owned(gradient[rows], parameter.data[rows], part.owner, group))
        for (owner, dtype), names in buckets.items():
            sizes = [self.parameters[name].numel() for name in names]
            device = self.parameters[names[0]].device
            flat = torch.empty(sum(sizes), dtype=dtype, device=device)
            gradient = torch.zeros(sum(sizes), dtype=_wide(dtype), device=device)
            for name, values, grads in zip(names, flat.split(sizes), gradient.split(sizes), strict=True):
                parameter = self.parameters[name]
                parameter.data = values.view(parameter.shape).copy_(parameter.data)
                self._gradients[name] = grads.view(parameter.shape)
            found.append(Owned(gradient, flat, owner, group))
        return found

    def _attach(self) -> None:
        """Where a gradient is as wide as its parameter, autograd adds to the accumulator itself."""
        for name, parameter in self.parameters.items():
            gradient = self._gradients[name]
            parameter.grad = gradient if gradient.dtype == parameter.dtype else None


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Of the accumulator."""
    return dtype if dtype == torch.float64 else torch.float32
