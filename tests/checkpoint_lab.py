"""Checkpoints whose every value follows from its name, saved and loaded by the ranks of any layout."""

from __future__ import annotations

import gc
import os
import signal
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from abruzzi.client.stage import StageContext
from abruzzi.contracts.artifact import ArtifactRef, Manifest
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.contracts.training import CheckpointConfig, ParallelConfig
from abruzzi.contracts.training import ModelConfig as ContractModel
from abruzzi.plan.layout import layer_ranges
from abruzzi.store import DirectoryStore, list_manifests, newest_verified_checkpoint
from abruzzi_jobs.checkpoint import Checkpointer, Peers, TrainingState, exchange, load_checkpoint, open_checkpoint
from abruzzi_jobs.checkpoint.seal import Seal
from abruzzi_jobs.checkpoint.state import resident_of, targets_of
from abruzzi_jobs.distributed import Layout, Mesh, Ranks
from abruzzi_jobs.distributed.whole import WholeModel, WholeOptimizer
from abruzzi_jobs.memory import MemoryPolicy
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import MuonClip, OptimizerConfig, build_optimizer
from abruzzi_jobs.train.parallel import build_parallel

PREFIX = "projects/default/runs/abcdefghjk/pretrain/"
MODEL = ModelConfig(
    vocab_size=66, hidden_size=32, num_layers=4, num_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8,
    qk_rope_head_dim=8, v_head_dim=8, intermediate_size=64, moe_intermediate_size=16, num_experts=4, num_experts_per_token=2,
)  # fmt: skip
"""Rows of the embedding, for one, do not come out even."""
MEMORY = MemoryPolicy(dtype="bfloat16")
"""So that there are masters, too."""


class Store(DirectoryStore):
    """Counts what is read of files; may be told to fail, or to end the process, at a write."""

    read_bytes = 0
    writes = 0
    dies_at: int | None = None
    """Write, counted from 1."""
    fails_at: int | None = None
    _lock = threading.Lock()

    def open(self, key: str, *, start: int = 0) -> BinaryIO:
        if "/blobs/" in key:
            count = self.size(key) - start
            with self._lock:  # several files are read at once
                self.read_bytes += count
        return super().open(key, start=start)

    def put_below(self, prefix: str, content: bytes | memoryview, key: Callable[[], str]) -> None:
        self._count()
        super().put_below(prefix, content, key)

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        self._count()
        return super().put_if_absent(key, content)

    def _count(self) -> None:
        self.writes += 1
        if self.writes == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.writes == self.fails_at:
            raise AbruzziError("store_error", "The object store refused it.", status=403, hint="Let it.")


class Ground:
    """A rank with model and optimizer: of a layout, or whole (`layout` None)."""

    def __init__(self, root: Path, ranks: Ranks, layout: Layout | None, *, resume: ArtifactRef | None = None) -> None:
        self.ranks = ranks
        self.store = Store(root / "store")
        spec = StageSpec(
            project_id="default", run_id="abcdefghjk", stage_id="pretrain", attempt_id="abcdefghjk-pretrain-1", epoch=1,
            kind=StageKind.PRETRAIN, config={}, store=DirectoryConfig(root=str(root / "store")), output_prefix=PREFIX, resume=resume,
        )  # fmt: skip
        self.context = StageContext(spec, ranks.rank, ranks.world_size, root, self.store)
        self.mesh = None if layout is None else Mesh(ranks, layout)
        self.model: KimiK2 | WholeModel
        self.optimizer: MuonClip | WholeOptimizer
        if self.mesh is None:
            self.model = KimiK2(MODEL, seed=1, dtype=MEMORY.compute_dtype)
            self.optimizer = build_optimizer(self.model.named_parameters(), OptimizerConfig(), model=MODEL)
        else:
            given = ContractModel.model_validate(MODEL.to_dict())
            layers = layer_ranges(given, ParallelConfig(pp=self.mesh.layout.pp, vpp=self.mesh.layout.vpp))
            self.model = build_parallel(
                KimiK2, MODEL, OptimizerConfig(), self.mesh, layers=layers, memory=MEMORY, seed=1
            )
            self.optimizer = WholeOptimizer(self.model.optimizer)
        peers = Peers() if self.mesh is None else Peers(ranks)
        self.checkpointer = Checkpointer(
            self.context, CheckpointConfig(min_free_bytes=0), peers=peers, pause_seconds=0.01
        )
        self.checkpointer.begin(self.model, self.optimizer, resumed_step=None)

    @torch.no_grad()
    def fill(self, version: int) -> None:
        """With the values of a version."""
        for part in [*targets_of(self.model), *targets_of(self.optimizer)]:
            whole = value(part.name, part.whole_shape, part.tensor.dtype, version)
            part.tensor.copy_(whole[part.first : part.last] if whole.ndim else whole)

    def save(self, step: int, *, seal: Seal | None = None) -> None:
        state = TrainingState(step=step, tokens=step, phase="train", lr_scale=1.0, loader={}, divergence={}, config={})
        self.checkpointer.save(self.model, self.optimizer, state, seal=seal)

    def seal(self) -> Seal:
        return Seal({"model": resident_of(self.model), "optimizer": resident_of(self.optimizer)})

    def assert_holds(self, version: int) -> None:
        """All that this rank computes with, also what others own."""
        for part in [*targets_of(self.model), *targets_of(self.optimizer)]:
            whole = value(part.name, part.whole_shape, part.tensor.dtype, version)
            assert torch.equal(part.tensor, whole[part.first : part.last] if whole.ndim else whole), part.name
        if isinstance(self.model, WholeModel):
            for name, parameter in self.model.optimizer.parameters.items():
                whole = value(name, self.model.shapes[name], parameter.dtype, version)
                if parameter.ndim == 3:
                    whole = whole[self.model.optimizer.mesh.ep_rank * len(parameter) :][: len(parameter)]
                assert torch.equal(parameter, whole), name


