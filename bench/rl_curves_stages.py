"""Stages without the platform, one after another in this process: what they make stays in a folder, and a stage that has ended is not run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.artifact import ArtifactRef, Manifest
from abruzzi.contracts.recipe import Stage
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.store import blob_key, open_store, read_manifest

Series = dict[str, dict[int, float]]
"""{key: {step: value}}"""
_RUN, _PROJECT = "0123456789", "bench"


class _Keeping(Reporter):
    """Keeps what is logged."""

    def __init__(self, **given: Any) -> None:
        self.series: Series = {}
        super().__init__(**given)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for key, value in metrics.items():
            self.series.setdefault(key, {})[step] = float(value)
        super().log(metrics, step)


class Stages:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._config = DirectoryStore(root=str(folder / "store"))
        self._store = open_store(self._config)

    def series(self, name: str) -> Series | None:
        """What the stage of this name logged; None before its end."""
        told = self._told(name)
        if not told.exists():
            return None
        found = json.loads(told.read_text())["series"]
        return {key: {int(step): value for step, value in points.items()} for key, points in found.items()}

    def run(self, name: str, table: Mapping[str, Any], *, seed: int, inputs: Mapping[str, str] = {}) -> Series:
        """`inputs`: by kind of artifact, the stage that made it; of checkpoints the newest."""
        if (known := self.series(name)) is not None:
            return known
        stage = TypeAdapter(Stage).validate_python({"id": name, **table})
        attempt = self.folder / "attempts" / name
        for left in (attempt, self.folder / "store" / self._prefix(name)):
            shutil.rmtree(left, ignore_errors=True)  # of one that was stopped
        attempt.mkdir(parents=True)
        spec = StageSpec(
            project_id=_PROJECT, run_id=_RUN, stage_id=name, attempt_id=f"{_RUN}-{name}-1", epoch=1, kind=stage.kind,
            config=stage.model_dump(mode="json"), inputs={kind: self._made(by, kind) for kind, by in inputs.items()},
            seed=seed, store=self._config, output_prefix=self._prefix(name),
        )  # fmt: skip
        context = StageContext(spec, 0, 1, attempt, self._store)
        made: dict[str, str] = {}
        context.on_commit.append(lambda key, manifest: made.update({manifest.kind.value: key}))
        with _Keeping.from_context(context) as reporter:
            assert isinstance(reporter, _Keeping)
            import_module(f"abruzzi_jobs.entrypoints.{stage.kind}").run(context, reporter)
        self._told(name).parent.mkdir(exist_ok=True)
        self._told(name).write_text(json.dumps({"made": made, "series": reporter.series}))
        shutil.rmtree(attempt)
        return reporter.series

    def read(self, name: str, kind: str, file: str) -> bytes:
        manifest = self._manifest(name, kind)
        digest = next(entry.digest for entry in manifest.files if entry.path == file)
        return self._store.get(blob_key(self._prefix(name), digest))

    def _made(self, name: str, kind: str) -> ArtifactRef:
        manifest = self._manifest(name, kind)
        return ArtifactRef(kind=manifest.kind, manifest_key=self._key(name, kind), digest=manifest.digest())

    def _manifest(self, name: str, kind: str) -> Manifest:
        return read_manifest(self._store, self._key(name, kind))

    def _key(self, name: str, kind: str) -> str:
        return str(json.loads(self._told(name).read_text())["made"][kind])

    def _told(self, name: str) -> Path:
        return self.folder / "told" / f"{name}.json"

    def _prefix(self, name: str) -> str:
        return f"projects/{_PROJECT}/runs/{_RUN}/{name}/"
