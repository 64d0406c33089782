"""Seconds of an operation by its shape: from a device's rates, or from a table measured on a machine (`abruzzi.contracts.calibration`).

What was measured at that very shape is taken as it is. Products of another shape go by the nearest one's FLOP/s; what grows with tokens or bytes
lies on the line through the two nearest sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import mul
from typing import Literal, Protocol

from abruzzi.contracts.calibration import Calibration, Operation

Part = Literal["dense", "moe", "embedding", "head"]
Pass = Literal["forward", "input_gradient", "weight_gradient"]
_PASSES: dict[Pass, int] = {"forward": 2, "input_gradient": 3, "weight_gradient": 0}
"""How often what a layer's forward writes crosses the device's memory outside of matrix multiplications: written and read; in backward the
gradient is written and read beside what is read."""


class ComputeRates(Protocol):
    """Of `devices.Rates`, what computing takes."""

    @property
    def matmul(self) -> float: ...
    @property
    def grouped_matmul(self) -> float: ...
    @property
    def attention(self) -> float: ...
    @property
    def memory(self) -> float: ...


class Operations(Protocol):
    def matmul(self, m: int, k: int, n: int) -> float: ...
    def grouped_matmul(self, rows: int, experts: int, k: int, n: int) -> float: ...
    def attention(
        self, sequences: int, length: int, heads: int, key: int, value: int, *, gradient: bool = False
    ) -> float: ...
    def rest(self, part: Part, step: Pass, *, tokens: int, hidden: int, kept_bytes: float) -> float:
        """Of one layer, or of embedding or head, beyond products and attention; `kept_bytes` is what its forward writes."""
        ...


def attention_flops(sequences: int, length: int, heads: int, key: int, value: int) -> float:
    """Causal: each token sees half of its sequence on average."""
    return 2.0 * heads * (key + value) * (length / 2) * sequences * length


@dataclass(frozen=True, slots=True)
class ByRates:
    rates: ComputeRates

    def matmul(self, m: int, k: int, n: int) -> float:
        return 2.0 * m * k * n / self.rates.matmul

    def grouped_matmul(self, rows: int, experts: int, k: int, n: int) -> float:
        return 2.0 * rows * k * n / self.rates.grouped_matmul

    def attention(
        self, sequences: int, length: int, heads: int, key: int, value: int, *, gradient: bool = False
    ) -> float:
        return (2 if gradient else 1) * attention_flops(sequences, length, heads, key, value) / self.rates.attention

    def rest(self, part: Part, step: Pass, *, tokens: int, hidden: int, kept_bytes: float) -> float:
        return _PASSES[step] * kept_bytes / self.rates.memory


@dataclass(frozen=True)
class OperationTable:
    """Hashable, so that a plan is made once."""

    measured: tuple[tuple[Operation, tuple[int, ...], float], ...]
    crowding: tuple[tuple[int, float], ...]
    cores: int = 1

    @classmethod
    def of(cls, calibration: Calibration) -> OperationTable:
        return cls(
            tuple((m.op, m.shape, m.seconds) for m in calibration.operations), calibration.crowding, calibration.cores
        )

    def matmul(self, m: int, k: int, n: int) -> float:
        return self._nearest(Operation.MATMUL, (m, k, n), _product)

    def grouped_matmul(self, rows: int, experts: int, k: int, n: int) -> float:
        return self._nearest(Operation.GROUPED_MATMUL, (rows, experts, k, n), lambda s: s[0] * s[2] * s[3])

    def attention(
        self, sequences: int, length: int, heads: int, key: int, value: int, *, gradient: bool = False
    ) -> float:
        op = Operation.ATTENTION_GRADIENT if gradient else Operation.ATTENTION
        return self._nearest(op, (sequences, length, heads, key, value), lambda s: attention_flops(*s))

    def rest(self, part: Part, step: Pass, *, tokens: int, hidden: int, kept_bytes: float) -> float:
        return self._on_line(Operation(f"{part}_{step}"), (), tokens)

    def newton_schulz(self, matrices: int, rows: int, columns: int, steps: int) -> float:
        m, n = sorted((rows, columns))

        def flops(shape: tuple[int, ...]) -> float:
            return shape[0] * shape[3] * (4.0 * shape[1] ** 2 * shape[2] + 2.0 * shape[1] ** 3)

        return self._nearest(Operation.NEWTON_SCHULZ, (matrices, m, n, steps), flops)

    def sized(self, op: Operation, size: int, *, ranks: int | None = None) -> float:
        """Of an operation that grows with bytes, tokens or parameters, among so many ranks."""
        return self._on_line(op, () if ranks is None else (ranks,), size)

    def speed(self, processes: int) -> float:
        """Of each of so many that compute at once, beside one alone."""
        count, each = max((count, each) for count, each in self.crowding if count <= processes)
        return each * count / processes

    @cached_property
    def _points(self) -> dict[Operation, list[tuple[tuple[int, ...], float]]]:
        found: dict[Operation, list[tuple[tuple[int, ...], float]]] = {}
        for op, shape, seconds in self.measured:
            found.setdefault(op, []).append((shape, seconds))
        return found

    def _of(self, op: Operation) -> list[tuple[tuple[int, ...], float]]:
        points = self._points.get(op)
        if not points:
            raise ValueError(f"the calibration has no {op.value}: measure it again")
        return points

    def _nearest(self, op: Operation, shape: tuple[int, ...], size: Callable[[tuple[int, ...]], float]) -> float:
        def distance(point: tuple[tuple[int, ...], float]) -> float:
            return sum(abs(math.log(a / b)) for a, b in zip(shape, point[0], strict=True))

        found, seconds = min(self._of(op), key=distance)
        return seconds * size(shape) / size(found)

    def _on_line(self, op: Operation, key: tuple[int, ...], size: int) -> float:
        """`key`: the first dims of the shape, where the nearest must do; the next one is the size."""
        points = self._of(op)
        if key:
            nearest = min({shape[0] for shape, _ in points}, key=lambda ranks: (abs(ranks - key[0]), ranks))
            points = [(shape, seconds) for shape, seconds in points if shape[0] == nearest]
        known = sorted((shape[len(key)], seconds) for shape, seconds in points)
        if len(known) == 1:
            return known[0][1] * size / known[0][0]
        at = next((i for i in range(1, len(known) - 1) if size <= known[i][0]), len(known) - 1)
        (low, one), (high, two) = known[at - 1], known[at]
        return one + (two - one) * (size - low) / (high - low)


def _product(shape: tuple[int, ...]) -> float:
    return float(reduce(mul, shape))
