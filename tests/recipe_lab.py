"""A recipe's stages one after the other in this process, each with a spec, a store and inputs as the platform would give them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.artifact import ArtifactRef, Manifest
from abruzzi.contracts.graph import bind_inputs
from abruzzi.contracts.recipe import ContainerStage, Recipe, StageBase
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import open_store

RUN = "0123456789"


class RecipeLab:
    def __init__(self, root: Path, recipe: Recipe, commands: Mapping[str, str]) -> None:
        """`commands`: {module that a container stage's command runs: module with `run(context, reporter, arguments)` and `parse(words)`}."""
        self.root, self.recipe, self.commands = root, recipe, commands
        self.store = DirectoryStore(root=str(root / "store"))
        self.made: dict[tuple[str, str], tuple[ArtifactRef, Manifest]] = {}
        """{(stage, output): …}; of checkpoints the last one."""

    def run(self) -> None:
        for stage in self.recipe.stage:
            self._run(stage)

    def folder(self, stage_id: str, output: str) -> Path:
        reference, _ = self.made[stage_id, output]
        spec = self._spec(self.recipe.stage_by_id(stage_id), {output: reference})
        return StageContext(spec, 0, 1, self.root / "looks" / stage_id, open_store(self.store)).input(output).folder

    def _run(self, stage: StageBase) -> None:
        inputs = {b.name: self.made[b.stage_id, b.output][0] for b in bind_inputs(self.recipe, stage).values()}
        attempt = self.root / "attempts" / stage.id
        attempt.mkdir(parents=True)
        context = StageContext(self._spec(stage, inputs), 0, 1, attempt, open_store(self.store))
        context.on_commit.append(lambda key, manifest: self._keep(stage.id, key, manifest))
        with Reporter.from_context(context) as reporter:
            if isinstance(stage, ContainerStage):
                program, *words = stage.container.command[2:]
                module = import_module(self.commands[program])
                module.run(context, reporter, module.parse(words))
            else:
                import_module(f"abruzzi_jobs.entrypoints.{stage.kind.value}").run(context, reporter)

    def _keep(self, stage_id: str, key: str, manifest: Manifest) -> None:
        output = "checkpoint" if manifest.kind is ArtifactKind.CHECKPOINT else manifest.name
        reference = ArtifactRef(kind=manifest.kind, manifest_key=key, digest=manifest.digest())
        self.made[stage_id, output] = reference, manifest

    def _spec(self, stage: StageBase, inputs: dict[str, ArtifactRef]) -> StageSpec:
        return StageSpec(
            project_id="default",
            run_id=RUN,
            stage_id=stage.id,
            attempt_id=f"{RUN}-{stage.id}-1",
            epoch=1,
            kind=stage.kind,
            config=stage.model_dump(mode="json"),
            seed=stage.seed,
            inputs=inputs,
            store=self.store,
            output_prefix=f"projects/default/runs/{RUN}/{stage.id}/",
        )
