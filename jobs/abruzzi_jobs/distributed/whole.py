"""What ranks have parts of, by the logical names and shapes of the whole: a checkpoint says nothing of the layout that saved it, and any other takes
its own parts from it.

A rank's part is some rows of the first dimension: experts are dim 0 of a stacked tensor, and ZeRO-1 cuts nothing but rows (ownership.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from abruzzi_jobs.distributed.ownership import Piece
from abruzzi_jobs.distributed.stages import named_parameters
from abruzzi_jobs.distributed.zero1 import ShardedMuonClip
from abruzzi_jobs.models import Decoder, DecoderConfig, YarnConfig


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a whole tensor, from `first` on, where they lie: not a copy."""

    name: str
    first: int
    rows: int
    """Of the whole tensor; 1 for one without dimensions."""
    tensor: Tensor

    @property
    def last(self) -> int:
        return self.first + (len(self.tensor) if self.tensor.ndim else 1)

    @property
    def is_whole(self) -> bool:
        return self.last - self.first == self.rows

    @property
    def whole_shape(self) -> tuple[int, ...]:
        return (self.rows, *self.tensor.shape[1:]) if self.tensor.ndim else ()


def whole_parts(tensors: Mapping[str, Tensor]) -> list[Part]:
    return [Part(name, 0, len(tensor) if tensor.ndim else 1, tensor) for name, tensor in tensors.items()]


class WholeModel:
    """A rank's chunks, as parts of the whole model."""

    def __init__(self, kind: type[Decoder], chunks: Mapping[int, Decoder], optimizer: ShardedMuonClip) -> None:
        self.chunks, self.optimizer = dict(chunks), optimizer
        self.config: DecoderConfig = optimizer.model
        self.shapes = {name: tuple(t.shape) for name, t in kind(self.config, device="meta").state_dict().items()}
        """Of the whole model."""

    def set_yarn(self, yarn: YarnConfig | None) -> None:
        """As `Decoder.set_yarn`, on all chunks of this rank."""
        self.config = replace(self.config, yarn=yarn)
        for chunk in self.chunks.values():
            chunk.set_yarn(yarn)

    def parts(self) -> list[Part]:
        """What this rank saves: over all ranks, everything once."""
        return [*self._pieces(), *(self._buffers() if self.optimizer.mesh.data_rank == 0 else ())]

    def targets(self) -> list[Part]:
        """What this rank takes; `taken` gives it to whoever else computes with it."""
        return [*self._pieces(), *self._buffers()]

    def resident(self) -> list[Part]:
        """What this rank computes with, whoever owns it."""
        of_all = [piece for pieces in self.optimizer.pieces.values() for piece in pieces]
        return [*self._pieces(of_all), *self._buffers()]

    def taken(self) -> None:
        """The targets hold new values. A collective."""
        self.optimizer.own.take_masters()
        self.optimizer.share()

    def _pieces(self, pieces: Iterable[Piece] | None = None) -> Iterable[Part]:
        """Its own, unless others are given."""
        parameters = named_parameters(self.chunks)
        for piece in self.optimizer.own_pieces if pieces is None else pieces:
            yield _part(self.optimizer, piece, piece.name, parameters[piece.name].data[piece.first : piece.last])

    def _buffers(self) -> list[Part]:
        return whole_parts({name: buffer for chunk in self.chunks.values() for name, buffer in chunk.named_buffers()})


class WholeOptimizer:
    """The states that a rank owns, as parts of all. The same names as MuonClip's."""

    def __init__(self, optimizer: ShardedMuonClip) -> None:
        self.optimizer = optimizer

    def parts(self) -> list[Part]:
        """What this rank saves: over all ranks, everything once."""
        is_first = self.optimizer.mesh.ranks.rank == 0
        return [part for part in self.targets() if part.name != "step" or is_first]

    def targets(self) -> list[Part]:
        """What this rank takes."""
        pieces = {piece.name: piece for piece in self.optimizer.own_pieces}
        found = []
        for key, tensor in self.optimizer.own.state_dict().items():
            if key == "step":
                found += whole_parts({key: tensor})
            else:
                found.append(_part(self.optimizer, pieces[key.partition(".")[2]], key, tensor))
        return found

    def resident(self) -> list[Part]:
        """What this rank computes with."""
        return self.targets()

    def taken(self) -> None:
        """The targets hold new values: parameters follow their masters, on all ranks that have them. A collective."""
        self.optimizer.own.give_masters()
        self.optimizer.share()


def _part(optimizer: ShardedMuonClip, piece: Piece, name: str, tensor: Tensor) -> Part:
    first, rows = optimizer.place(piece)
    return Part(name, first, rows, tensor)
