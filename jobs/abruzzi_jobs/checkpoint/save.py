"""Saving: each rank copies what it owns to where its files lie in memory (the stall), then a thread stores them, commits and verifies them, and removes
old ones. Training goes on meanwhile.

In two phases: all ranks store their files under their digests, where nothing names them; when all have told the first rank that theirs are whole, it
writes the manifest. A rank that fails, or is killed, leaves no manifest: the checkpoint before stays the newest.

Files: `model.safetensors` (logical names, experts as [E, out, in]), `optimizer.safetensors`, `state.json`; of several ranks
`model-00001-of-00004.safetensors` and so on, each with its rank's rows (tensor_file.py). The name is `step-<8 digits>`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from abruzzi.client.stage import StageContext
from abruzzi.contracts.artifact import FileEntry, Manifest
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
    store_content,
    verify_manifest,
)
from abruzzi_jobs.checkpoint.peers import PeerFailed, Peers
from abruzzi_jobs.checkpoint.retention import choose_removals
from abruzzi_jobs.checkpoint.seal import CORRUPTION, Seal, refuse_broken
from abruzzi_jobs.checkpoint.state import STATE_FILE, Stateful, TrainingState, parts_of
from abruzzi_jobs.checkpoint.tensor_file import OPTIMIZER, WEIGHTS, TensorFile, file_name
from abruzzi_jobs.distributed.whole import WholeModel, WholeOptimizer

logger = logging.getLogger(__name__)

_TRIES = 4
"""Of one save, while the object store is away; then the stage asks to be tried again."""
_PAUSE_SECONDS = 1.0

Saved = Stateful | WholeModel
SavedOptimizer = Stateful | WholeOptimizer
T = TypeVar("T")
_Content = bytes | memoryview


@dataclass(frozen=True, slots=True)
class SaveReport:
    """Of one finished save."""

    step: int
    stall_seconds: float
    """That training stood still: the wait for the save before, and the copy."""
    write_seconds: float
    """From then on until it is committed."""
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
    """Of a rank that saves: all those of `peers` do each of its calls at the same step. One save is in flight at a time."""

    def __init__(
        self,
        context: StageContext,
        config: CheckpointConfig,
        *,
        peers: Peers | None = None,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._context, self._config, self._pause_seconds = context, config, pause_seconds
        self._peers = Peers() if peers is None else peers
        self._files: dict[str, TensorFile] = {}
        self._size_bytes = 0
        """Of all ranks' files."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._reports: list[SaveReport] = []
        self._verified: dict[str, bool] = {}
        self._began_at = time.monotonic()
        self._base_step = -1

    def begin(self, model: Saved, optimizer: SavedOptimizer, *, resumed_step: int | None) -> None:
        """Training begins, afresh or at a step of this very stage; what is saved keeps its shapes from now on. Raises AbruzziError `disk_full`
        before any work could be lost."""
        self._base_step = -1 if resumed_step is None else resumed_step
        parts = {WEIGHTS: parts_of(model), OPTIMIZER: parts_of(optimizer)}
        own = sum(part.tensor.nbytes for kind in parts.values() for part in kind)
        self._size_bytes = sum(self._peers.together(lambda: own))
        self.check_room()
        self._files = {kind: TensorFile(found) for kind, found in parts.items()}

    def is_due(self, step: int) -> bool:
        """After `step` steps: by steps, or by wall time since the last one began."""
        every = self._config.every_steps
        if every is not None and step % every == 0:
            return True
        return self._config.every is not None and time.monotonic() - self._began_at >= self._config.every

    def save(
        self,
        model: Saved,
        optimizer: SavedOptimizer,
        state: TrainingState,
        *,
        about: Mapping[str, Any] = MappingProxyType({}),
        seal: Seal | None = None,
    ) -> None:
        """Begin to save; training stands still for the copy only. `about`: further facts for the manifest. Raises what the save before met, and
        `disk_full`. What differs from the `seal` of the last update is committed by no rank: `corruption`."""
        began = time.monotonic()
        self.finish()
        self.check_room()
        self._files[WEIGHTS].fill(parts_of(model))
        self._files[OPTIMIZER].fill(parts_of(optimizer))
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        self._began_at = time.monotonic()
        stall = self._began_at - began
        self._thread = threading.Thread(
            target=self._work, args=(state, about, stall, seal), name="abruzzi-checkpoint", daemon=True
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

    def check_room(self) -> None:
        """Raises AbruzziError `disk_full` before a save would leave less than `min_free_bytes`."""
        store = self._context.store
        if isinstance(store, DirectoryStore):
            check_free_space(store.root, self._config.min_free_bytes, self._size_bytes)

    # The thread

    def _work(self, state: TrainingState, about: Mapping[str, Any], stall: float, seal: Seal | None) -> None:
        peers, began = self._peers, time.monotonic()
        try:
            peers.together(lambda: None)  # whoever still copies, and stands still for it, shares no core with digests
            contents = self._contents(state)
            stored = peers.together(lambda: self._checked(lambda: self._store(contents), seal, state.step))
            manifest = peers.together(lambda: self._commit(stored, state, about))[0]
            seconds = time.monotonic() - began
            assert manifest is not None  # it is the first rank's
            peers.together(lambda: self._persistently(lambda: self._heal(manifest, contents), state.step))
            if not peers.is_first:
                return
            self._verified[manifest.digest()] = True
            removed = self._retain(state.step)
            self._reports.append(self._persistently(lambda: self._report(manifest, stall, seconds), state.step))
            logger.info(
                "checkpoint %s: %.1f MB, training stood still for %.0f ms%s",
                manifest.name, manifest.size_bytes / 1e6, 1e3 * stall,
                f"; {removed} old ones removed" if removed else "",
            )  # fmt: skip
        except BaseException as error:  # raised again in the training loop
            if isinstance(error, PeerFailed) and error.code == CORRUPTION:
                # The node of the rank that ends first is avoided: it must be that one's. This one ends when it has lost it.
                logger.warning("checkpoint step %d is not committed. %s", state.step, error)
            else:
                self._error = error

    def _contents(self, state: TrainingState) -> dict[str, _Content]:
        """This rank's files."""
        rank, count = self._peers.rank, self._peers.count
        found: dict[str, _Content] = {file_name(kind, rank, count): file.content for kind, file in self._files.items()}
        return {**found, STATE_FILE: state.to_bytes()} if self._peers.is_first else found

    def _checked(self, store: Callable[[], T], seal: Seal | None, step: int) -> T:
        """The copy that was stored, compared when its digest is known: no later flip of a bit is in it."""
        stored = self._persistently(store, step)
        if seal is not None:
            copied = Seal({kind: file.parts() for kind, file in self._files.items()})
            what = f"Checkpoint step {step} would hold what no update has left"
            refuse_broken(seal.broken(copied), what=what, rank=self._peers.rank)
        return stored

    def _store(self, contents: Mapping[str, _Content]) -> list[FileEntry]:
        store, prefix = self._context.store, self._context.spec.output_prefix
        with ThreadPoolExecutor(len(contents)) as pool:  # a digest is one core's work: as many as there are files
            return list(pool.map(lambda file: store_content(store, prefix, *file), contents.items()))

    def _commit(
        self, stored: Sequence[Sequence[FileEntry]], state: TrainingState, about: Mapping[str, Any]
    ) -> Manifest | None:
        """By the first rank, once all have stored theirs."""
        if not self._peers.is_first:
            return None
        meta = {"step": state.step, "tokens": state.tokens, "phase": state.phase, **about}
        meta |= {
            name: value for name, value in (("loss", state.loss), ("valid_loss", state.valid_loss)) if value is not None
        }
        entries = [entry for of_rank in stored for entry in of_rank]
        name = f"step-{state.step:08d}"
        return self._persistently(
            lambda: self._context.commit_entries(ArtifactKind.CHECKPOINT, name, entries, meta, state.step), state.step
        )

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

    def _heal(self, manifest: Manifest, contents: Mapping[str, _Content]) -> None:
        """Verify what this rank has put into the store. Training again what a damaged checkpoint held makes the same files, whose blobs are taken for
        present: a damaged one is written anew. Raises CorruptArtifact when that does not help."""
        store, prefix = self._context.store, self._context.spec.output_prefix
        own = tuple(entry for entry in manifest.files if entry.path in contents)
        for entry in own:
            only = manifest.model_copy(update={"files": (entry,)})
            try:
                verify_manifest(store, only, prefix)
            except CorruptArtifact as error:
                logger.warning("%s Writing it anew.", error.message)
                store.put(blob_key(prefix, entry.digest), contents[entry.path])
                verify_manifest(store, only, prefix)

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
