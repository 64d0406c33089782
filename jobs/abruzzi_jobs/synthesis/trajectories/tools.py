"""The catalogue of a stage: its synthetic tools, the tools of its servers, the sandbox's."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.synthesis import SynthesisConfig
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.data.processing.shard import write_atomic
from abruzzi_jobs.synthesis.catalogue import write_catalogue
from abruzzi_jobs.synthesis.coverage import COVERAGE_FILE, coverage_of
from abruzzi_jobs.synthesis.embedding import EMBEDDER, NEAR, distinct
from abruzzi_jobs.synthesis.evolution import GENERATOR, evolve
from abruzzi_jobs.synthesis.evolution.tools_of import tools_of
from abruzzi_jobs.synthesis.importer import Imported, import_servers
from abruzzi_jobs.synthesis.servers import Server, shipped
from abruzzi_jobs.synthesis.trajectories.programs import PYTHON_TOOL

_AT_ONCE = 2


@dataclass(kw_only=True)
class StageTools:
    tools: list[ToolSpec]
    extra: tuple[ToolSpec, ...] = ()
    """Those that every agent has."""
    imported: Imported = field(default_factory=Imported)

    @property
    def all(self) -> list[ToolSpec]:
        return [*self.tools, *self.extra]


def chosen_servers(names: Sequence[str]) -> list[Server]:
    """Raises AbruzziError `unknown_server`."""
    known = shipped()
    for name in names:
        if name not in known:
            raise AbruzziError(
                "unknown_server", f"There is no shipped tool server {name!r}.", hint=nearest(name, list(known))
            )
    return [known[name] for name in dict.fromkeys(names)]


async def stage_tools(
    config: SynthesisConfig, *, seed: int, root: Path | None = None, tell: Callable[[int, int], None] = lambda *_: None
) -> StageTools:
    """Servers that misbehave are left out, and said so in the catalogue. `tell`: servers that have answered, of all.

    Raises AbruzziError where no tool is left."""
    imported = await _imported(chosen_servers(config.servers), root, tell)
    tools = [*synthetic(config.synthetic, seed=seed, generations=config.generations), *imported.tools]
    if not tools:
        reasons = "; ".join(f"{fault['server']}: {fault['reason']}" for fault in imported.quarantined)
        raise AbruzziError(
            "no_tools",
            f"No tool is left: {reasons[:600]}.",
            status=503,
            hint="Run the stage again, or name other servers.",
        )
    return StageTools(tools=tools, extra=(PYTHON_TOOL,) if config.code_sandbox else (), imported=imported)


async def _imported(servers: list[Server], root: Path | None, tell: Callable[[int, int], None]) -> Imported:
    """In the order given, two at a time."""
    places, done = asyncio.Semaphore(_AT_ONCE), 0

    async def one(server: Server) -> Imported:
        nonlocal done
        async with places:
            found = await import_servers([server], root=root)
        done += 1
        tell(done, len(servers))
        return found

    whole = Imported()
    for found in await asyncio.gather(*map(one, servers)):
        whole.tools += found.tools
        whole.servers += found.servers
        whole.quarantined += found.quarantined
    return whole


def synthetic(count: int, *, seed: int, generations: int) -> list[ToolSpec]:
    """Of whole applications in an order that the seed draws, until there are `count`; near-duplicates dropped."""
    applications = evolve(seed, generations)
    random.Random(f"tools/{seed}").shuffle(applications)
    made: list[ToolSpec] = []
    for application in applications:
        if len(made) >= count:
            break
        made += tools_of(application)
    return distinct(made)[0] if made else []


def write_tools(folder: Path, found: StageTools, config: SynthesisConfig, *, seed: int) -> dict[str, Any]:
    """The artifact's files, without anything that was measured: the same bytes for the same tools."""
    servers = []
    for record in found.imported.servers:
        told: dict[str, Any] = {key: value for key, value in asdict(record).items() if key != "listed_after_seconds"}
        if told["call"] is not None:
            told["call"] = {key: told["call"][key] for key in ("tool", "arguments")}
        servers.append(told)
    coverage = coverage_of(found.all)
    origin = {"generator": GENERATOR, "is_llm": False, "seed": seed, "generations": config.generations}
    manifest = write_catalogue(
        folder,
        found.all,
        **origin,
        duplicates={"embedder": EMBEDDER, "near": NEAR},
        servers=servers,
        quarantined=found.imported.quarantined,
    )
    if coverage is not None:
        content = json.dumps(coverage, separators=(",", ":"), ensure_ascii=False) + "\n"
        write_atomic(folder / COVERAGE_FILE, content.encode())
    return manifest
