"""A rephrase stage on a small corpus of real documents, as the platform runs it: a spec in, a committed artifact out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.artifact import ArtifactRef, Manifest
from abruzzi.contracts.recipe import CorpusData, RephraseStage
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import commit_artifact, open_store
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.sources import resolve
from abruzzi_jobs.entrypoints import rephrase
from abruzzi_jobs.entrypoints.scratch import files_of

PREFIX = "projects/p/runs/0123456789/"


def small_corpus(folder: Path, **more: Any) -> Path:
    """Elements: 60 kB of facts and prose, with cloze questions."""
    folder.mkdir(parents=True)
    config = CorpusData.model_validate(
        {"sources": ["mendeleev"], "held_out_fraction": 0.1, "max_bytes": 12_000, **more}
    )
    build_corpus([resolve(s, text_field="text") for s in config.sources], config, out=folder)
    return folder


class Lab:
    """Attempts of one stage, one after the other, over one store."""

    def __init__(self, root: Path, corpus: Path) -> None:
        self.root = root
        self.store = DirectoryStore(root=str(root / "store"))
        made = self._spec("corpus", 1, {}, {})
        key, manifest = commit_artifact(
            open_store(self.store), made, kind=ArtifactKind.CORPUS, name="corpus", files=files_of(corpus)
        )
        self.input = ArtifactRef(kind=ArtifactKind.CORPUS, manifest_key=key, digest=manifest.digest())
        self.manifests: list[Manifest] = []

    def context(self, stage: Mapping[str, Any], attempt: int = 1) -> StageContext:
        config = RephraseStage.model_validate({"id": "rephrase", "kind": "rephrase", **stage}).model_dump(mode="json")
        spec = self._spec("rephrase", attempt, config, {"corpus": self.input})
        folder = self.root / f"attempt-{attempt}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(spec.model_dump_json())
        context = StageContext(spec, 0, 1, folder, open_store(self.store))
        context.on_commit.append(lambda _, manifest: self.manifests.append(manifest))
        return context

    def run(self, stage: Mapping[str, Any], attempt: int = 1) -> Path:
        """The output's files."""
        return self.go(self.context(stage, attempt))

    def go(self, context: StageContext) -> Path:
        with Reporter.from_context(context) as reporter:
            rephrase.run(context, reporter)
        return context.scratch / "corpus"

    async def run_async(self, stage: Mapping[str, Any], attempt: int = 1) -> Path:
        """The same, beside a server in the same loop."""
        context = self.context(stage, attempt)
        with Reporter.from_context(context) as reporter:
            await rephrase.run_async(context, reporter)
        return context.scratch / "corpus"

    def _spec(self, stage: str, attempt: int, config: dict[str, Any], inputs: dict[str, ArtifactRef]) -> StageSpec:
        return StageSpec(
            project_id="p", run_id="0123456789", stage_id=stage, attempt_id=f"0123456789-{stage}-{attempt}", epoch=attempt,
            kind=stage, config=config, inputs=inputs, store=self.store, output_prefix=f"{PREFIX}{stage}/",
        )  # fmt: skip


STANDIN = {"roles": {"rephraser": "rules"}, "endpoint": {"rules": {"kind": "standin"}}}


def described(folder: Path, name: str = "corpus.json") -> Any:
    return json.loads((folder / name).read_text())
