"""What an environment costs besides itself: a step in process and over the wire, many sessions at once, a sandbox for one program.

    python bench/environments.py [--out FILE] [--rounds 5] [--sessions 2000] [--only steps,wire,sandboxes,contract]

steps      one echo in 2000 open sessions, a step in each in turn: ours, Gymnasium's (a `gymnasium.Env` of the same echo in its `Text` spaces, as
           `gymnasium.make` wraps it), and a real world of the environment `tools` (one read call).
wire       the same echo served, 2000 connections open, one process for the server and one for the client: ours and OpenEnv's own server (uvicorn,
           asynchronous `step_async`), driven by one and the same client, in turns. Four steps in flight, then all sessions at once.
sandboxes  a box made, `true` run in it, the box gone, beside the same program as a bare subprocess; then 1000 boxes, four at a time, and what is left of
           them: processes, mounts, temporary folders.
contract   OpenEnv's generic client on our server, and our client on OpenEnv's server.

OpenEnv lives in `.bench-envs/openenv`, made by uv at the first run. Targets (issue 6): step p50 at most 100 µs in process and 1 ms over the wire with four in
flight, 5000 steps/s with all active, no sandbox leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from environments_echo import Echo
from interleaved import machine, report

from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.rl.environments.adapters.openenv_server import OpenEnvServer
from abruzzi_jobs.rl.environments.answers import as_assistant
from abruzzi_jobs.rl.rewards import RewardPool
from abruzzi_jobs.sandbox import Box, isolators, run
from abruzzi_jobs.sft.conversation import call_id, compact

OPENENV = "openenv==0.10.0"
ENVIRONMENT = Path(__file__).resolve().parent.parent / ".bench-envs" / "openenv"
CACHED_UV = ENVIRONMENT.parent.parent / ".cache" / "uv" / "bin"
RIVAL = Path(__file__).with_name("environments_openenv.py")
ECHO = Path(__file__).with_name("environments_echo.py")
IN_FLIGHT = 4
STEPS_A_SESSION = 5
WIRE_STEPS = 4000
BOXES, BOXES_AT_ONCE = 1000, 4
TARGET_PROCESS_US, TARGET_WIRE_MS, TARGET_STEPS_S = 100.0, 1.0, 5000.0
Steps = list[float]
"""Seconds of each."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--boxes", type=int, default=BOXES)
    parser.add_argument("--only", default="steps,wire,sandboxes,contract")
    given = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "steps": lambda: asyncio.run(steps(given.sessions, given.rounds)),
        "wire": lambda: asyncio.run(wire(given.sessions, given.rounds)),
        "sandboxes": lambda: sandboxes(given.rounds, given.boxes),
        "contract": lambda: asyncio.run(contract()),
    }
    result: dict[str, Any] = {"machine": machine(threads=1), "sessions": given.sessions}
    for name in given.only.split(","):
        result[name] = parts[name]()
    result["machine"]["load_average_after"] = list(os.getloadavg())
    report(result, out=given.out)
    return 0


# Steps in process


async def steps(sessions: int, rounds: int) -> dict[str, Any]:
    ours, theirs, worlds = await _echo_sessions(sessions), _gymnasium_sessions(sessions), await _worlds(sessions)
    message = as_assistant("hello")
    taken: dict[str, Steps] = {"ours": [], "gymnasium": [], "ours_tools_world": []}
    for number in range(rounds):
        turns: list[Callable[[], Awaitable[Steps]]] = [
            lambda: _walk_ours(ours, message, taken["ours"]),
            lambda: _walk_gymnasium(theirs, taken["gymnasium"]),
            lambda: _walk_worlds(worlds, taken["ours_tools_world"]),
        ]
        for turn in turns if number % 2 == 0 else reversed(turns):
            await turn()
    for session, _ in worlds:
        await session.close()
    found = {name: _micros(seconds) for name, seconds in taken.items()}
    found["ok"] = found["ours"]["p50_us"] <= TARGET_PROCESS_US
    return found


async def _echo_sessions(count: int) -> list[Any]:
    made = [Echo().session() for _ in range(count)]
    task = Echo().task(0, 0)
    for session in made:
        await session.reset(task, 0)
    return made


async def _walk_ours(sessions: list[Any], message: dict[str, Any], into: Steps) -> Steps:
    for session in sessions:
        began = time.perf_counter()
        await session.step(message)
        into.append(time.perf_counter() - began)
    return into


def _gymnasium_sessions(count: int) -> list[Any]:
    import gymnasium

    class GymnasiumEcho(gymnasium.Env):
        def __init__(self) -> None:
            self.observation_space = gymnasium.spaces.Text(64)
            self.action_space = gymnasium.spaces.Text(64)

        def reset(self, *, seed: int | None = None, options: Any = None):
            super().reset(seed=seed)
            return "Say something", {}

        def step(self, action: str):
            return action, 0.0, False, False, {}

    gymnasium.register(id="AbruzziEcho-v0", entry_point=GymnasiumEcho)
    made = [gymnasium.make("AbruzziEcho-v0", disable_env_checker=True) for _ in range(count)]
    for env in made:
        env.reset(seed=0)
    return made


