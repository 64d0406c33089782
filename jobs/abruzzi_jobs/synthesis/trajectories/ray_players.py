"""Conversations as tasks of a Ray cluster, a part each. A task gets its part and asks the stage's roles over HTTP; worlds, tool servers and sandboxes are
on the nodes. Which node plays which part, and how often, changes nothing in the rows.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from abruzzi.contracts.agent import AgentSpec, Task
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.synthesis import SynthesisConfig
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.chat.remote import Asking, remote_roles, serve_roles
from abruzzi_jobs.chat.request import ChatBackend
from abruzzi_jobs.data.ray_session import ENV_ADDRESS, RETRIES
from abruzzi_jobs.synthesis.trajectories.engine import Engine, Machine, Row, Take, cast_of
from abruzzi_jobs.synthesis.trajectories.plan import Planned
from abruzzi_jobs.synthesis.trajectories.programs import Programs
from abruzzi_jobs.synthesis.trajectories.servers import ServerPools, boxed_kinds
from abruzzi_jobs.synthesis.trajectories.toolbox import Toolbox
from abruzzi_jobs.synthesis.trajectories.tools import chosen_servers


class RayPlayers:
    """On a connected Ray (abruzzi_jobs.data.ray_session)."""

    def __init__(
        self, ray: Any, roles: Mapping[str, ChatBackend], config: SynthesisConfig, servers: Sequence[str]
    ) -> None:
        self._ray, self._roles, self._config, self._servers = ray, roles, config, list(servers)
        self.nodes: set[str] = set()
        """Ids of the nodes that have played something."""

    async def run(self, parts: Sequence[Sequence[Planned]], take: Take) -> None:
        """As Engine.run, part by part."""
        cpus = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        at_once = max(1, -(-self._config.concurrency // cpus))
        config = self._config.model_copy(update={"concurrency": at_once})
        task = self._ray.remote(_play_part).options(num_cpus=1, scheduling_strategy="SPREAD", max_retries=RETRIES)
        host = self._ray.util.get_node_ip_address() if ENV_ADDRESS in os.environ else "127.0.0.1"
        async with serve_roles(self._roles, host) as asking:
            orders = [order_of(part, config, self._servers, asking) for part in parts]
            running = {asyncio.wrap_future(task.remote(order).future()) for order in orders}
            try:
                while running:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for answer in done:
                        await self._take(answer.result(), take)
            finally:
                for waiting in running:
                    waiting.cancel()

    def describe(self) -> str:
        alive = sum(node["Alive"] for node in self._ray.nodes())
        return f"conversations played on {len(self.nodes)} of {alive} nodes of Ray"

    async def _take(self, answer: dict[str, Any], take: Take) -> None:
        self.nodes.add(answer["node"])
        if "error" in answer:
            raise AbruzziError(**answer["error"])
        for row in json.loads(answer["rows"]):
            await take(row)


def order_of(part: Sequence[Planned], config: SynthesisConfig, servers: Sequence[str], asking: Asking) -> str:
    """What a worker needs to play the part: JSON, so that nothing of this process travels but what is said here."""
    tools: dict[str, ToolSpec] = {}
    places = []
    for planned in part:
        names = []
        for tool in planned.toolbox.tools.values():
            names.append(key := f"{tool.source} {tool.name}")
            tools[key] = tool
        places.append(
            {
                "index": planned.index,
                "id": planned.id,
                "seed": planned.seed,
                "task": planned.task.model_dump(mode="json"),
                "agent": planned.agent.model_dump(mode="json"),
                "tools": names,
            }
        )
    used = {tool.source for tool in tools.values()}
    return json.dumps(
        {
            "config": config.model_dump(mode="json"),
            "tools": {key: tool.model_dump(mode="json") for key, tool in tools.items()},
            "part": places,
            "servers": [name for name in servers if any(source.startswith(f"mcp:{name}@") for source in used)],
            "asking": asdict(asking),
        }
    )


async def play_order(order: dict[str, Any]) -> list[Row]:
    """On a worker."""
    config = SynthesisConfig.model_validate(order["config"])
    tools = {key: ToolSpec.model_validate(told) for key, told in order["tools"].items()}
    part = [
        Planned(
            index=place["index"],
            id=place["id"],
            seed=place["seed"],
            task=Task.model_validate(place["task"]),
            agent=AgentSpec.model_validate(place["agent"]),
            toolbox=Toolbox([tools[key] for key in place["tools"]]),
            faults=config.faults,
        )
        for place in order["part"]
    ]
    rows: list[Row] = []

    async def take(row: Row) -> None:
        rows.append(row)

    kinds = await asyncio.to_thread(boxed_kinds, chosen_servers(order["servers"]))
    told = order["asking"]
    asking = Asking(url=told["url"], key=told["key"], roles=tuple(told["roles"]))
    async with ServerPools(kinds) as servers, remote_roles(asking) as roles:
        machine = Machine(servers=servers, programs=Programs() if config.code_sandbox else None)
        await Engine(cast_of(roles, config), machine, config).run(part, take)
    return rows


def _play_part(order: str) -> dict[str, Any]:
    """Plain values only: an error of ours goes as its parts."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    try:
        return {"node": node, "rows": json.dumps(asyncio.run(play_order(json.loads(order))))}
    except AbruzziError as error:
        return {"node": node, "error": error.parts}