def value(name: str, shape: Sequence[int], dtype: torch.dtype, version: int) -> Tensor:
    """Of a whole tensor; a parameter is its master, rounded."""
    seed = zlib.crc32(f"{version} {name.removeprefix('master.')}".encode())
    if not dtype.is_floating_point:
        return torch.full(tuple(shape), seed, dtype=dtype)
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)).to(dtype)


def manifests(root: Path) -> list[Manifest]:
    """Of the checkpoints that can be seen, newest first."""
    found = [m for _, m in list_manifests(Store(root / "store"), PREFIX) if m.kind is ArtifactKind.CHECKPOINT]
    return sorted(found, key=lambda manifest: manifest.step or 0, reverse=True)


def newest(root: Path) -> ArtifactRef | None:
    """As the platform picks it."""
    found = newest_verified_checkpoint(Store(root / "store"), PREFIX, max_epoch=1)
    if found.key is None or found.manifest is None:
        return None
    return ArtifactRef(kind=ArtifactKind.CHECKPOINT, manifest_key=found.key, digest=found.manifest.digest())


# What ranks do


def save(ranks: Ranks, root: Path, layout: Layout | None, step: int) -> None:
    """The values of version `step`; while they are written, training goes on to others."""
    ground = Ground(root, ranks, layout)
    ground.fill(step)
    if layout is not None or ranks.rank == 0:
        ground.save(step)
    ground.fill(-1)
    ground.checkpointer.finish()


def load(
    ranks: Ranks, root: Path, layouts: Sequence[Layout | None], *, ranks_of_a_node: int | None = None
) -> list[int]:
    """The newest, into each of the layouts: bytes that this rank has read for each. `ranks_of_a_node`: so many in a row see each other's memory; else all."""
    if ranks_of_a_node is not None:
        exchange.processes_here = lambda: f"node {ranks.rank // ranks_of_a_node}"  # in this process alone
    reference = newest(root)
    found = []
    for layout in layouts:
        ground = Ground(root, ranks, layout, resume=reference)
        opened = open_checkpoint(ground.context, ranks)
        assert opened is not None
        state = load_checkpoint(opened, ground.model, ground.optimizer, ranks=ranks)
        assert state.step == opened.manifest.step
        ground.assert_holds(state.step)
        found.append(ground.store.read_bytes)
    return found


def left_after_load(ranks: Ranks, root: Path, layout: Layout | None) -> tuple[int, list[str]]:
    """(bytes that this rank has read, memory of the checkpoint's files that it still has open or mapped)"""
    (read,) = load(ranks, root, [layout])
    gc.collect()
    open_files = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if entry.is_symlink()]
    mapped = Path("/proc/self/maps").read_text().splitlines()
    return read, [name for name in [*open_files, *mapped] if "abruzzi-checkpoint" in name]


def load_and_save(ranks: Ranks, root: Path, layouts: Sequence[Layout | None], step: int) -> list[int]:
    """The newest into each of the layouts, then a checkpoint of the last one."""
    found = load(ranks, root, layouts)
    save(ranks, root, layouts[-1], step)
    return found


def save_twice(
    ranks: Ranks, root: Path, layout: Layout, *, rank: int, dies_at: int | None = None, fails_at: int | None = None
) -> tuple[str, str]:
    """Steps 1 and 2; in the second, a rank is killed or fails at one of its writes. What `finish` raised: the error's code or type, and its text."""
    ground = Ground(root, ranks, layout)
    told: Any = ("", "")
    for step in (1, 2):
        ground.fill(step)
        if step == 2 and ranks.rank == rank:
            ground.store.writes, ground.store.dies_at, ground.store.fails_at = 0, dies_at, fails_at
        ground.save(step)
        try:
            ground.checkpointer.finish()
        except AbruzziError as error:
            told = (error.code, error.message)
        except RuntimeError as error:
            told = (type(error).__name__, str(error))
    return told


def save_flipped(ranks: Ranks, root: Path, layout: Layout | None, rank: int) -> str:
    """Steps 1 and 2, both sealed; before the second, a bit flips in a weight of that rank. The code of what `finish` raised."""
    ground = Ground(root, ranks, layout)
    for step in (1, 2):
        ground.fill(step)
        seal = ground.seal()
        if step == 2 and ranks.rank == rank:
            targets_of(ground.model)[0].tensor.view(-1)[:1].view(torch.int16).bitwise_xor_(1)
        ground.save(step, seal=seal)
        try:
            ground.checkpointer.finish()
        except AbruzziError as error:
            return error.code
    return ""