async def _walk_gymnasium(envs: list[Any], into: Steps) -> Steps:
    for env in envs:
        began = time.perf_counter()
        env.step("hello")
        into.append(time.perf_counter() - began)
    return into


async def _worlds(count: int) -> list[tuple[Any, dict[str, Any]]]:
    """Each with a call that only reads."""
    tools = gym("tools", {"turns": 64})
    task, reading = next((t, m) for t in tools.tasks(0, 40, family="simple") if (m := _reading(t.data)))
    made: list[tuple[Any, dict[str, Any]]] = []
    for _ in range(count):
        session = tools.session()
        await session.reset(task, 0)
        made.append((session, reading))
    return made


def _reading(data: dict[str, Any]) -> dict[str, Any] | None:
    for call in data["task"]["plan"]:
        if call["tool"]["name"].startswith(("get_", "find_", "list_")):
            function = {"name": call["tool"]["name"], "arguments": compact(call["arguments"])}
            made = {"id": call_id(function["name"], 0), "type": "function", "function": function}
            return {"role": "assistant", "content": "", "tool_calls": [made]}
    return None


async def _walk_worlds(worlds: list[tuple[Any, dict[str, Any]]], into: Steps) -> Steps:
    for session, message in worlds:
        began = time.perf_counter()
        await session.step(message)
        into.append(time.perf_counter() - began)
    return into


# Over the wire


async def wire(sessions: int, rounds: int) -> dict[str, Any]:
    python = openenv_environment()
    ports = {"ours": _free_port(), "openenv": _free_port()}
    commands = {
        "ours": [sys.executable, str(ECHO), str(ports["ours"])],
        "openenv": [str(python), str(RIVAL), "serve", str(ports["openenv"])],
    }
    says = {"ours": {"content": "hello", "tool_calls": []}, "openenv": {"message": "hello"}}
    four: dict[str, Steps] = {name: [] for name in ports}
    every: dict[str, Steps] = {name: [] for name in ports}
    rates: dict[str, list[float]] = {name: [] for name in ports}
    with _served(commands["ours"]), _served(commands["openenv"]):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            open_ones = {name: await _connected(http, port, sessions) for name, port in ports.items()}
            for number in range(rounds):
                for name in list(ports) if number % 2 == 0 else reversed(ports):
                    asked = json.dumps({"type": "step", "data": says[name]})
                    four[name] += await _in_flight(open_ones[name], asked, IN_FLIGHT, WIRE_STEPS)
                    began = time.perf_counter()
                    every[name] += await _in_flight(open_ones[name], asked, sessions, sessions * STEPS_A_SESSION)
                    rates[name].append(sessions * STEPS_A_SESSION / (time.perf_counter() - began))
            for connections in open_ones.values():
                await asyncio.gather(*(ws.close() for ws in connections))
    found = {
        name: {
            "four_in_flight": _micros(four[name]),
            "all_active": {
                **_micros(every[name]),
                "steps_per_s": statistics.median(rates[name]),
                "steps_per_s_each": rates[name],
            },
        }
        for name in ports
    }
    ours = found["ours"]
    ok = (
        ours["four_in_flight"]["p50_us"] <= TARGET_WIRE_MS * 1e3 and ours["all_active"]["steps_per_s"] >= TARGET_STEPS_S
    )
    return {**found, "ok": ok}


async def _connected(http: aiohttp.ClientSession, port: int, count: int) -> list[aiohttp.ClientWebSocketResponse]:
    """Open, reset, fifty at a time."""
    places = asyncio.Semaphore(50)

    async def one() -> aiohttp.ClientWebSocketResponse:
        async with places:
            ws = await http.ws_connect(f"http://127.0.0.1:{port}/ws", compress=0)
            await ws.send_str('{"type": "reset", "data": {"seed": 1}}')
            begun = await ws.receive_json()
            if begun["type"] != "observation":
                raise SystemExit(f"port {port}: {begun}")
            return ws

    return await asyncio.gather(*(one() for _ in range(count)))


