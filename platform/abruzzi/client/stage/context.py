"""The stage contract from the inside: spec, rank, inputs, outputs, signals."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from abruzzi.contracts.artifact import ArtifactRef, FileEntry, Manifest
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import ENV_ATTEMPT_DIR, ENV_SPEC, StageSpec
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import (
    ObjectStore,
    commit_artifact,
    commit_entries,
    materialize,
    open_store,
    prefix_of,
    read_manifest,
)

Committed = Callable[[str, Manifest], None]


@dataclass(frozen=True, slots=True)
class LocalArtifact:
    """An artifact's files on this machine, verified. They are never changed: in embedded mode they are the store's own."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        return self.folder / name


@dataclass(slots=True)
class StageContext:
    spec: StageSpec
    rank: int
    world_size: int
    attempt_dir: Path
    store: ObjectStore
    stop_requested: threading.Event = field(default_factory=threading.Event)
    """Set by SIGTERM: save, then exit with 143."""
    on_commit: list[Committed] = field(default_factory=list)
    _stacks: TextIO | None = None

    @classmethod
    def from_env(cls) -> StageContext:
        """Raises AbruzziError `no_stage` outside of an attempt."""
        try:
            spec = StageSpec.model_validate_json(Path(os.environ[ENV_SPEC]).read_text())
            attempt_dir = Path(os.environ[ENV_ATTEMPT_DIR])
        except KeyError as missing:
            raise AbruzziError(
                "no_stage", f"{missing.args[0]} is not set.", hint="A stage is started by the platform: `abruzzi run`."
            ) from None
        return cls(
            spec,
            int(os.environ.get("RANK", "0")),
            int(os.environ.get("WORLD_SIZE", "1")),
            attempt_dir,
            open_store(spec.store),
        )

    @property
    def rank_dir(self) -> Path:
        folder = self.attempt_dir / f"rank-{self.rank}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def scratch(self) -> Path:
        """A folder for files on their way; it goes with the attempt."""
        folder = self.attempt_dir / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def install_signals(self) -> None:
        """SIGTERM asks to save and stop; SIGUSR1 writes all stacks to rank-<r>/stacks.txt, also while the main thread hangs."""
        signal.signal(signal.SIGTERM, lambda *_: self.stop_requested.set())
        self._stacks = (self.rank_dir / "stacks.txt").open("a")
        faulthandler.enable()  # a crash in native code leaves its stack in the log
        faulthandler.register(signal.SIGUSR1, file=self._stacks, all_threads=True)

    def input(self, name: str) -> LocalArtifact:
        """Files of an input, fetched and verified once for all ranks of the machine. Raises AbruzziError `missing_input`."""
        return self._fetch(name, self._input(name))

    def input_part(self, name: str, files: Sequence[str]) -> LocalArtifact:
        """As `input`, of these files alone."""
        key, manifest = self._chosen(name, self._input(name))
        part = manifest.model_copy(update={"files": tuple(f for f in manifest.files if f.path in files)})
        return self.fetch(f"{name}-part", key, part)

    def resume(self) -> LocalArtifact | None:
        """The checkpoint that the platform picked, or None for a fresh start."""
        return self._fetch("resume", self.spec.resume) if self.spec.resume else None

    def resume_manifest(self) -> tuple[str, Manifest] | None:
        """As `resume`, for who reads the files in a way of its own: (key, manifest). Raises NotFound, AbruzziError `corrupt_manifest`."""
        return self._chosen("resume", self.spec.resume) if self.spec.resume else None

    def commit(
        self,
        kind: ArtifactKind,
        name: str,
        files: Mapping[str, Path],
        meta: Mapping[str, Any] | None = None,
        step: int | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Manifest:
        """Commit an output; needs the object store, not the API. Only one rank does it.

        `progress` is called with (bytes done, bytes in all), often: a heartbeat now and then keeps a long commit from being taken for a hang.
        """
        key, manifest = commit_artifact(
            self.store, self.spec, kind=kind, name=name, files=files, meta=meta, step=step, progress=progress
        )
        return self._told(key, manifest)

    def commit_entries(
        self, kind: ArtifactKind, name: str, entries: Sequence[FileEntry], meta: Mapping[str, Any], step: int
    ) -> Manifest:
        """Commit an output whose files the ranks have stored, each its own (`abruzzi.store.store_content`). Only one rank does it."""
        return self._told(
            *commit_entries(self.store, self.spec, kind=kind, name=name, entries=entries, meta=meta, step=step)
        )

    def fetch(self, name: str, key: str, manifest: Manifest) -> LocalArtifact:
        """Files of any committed artifact, below `inputs/<name>`, verified; once for all ranks. Raises CorruptArtifact."""
        folder = self.attempt_dir / "inputs" / name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = folder.parent / f".{name}.done"
            if not done.exists():
                materialize(self.store, manifest, prefix_of(key), folder)
                done.touch()
        return LocalArtifact(folder, manifest)

    def _told(self, key: str, manifest: Manifest) -> Manifest:
        for tell in self.on_commit:
            tell(key, manifest)
        return manifest

    def _input(self, name: str) -> ArtifactRef:
        reference = self.spec.inputs.get(name)
        if reference is None:
            raise AbruzziError(
                "missing_input",
                f"Stage {self.spec.stage_id!r} was given no input {name!r}; it has {sorted(self.spec.inputs)}.",
            )
        return reference

    def _fetch(self, name: str, reference: ArtifactRef) -> LocalArtifact:
        return self.fetch(name, *self._chosen(name, reference))

    def _chosen(self, name: str, reference: ArtifactRef) -> tuple[str, Manifest]:
        """(key, manifest) as the platform chose it."""
        manifest = read_manifest(self.store, reference.manifest_key)
        if manifest.digest() != reference.digest:
            raise AbruzziError(
                "corrupt_manifest",
                f"The manifest of input {name!r} is not the one that the platform chose.",
                status=409,
            )
        return reference.manifest_key, manifest
