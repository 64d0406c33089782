"""What a rank computes and moves a second: the one table that every time of the plan is divided by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from abruzzi.contracts.calibration import Calibration, Operation
from abruzzi.plan.operations import ByRates, Operations, OperationTable, attention_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """FLOP/s of each kind of operation and bytes/s of each way, of one rank; ways to others count in each direction."""

    matmul: float
    grouped_matmul: float
    """Experts: many small matrices in one call."""
    attention: float
    newton_schulz: float
    memory: float
    """Of the device's own memory: what norms, SwiGLU, routing and casts are bound by."""
    host_copy: float
    """Between device and host (PCIe)."""
    within_node: float
    between_nodes: float
    checkpoint_write: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    name: str
    peak_flops: float
    memory_bytes: int | None
    """None: nobody knows, so nothing is refused for its sake."""
    reserve_bytes: int
    """Context, communication buffers and fragments: never for tensors."""
    node_memory_bytes: int | None
    ranks_per_node: int
    rates: Rates
    source: str
    table: OperationTable | None = None
    """Measured: goes before the rates. Ranks share the machine's cores then, and exchange tokens while they compute nothing else."""

    @property
    def operations(self) -> Operations:
        return self.table or ByRates(self.rates)

    def as_assumptions(self) -> dict[str, Any]:
        """Shown in every plan beside what it yields."""
        shown = asdict(self)
        shown.pop("table")
        return {"device": shown.pop("name"), **shown}


_H800_PEAK = 989e12
_H800 = Device(
    name="H800",
    peak_flops=_H800_PEAK,
    memory_bytes=80_000_000_000,
    reserve_bytes=4_000_000_000,
    node_memory_bytes=2_000_000_000_000,
    ranks_per_node=8,
    rates=Rates(
        matmul=0.6 * _H800_PEAK,
        grouped_matmul=0.5 * _H800_PEAK,
        attention=0.4 * _H800_PEAK,
        newton_schulz=0.4 * _H800_PEAK,
        memory=0.75 * 3.35e12,
        host_copy=0.8 * 64e9,
        within_node=0.8 * 200e9,
        between_nodes=0.8 * 50e9,
        checkpoint_write=1e9,
    ),
    source="data sheet; 8 x 400 Gbit/s and 2 TB a node by the paper; shares of the peaks are assumed, 1 GB/s a rank to storage too",
)
_CPU = Device(
    name="CPU rank",
    peak_flops=50e9,
    memory_bytes=None,
    reserve_bytes=0,
    node_memory_bytes=None,
    ranks_per_node=64,
    rates=Rates(
        matmul=25e9,
        grouped_matmul=25e9,
        attention=25e9,
        newton_schulz=25e9,
        memory=10e9,
        host_copy=5e9,
        within_node=1e9,
        between_nodes=1e9,
        checkpoint_write=0.5e9,
    ),
    source="two cores, float32, as bench/train_step measures",
)
_DEVICES = {"h800": _H800, "local": _CPU}


def measured_device(calibration: Calibration) -> Device:
    """A machine by its table; of what the table does not know (host copies, writing checkpoints) the CPU's assumed rates. Its own rates are those of the
    largest operations."""
    table = OperationTable.of(calibration)

    def rate(op: Operation, flops: Callable[[tuple[int, ...]], float]) -> float:
        return max(flops(m.shape) / m.seconds for m in calibration.operations if m.op is op)

    matmul = rate(Operation.MATMUL, lambda s: 2.0 * s[0] * s[1] * s[2])
    return Device(
        name=calibration.machine,
        peak_flops=matmul,
        memory_bytes=calibration.memory_bytes,
        reserve_bytes=0,
        node_memory_bytes=calibration.memory_bytes,
        ranks_per_node=_CPU.ranks_per_node,
        rates=replace(
            _CPU.rates,
            matmul=matmul,
            grouped_matmul=rate(Operation.GROUPED_MATMUL, lambda s: 2.0 * s[0] * s[2] * s[3]),
            attention=rate(Operation.ATTENTION, lambda s: attention_flops(*s)),
        ),
        source=f"{len(calibration.operations)} operations measured on {calibration.cores} cores; copies and checkpoints assumed",
        table=table,
    )


def device_of(flavor: str) -> Device:
    """By a pool's flavor, or its name where nobody knows the flavor; a CPU rank where neither is known."""
    return _DEVICES.get(flavor.lower(), _CPU)


def has_gpus(flavor: str) -> bool:
    return device_of(flavor) is not _CPU