async def _in_flight(connections: list[Any], asked: str, lanes: int, count: int) -> Steps:
    """`lanes` walkers, each over its share of the connections, a step after the other."""
    taken: Steps = []

    async def walk(lane: int) -> None:
        mine = connections[lane::lanes]
        for number in range(count // lanes):
            ws = mine[number % len(mine)]
            began = time.perf_counter()
            await ws.send_str(asked)
            said = await ws.receive_str()
            taken.append(time.perf_counter() - began)
            if not said.startswith('{"type": "observation"') and '"observation"' not in said[:40]:
                raise SystemExit(said)

    await asyncio.gather(*(walk(lane) for lane in range(lanes)))
    return taken


@contextmanager
def _served(command: list[str]) -> Iterator[None]:
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        if child.stdout.readline() != "ready\n":
            raise SystemExit(f"{command} did not start")
        yield
    finally:
        child.stdin.close()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()


# Sandboxes


def sandboxes(rounds: int, boxes: int) -> dict[str, Any]:
    true = shutil.which("true") or "/bin/true"
    found: dict[str, Any] = {}
    for isolator in isolators():

        def boxed(isolator: Any = isolator) -> None:
            with tempfile.TemporaryDirectory(prefix="abruzzi-bench-box-") as folder:
                done = run(Box(workspace=Path(folder), isolator=isolator), [true])
            if not done.ok:
                raise SystemExit(f"{isolator}: {done}")

        box_s, bare_s = [], []
        for _ in range(rounds * 20):
            for what, into in ((boxed, box_s), (lambda: subprocess.run([true], check=True), bare_s)):
                began = time.perf_counter()
                what()
                into.append(time.perf_counter() - began)
        before = _left()
        began = time.perf_counter()
        with ThreadPoolExecutor(BOXES_AT_ONCE) as threads:
            list(threads.map(lambda _: boxed(), range(boxes)))
        took = time.perf_counter() - began
        after = _settled(before)
        found[isolator] = {
            "box": _micros(box_s),
            "bare_subprocess": _micros(bare_s),
            "times_bare_p50": statistics.median(box_s) / statistics.median(bare_s),
            "boxes": boxes,
            "boxes_per_s": boxes / took,
            "left_before": before,
            "left_after": after,
            "ok": all(after[name] <= before[name] for name in before),
        }
    return found


def _left() -> dict[str, int]:
    """Of all that boxes are made of: processes below this one, mounts of this machine, temporary folders."""
    names = ("abruzzi-bench-box-", "abruzzi-gvisor-")
    folders = [path for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith(names)]
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    boxes = [line for line in listed.splitlines() if "abruzzi-bench-box-" in line or "abruzzi-gvisor-" in line]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if any(name in line for name in names)]
    return {"processes": len(boxes), "mounts": len(mounts), "folders": len(folders)}


def _settled(before: dict[str, int], *, seconds: float = 30.0) -> dict[str, int]:
    """gVisor's bundles are removed by a process that looks once a second."""
    end = time.monotonic() + seconds
    while (left := _left()) != before and time.monotonic() < end:
        time.sleep(0.5)
    return left


# Contract


async def contract() -> dict[str, Any]:
    """Both sides of the wire against the other project's code."""
    python = openenv_environment()
    arithmetic = gym("arithmetic")
    seed = next(n for n in range(1000) if arithmetic.task(n, 0).family != "comparison")
    pool = RewardPool(workers=1, deadline_seconds=120)
    async with pool, OpenEnvServer(arithmetic, pool=pool).listening() as url:
        command = [str(python), str(RIVAL), "play", url, str(seed)]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        said, _ = await child.communicate()
    seen = json.loads(said)
    wanted = {"prompt": arithmetic.task(seed, 0).data["prompt"], "begin": [None, False], "end": [1.0, True], "steps": 1}
    port = _free_port()
    with _served([str(python), str(RIVAL), "serve", str(port)]):
        found = gym("openenv", {"url": f"http://127.0.0.1:{port}", "observation": "echoed"})
        session = found.session()
        begin = await session.reset(found.task(0, 0), 0)
        step = await session.step(as_assistant("hello"))
        state = await session.state()
        await session.close()
    ours = [begin.messages[-1]["content"], step.observation.messages[-1]["content"], state["rewards"]]
    return {
        "openenv_client_on_our_server": {"seen": seen, "ok": seen == wanted},
        "our_client_on_openenv_server": {"seen": ours, "ok": ours == ["Say something.", "hello", [0.0]]},
    }


def openenv_environment() -> Path:
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "ready").exists():
        uv = shutil.which("uv", path=f"{CACHED_UV}{os.pathsep}{os.environ.get('PATH', '')}")
        if uv is None:
            raise SystemExit("uv is not on the PATH; it makes OpenEnv's environment: run `make dev`, which fetches it")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, OPENENV], check=True)
        (ENVIRONMENT / "ready").touch()
    return python


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _micros(seconds: Steps) -> dict[str, Any]:
    ordered = sorted(seconds)
    p50, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99))
    return {"p50_us": round(p50 * 1e6, 2), "p99_us": round(p99 * 1e6, 2), "count": len(ordered)}


if __name__ == "__main__":
    sys.exit(main())
