"""Stage `synthesize`: a catalogue of tools out, and conversations in which agents use them, judged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import SynthesizeStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.chat.provenance import teacher_of
from abruzzi_jobs.chat.roles import Roles
from abruzzi_jobs.chat.stage import stage_roles
from abruzzi_jobs.data.ray_session import ray_here
from abruzzi_jobs.entrypoints.progress import StageProgress
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.synthesis.players.standin import standin_script
from abruzzi_jobs.synthesis.trajectories.engine import Engine, Machine, cast_of
from abruzzi_jobs.synthesis.trajectories.parts import Parts
from abruzzi_jobs.synthesis.trajectories.plan import Planned
from abruzzi_jobs.synthesis.trajectories.programs import Programs
from abruzzi_jobs.synthesis.trajectories.ray_players import RayPlayers
from abruzzi_jobs.synthesis.trajectories.run import (
    Gathering,
    plan_of,
    settings_of,
    worded_plan,
    write_trajectories,
)
from abruzzi_jobs.synthesis.trajectories.servers import ServerPools, boxed_kinds
from abruzzi_jobs.synthesis.trajectories.tools import StageTools, chosen_servers, stage_tools, write_tools

_LOG_SECONDS = 2.0

logger = logging.getLogger(__name__)


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError where tools, tasks or endpoints are not to be had; what has been played is kept for the next attempt."""
    if context.rank != 0:
        return
    stage = SynthesizeStage.model_validate(context.spec.config)
    teacher = teacher_of(stage.roles, stage.endpoint)
    progress = StageProgress(context, reporter, "synthesize")
    progress(0, 1, "starting tool servers" if stage.synthesis.servers else "making tools")
    found = asyncio.run(
        stage_tools(
            stage.synthesis,
            seed=stage.seed,
            tell=lambda done, all_: progress(done, all_, f"starting tool servers: {done} of {all_}"),
        )
    )
    for fault in found.imported.quarantined:
        logger.warning("%s: quarantined: %s", fault["server"], fault["reason"])
    tools = context.scratch / "tools"
    fresh_folder(tools).rmdir()
    catalogue = write_tools(tools, found, stage.synthesis, seed=stage.seed)
    out = fresh_folder(context.scratch / "trajectories")
    work = asyncio.run(_Work(context, reporter, stage, found, progress).play(out, teacher=teacher))
    described = work.described
    progress.commit(
        ArtifactKind.TOOLS,
        "tools",
        files_of(tools),
        meta={key: catalogue[key] for key in ("tools", "synthetic", "real")},
    )
    meta: dict[str, Any] = {
        "teacher": described["teacher"],
        "trajectories": described["rows"],
        "kept": described["fates"]["kept"],
    }
    progress.commit(ArtifactKind.TRAJECTORIES, "trajectories", files_of(out), meta=meta | {"fates": described["fates"]})
    work.forget()


class _Work:
    def __init__(
        self,
        context: StageContext,
        reporter: Reporter,
        stage: SynthesizeStage,
        found: StageTools,
        progress: StageProgress,
    ) -> None:
        self._context, self._reporter, self._stage = context, reporter, stage
        self._found, self._progress = found, progress
        self.described: dict[str, Any] = {}

    async def play(self, out: Path, *, teacher: str) -> _Work:
        """Plays what is missing; rows and calls are in `out` then."""
        stage, config = self._stage, self._stage.synthesis
        work = plan_of(self._found, config, seed=stage.seed, tell=self._tell_tasks)
        asked = {role.value: settings.model_dump(mode="json") for role, settings in sorted(stage.roles.items())}
        endpoints = {name: endpoint.model_dump(mode="json") for name, endpoint in sorted(stage.endpoint.items())}
        settings = settings_of(config, seed=stage.seed, roles=[asked, endpoints])
        script = standin_script(stage, ((planned.agent, planned.task) for planned in work))
        described: dict[str, Any] = {"teacher": teacher}
        async with stage_roles(self._context, stage.roles, stage.endpoint, seed=stage.seed, script=script) as roles:
            if config.words == "model":
                work, described["left_as_they_were"] = await worded_plan(
                    self._found, config, roles, seed=stage.seed, tell=self._tell_tasks
                )
            self._parts = parts = Parts(
                self._context.store, self._context.spec.output_prefix, work, config.shard_rows, settings=settings
            )
            missing = await asyncio.to_thread(parts.missing)
            left = sum(map(len, missing))
            logger.info("%d conversations, %d of them played already", len(work), len(work) - left)
            self._gathering = Gathering(parts, len(work), left, self._tell)
            async with self._telling(roles):
                await self._play(missing, roles)
            self._log(roles)
            self.described = write_trajectories(out, parts.rows(), **described)
            await roles.write_calls(out)
            self._roles = roles
        return self

    def forget(self) -> None:
        """What lies beside the outputs for a next attempt, once they are committed."""
        self._parts.discard()
        asyncio.run(self._roles.discard_calls())

    async def _play(self, missing: list[list[Planned]], roles: Roles) -> None:
        """Here, or as tasks of Ray where the recipe asks for it: the rows are the same."""
        config, take = self._stage.synthesis, self._gathering.take
        names = [record.name for record in self._found.imported.servers]
        if self._stage.resources.framework == "ray":
            cpus = self._stage.resources.threads or len(os.sched_getaffinity(0))
            with ray_here(self._context.attempt_dir, cpus) as ray:
                players = RayPlayers(ray, roles, config, names)
                await players.run(missing, take)
                logger.info("%s", players.describe())
            return
        kinds = await asyncio.to_thread(boxed_kinds, chosen_servers(names))
        async with ServerPools(kinds) as servers:
            machine = Machine(servers=servers, programs=Programs() if config.code_sandbox else None)
            await Engine(cast_of(dict(roles), config), machine, config).run(chain(*missing), take)

    @asynccontextmanager
    async def _telling(self, roles: Roles) -> AsyncIterator[None]:
        """Metrics now and then, and an ear for the request to stop while nothing ends."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(_LOG_SECONDS)
                self._log(roles)

        task = asyncio.create_task(tell())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _tell(self, done: int, total: int) -> None:
        self._progress(done, total, f"playing conversations: {done} of {total}")

    def _tell_tasks(self, done: int, total: int) -> None:
        self._progress(done, total, f"making tasks: {done} of {total}")

    def _log(self, roles: Roles) -> None:
        gathering = self._gathering
        numbers = {f"synthesize/{fate}": float(count) for fate, count in gathering.fates.items()}
        reporter_step = gathering.done
        self._reporter.log(
            {**numbers, **roles.metrics(), "synthesize/turns": float(gathering.turns)}, step=reporter_step
        )
