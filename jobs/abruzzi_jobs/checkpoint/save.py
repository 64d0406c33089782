"""Saving: the step's tensors are copied (the stall), then a thread writes, commits and verifies them, and removes old ones.

Files: `model.safetensors` (logical names, experts as [E, out, in]), `optimizer.safetensors`, `state.json`. The name is `step-<8 digits>`.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from abruzzi.client.stage import StageContext
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.training import CheckpointConfig
from abruzzi.store import (
    CorruptArtifact,
    DirectoryStore,
    blob_key,
    check_free_space,
    is_pinned,
    list_manifests,
    prefix_of,
    remove_artifact,
    verify_manifest,
)
from abruzzi_jobs.checkpoint.retention import choose_removals
from abruzzi_jobs.checkpoint.state import STATE_FILE, Stateful, TrainingState

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
_TRIES = 4
"""Of one save, while the object store is away; then the stage asks to be tried again."""
_PAUSE_SECONDS = 1.0

Snapshot = Mapping[str, Mapping[str, Tensor]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SaveReport:
    """Of one finished save."""

    step: int
    stall_seconds: float
    """That training stood still: the wait for the save before, and the copy."""
    write_seconds: float
    size_bytes: int
    kept_bytes: int
    """Of all checkpoints of the stage that are kept; shared files count once."""
    kept: int
    free_bytes: int | None

    def metrics(self) -> dict[str, float]:
        found = {
            "checkpoint/stall_seconds": self.stall_seconds,
            "checkpoint/write_seconds": self.write_seconds,
            "checkpoint/bytes": float(self.size_bytes),
            "checkpoint/kept_bytes": float(self.kept_bytes),
            "checkpoint/kept": float(self.kept),
        }
        if self.free_bytes is not None:
            found["checkpoint/disk_free_bytes"] = float(self.free_bytes)
        return found


class Checkpointer:
    """Used on rank 0 only. One save is in flight at a time."""

    def __init__(
        self, context: StageContext, config: CheckpointConfig, *, pause_seconds: float = _PAUSE_SECONDS
    ) -> None:
        self._context, self._config, self._pause_seconds = context, config, pause_seconds
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._reports: list[SaveReport] = []
        self._verified: dict[str, bool] = {}
        self._began_at = time.monotonic()
        self._base_step = -1

    def begin(self, model: Stateful, optimizer: Stateful, *, resumed_step: int | None) -> None:
        """Training begins, afresh or at a step of this very stage. Raises AbruzziError `disk_full` before any work could be lost."""
        self._base_step = -1 if resumed_step is None else resumed_step
        self.check_room(_size_bytes(model, optimizer))

    def is_due(self, step: int) -> bool:
        """After `step` steps: by steps, or by wall time since the last one began."""
        every = self._config.every_steps
        if every is not None and step % every == 0:
            return True
        return self._config.every is not None and time.monotonic() - self._began_at >= self._config.every

    def save(self, model: Stateful, optimizer: Stateful, state: TrainingState) -> None:
        """Begin to save; training stands still for the copy only. Raises what the save before met, and `disk_full`."""
        began = time.monotonic()
        self.finish()
        self.check_room(_size_bytes(model, optimizer))
        snapshot = _snapshot(model, optimizer)
        self._began_at = time.monotonic()
        stall = self._began_at - began
        self._thread = threading.Thread(
            target=self._work, args=(snapshot, state, stall), name="abruzzi-checkpoint", daemon=True
        )
        self._thread.start()

    def finish(self) -> None:
        """Wait for a save in flight. Raises what it met."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_failure()

    def raise_failure(self) -> None:
        """What the last save met, if anything: training must not go on for hours without a checkpoint."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def take_reports(self) -> list[SaveReport]:
        """Of the saves that have ended since the last call."""
        reports = list(self._reports)
        del self._reports[: len(reports)]
        return reports

    def check_room(self, checkpoint_bytes: int) -> None:
        """Raises AbruzziError `disk_full` before a save would leave less than `min_free_bytes`."""
        store, scratch = self._context.store, self._context.scratch
        needed = {scratch: checkpoint_bytes}
        if isinstance(store, DirectoryStore):
            if os.stat(store.root).st_dev == os.stat(scratch).st_dev:
                needed[scratch] += checkpoint_bytes
            else:
                needed[store.root] = checkpoint_bytes
        for path, size in needed.items():
            check_free_space(path, self._config.min_free_bytes, size)

    # The thread

    def _work(self, snapshot: Snapshot, state: TrainingState, stall: float) -> None:
        folder = self._context.scratch / f"step-{state.step:08d}"
        began = time.monotonic()
        try:
            shutil.rmtree(folder, ignore_errors=True)
            files = _write(snapshot, state, folder)
            manifest = self._persistently(lambda: self._commit(files, state), state.step)
            removed = self._retain(state.step)
            seconds = time.monotonic() - began
            self._reports.append(self._persistently(lambda: self._report(manifest, stall, seconds), state.step))
            logger.info(
                "checkpoint %s: %.1f MB, training stood still for %.0f ms%s",
                manifest.name, manifest.size_bytes / 1e6, 1e3 * stall,
                f"; {removed} old ones removed" if removed else "",
            )  # fmt: skip
        except BaseException as error:  # raised again in the training loop
            self._error = error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _commit(self, files: Mapping[str, Path], state: TrainingState) -> Manifest:
        meta = {"step": state.step, "tokens": state.tokens, "phase": state.phase}
        meta |= {
            name: value for name, value in (("loss", state.loss), ("valid_loss", state.valid_loss)) if value is not None
        }
        name = f"step-{state.step:08d}"
        manifest = self._context.commit(ArtifactKind.CHECKPOINT, name, files, meta, state.step)
        self._heal(manifest, files)
        self._verified[manifest.digest()] = True
        return manifest

    def _persistently(self, act: Callable[[], T], step: int) -> T:
        """Again and again while the store is away; what is done already is found and not done twice."""
        for number in range(1, _TRIES + 1):
            try:
                return act()
            except (OSError, AbruzziError) as error:
                if number == _TRIES or (isinstance(error, AbruzziError) and error.status < 500):
                    raise
                logger.warning("checkpoint step %d: %s Trying again.", step, error)
                time.sleep(self._pause_seconds * 2 ** (number - 1))
        raise AssertionError("the last try returns or raises")

    def _heal(self, manifest: Manifest, files: Mapping[str, Path]) -> None:
        """Verify what is in the store. Training again what a damaged checkpoint held makes the same files, whose blobs are taken for present:
        a damaged one is written anew. Raises CorruptArtifact when that does not help."""
        store, prefix = self._context.store, self._context.spec.output_prefix
        for _ in manifest.files:
            try:
                verify_manifest(store, manifest, prefix)
                return
            except CorruptArtifact as error:
                logger.warning("%s Writing it anew.", error.message)
                digest = next(entry.digest for entry in manifest.files if entry.path == error.path)
                store.put(blob_key(prefix, digest), files[error.path])
        verify_manifest(store, manifest, prefix)

    def _retain(self, step: int) -> int:
        removals = self._persistently(self._choose_removals, step)
        for key, manifest in removals:
            self._persistently(lambda key=key, m=manifest: remove_artifact(self._context.store, key, m), step)
        return len(removals)

    def _choose_removals(self) -> list[tuple[str, Manifest]]:
        removable = choose_removals(
            self._own(),
            epoch=self._context.spec.epoch,
            base_step=self._base_step,
            keep_last=self._config.keep_last,
            keep_every_steps=self._config.keep_every_steps,
            verifies=self._verifies,
        )
        return [(key, manifest) for key, manifest in removable if not is_pinned(self._context.store, key)]

    def _own(self) -> list[tuple[str, Manifest]]:
        """Of this stage, by this attempt and those before it: never of one that has replaced it."""
        return [
            (key, m)
            for key, m in list_manifests(self._context.store, self._context.spec.output_prefix)
            if m.kind is ArtifactKind.CHECKPOINT and m.epoch <= self._context.spec.epoch
        ]

    def _verifies(self, key: str, manifest: Manifest) -> bool:
        digest = manifest.digest()
        if digest not in self._verified:
            try:
                verify_manifest(self._context.store, manifest, prefix_of(key))
                self._verified[digest] = True
            except CorruptArtifact as error:
                logger.warning("%s", error)
                self._verified[digest] = False
        return self._verified[digest]

    def _report(self, manifest: Manifest, stall: float, seconds: float) -> SaveReport:
        kept = self._own()
        sizes = {entry.digest: entry.size_bytes for _, m in kept for entry in m.files}
        return SaveReport(
            step=manifest.step or 0, stall_seconds=stall, write_seconds=seconds, size_bytes=manifest.size_bytes,
            kept_bytes=sum(sizes.values()), kept=len(kept), free_bytes=self._context.store.free_bytes(),
        )  # fmt: skip


def _snapshot(model: Stateful, optimizer: Stateful) -> Snapshot:
    """Copies in main memory, consistent: taken between two steps."""
    return {
        WEIGHTS_FILE: {name: _copy(tensor) for name, tensor in model.state_dict().items()},
        OPTIMIZER_FILE: {name: _copy(tensor) for name, tensor in optimizer.state_dict().items()},
    }


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _size_bytes(model: Stateful, optimizer: Stateful) -> int:
    tensors = [*model.state_dict().values(), *optimizer.state_dict().values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _write(snapshot: Snapshot, state: TrainingState, folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True)
    for name, tensors in snapshot.items():
        save_file(dict(tensors), folder / name)
    state.write(folder / STATE_FILE)
    return {name: folder / name for name in (*snapshot, STATE_FILE)}
