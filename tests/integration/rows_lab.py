"""Artifacts with rows, committed as a stage would, for tests of what the API shows of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from api_server import ApiServer

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.stage import DirectoryStore as StoreConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.store import DirectoryStore, commit_artifact


@dataclass
class Lab:
    """Commits artifacts through the real store, with or without a platform."""

    server: ApiServer | None
    store: DirectoryStore
    folder: Path
    run_id: str = "aaaaaaaaaa"
    attempt_id: str = "aaaaaaaaaa-train-1"
    count: int = 0

    def commit(self, files: dict[str, bytes], kind: ArtifactKind = ArtifactKind.FILES) -> tuple[str, Manifest]:
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        spec = StageSpec(
            project_id="default", run_id=self.run_id, stage_id="train", attempt_id=self.attempt_id, epoch=1, kind=StageKind.CONTAINER,
            config={}, store=StoreConfig(root=str(self.store.root)), output_prefix=f"projects/default/runs/{self.run_id}/train/",
        )  # fmt: skip
        return commit_artifact(
            self.store, spec, kind=kind, name=f"rows-{self.count}", files={n: folder / n for n in files}
        )

    def artifact(self, files: dict[str, bytes], kind: ArtifactKind = ArtifactKind.FILES) -> tuple[str, Manifest]:
        """(id, manifest) of one that the platform knows."""
        assert self.server is not None
        key, manifest = self.commit(files, kind)
        with self.server.client(self.server.token_of(self.attempt_id)) as stage:
            body = {"manifest_key": key, "digest": manifest.digest()}
            answer = stage.post(f"attempts/{self.attempt_id}/artifacts", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()["artifact"]["id"], manifest


def packed(rows: Iterable[Any]) -> bytes:
    lines = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(lines)
