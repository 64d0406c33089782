"""Artifacts and their manifests: the immutable outputs of stages.

An artifact is a set of content-addressed files under one `manifest.json`, which is created only if absent and is the one
commit marker (design section 4.5). Layout in the object store, all keys made by the platform:

    projects/<project>/runs/<run>/<stage>/blobs/<sha256>                       file contents, shared by all epochs
    projects/<project>/runs/<run>/<stage>/e<epoch>/<artifact name>/manifest.json
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from abruzzi.contracts.states import ArtifactKind

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
ArtifactName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""For a checkpoint `step-00000100`; otherwise the output's name, such as `dataset`."""


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]{0,255}$")]
    """Logical name inside the artifact, such as `model-00001.safetensors`; never a path of a machine."""
    digest: Digest
    size_bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """What an artifact consists of. `digest()` identifies it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    kind: ArtifactKind
    name: ArtifactName
    project_id: str
    run_id: str
    stage_id: str
    attempt_id: str
    epoch: int
    step: int | None = None
    """Optimizer steps done, for checkpoints."""
    created_at: datetime
    files: tuple[FileEntry, ...]
    parents: tuple[Digest, ...] = ()
    """Digests of the manifests of the inputs, and of the checkpoint that its attempt went on from: lineage."""
    meta: dict[str, Any] = Field(default_factory=dict)
    """Small facts for people and gates, such as {"bits_per_byte": 1.93}."""

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)

    def canonical_bytes(self) -> bytes:
        """The bytes that are stored: sorted keys, no whitespace."""
        return json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()

    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.canonical_bytes()).hexdigest()


class ArtifactRef(BaseModel):
    """An input of a stage: where a committed manifest is and what it must hash to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ArtifactKind
    manifest_key: str
    """Key of manifest.json in the project's object store."""
    digest: Digest
