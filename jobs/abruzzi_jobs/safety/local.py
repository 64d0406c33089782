"""A redteam stage without a platform: a recipe in, a folder out. The log of calls stays in the folder, so that it goes on where it was ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from abruzzi.contracts.endpoint import CheckpointEndpoint
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.nearest import nearest
from abruzzi.contracts.recipe import RedteamStage
from abruzzi.contracts.toml import load_recipe
from abruzzi.store import DirectoryStore
from abruzzi_jobs.chat.calls import CallLog
from abruzzi_jobs.chat.check import overrides, read_recipe
from abruzzi_jobs.chat.provenance import teacher_of
from abruzzi_jobs.chat.roles import open_roles
from abruzzi_jobs.entrypoints.scratch import fresh_folder
from abruzzi_jobs.safety.run import attack

RESULT = "result"


def run_recipe(
    path: Path, assignments: Sequence[str], stage_id: str | None, out: Path, folders: dict[str, Path | None]
) -> dict[str, Any]:
    """What redteam.json says; files are in `out`/result. Raises AbruzziError."""
    stage = _stage(path, assignments, stage_id)
    teacher_of(stage.asked_roles(), stage.endpoint)
    return asyncio.run(_run(stage, out, folders))


async def _run(stage: RedteamStage, out: Path, folders: dict[str, Path | None]) -> dict[str, Any]:
    log = CallLog(DirectoryStore(out), "calls/", writer="local")
    served = {
        f"{name}.{key}": folder
        for name, endpoint in stage.endpoint.items()
        if isinstance(endpoint, CheckpointEndpoint)
        for key, folder in folders.items()
        if folder is not None
    }
    async with open_roles(
        stage.asked_roles(), stage.endpoint, log=log, seed=stage.seed, folders=served, logs=out
    ) as roles:
        result = fresh_folder(out / RESULT)
        described = await attack(result, stage.redteam, roles=roles, seed=stage.seed, progress=_say)
        await roles.write_calls(result)
    return described


def _say(done: int, total: int, message: str) -> None:
    sys.stderr.write(f"\r{done}/{total} {message}\x1b[K" + ("\n" if done >= total else ""))
    sys.stderr.flush()


def _stage(path: Path, assignments: Sequence[str], stage_id: str | None) -> RedteamStage:
    recipe = load_recipe(read_recipe(path), overrides(assignments), file=str(path))
    found = {stage.id: stage for stage in recipe.stage if isinstance(stage, RedteamStage)}
    name = stage_id or next(iter(found), None)
    if name is None or name not in found:
        raise AbruzziError(
            "no_stage",
            f"{path}: no stage of kind redteam{f' is called {name!r}' if name else ''}.",
            hint=nearest(name or "", list(found)),
        )
    return found[name]
