"""`abruzzi environments`: what there is to train in, looked at, tried and served. The heavy imports wait until a command runs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Annotated, Any

import typer

from abruzzi.contracts.errors import AbruzziError

app = typer.Typer(help="Look at, try and serve the environments of reinforcement learning.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="name, name@version, or package.module:Class of one's own.")]
OptionsText = Annotated[str, typer.Option("--options", help="The environment's options, a JSON object.")]
Family = Annotated[str | None, typer.Option(help="One of its families; drawn by default.")]
Seed = Annotated[int, typer.Option(help="Of the tasks.")]
HeldOut = Annotated[bool, typer.Option("--held-out", help="A task that is never trained on.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog="Example: abruzzi environments list --json")
def list_(as_json: AsJson = False) -> None:
    """All environments that have names here."""
    from abruzzi_jobs.rl.environments import named_gyms

    found = [
        {
            "environment": reference,
            "families": list(gym.families),
            "roles": list(gym.roles),
            "replays": gym.replays,
            "options": list(gym.Options.model_fields),
            "summary": gym.summary,
        }
        for reference, gym in named_gyms().items()
    ]
    if as_json:
        _print(json.dumps(found, indent=1))
        return
    for one in found:
        _print(f"{one['environment']:<16} {one['summary']}")
        _print(f"{'':<16} families: {', '.join(one['families'])}")


@app.command("show", epilog="Example: abruzzi environments show arithmetic --options '{\"digits\": 2}' --count 3")
def show(
    name: Name,
    options: OptionsText = "{}",
    family: Family = None,
    seed: Seed = 0,
    count: Annotated[int, typer.Option(min=1, help="Tasks.")] = 1,
    held_out: HeldOut = False,
    as_json: AsJson = False,
) -> None:
    """How tasks begin, and a solution where one is known."""
    from abruzzi_jobs.rl.environments import gym

    found = gym(name, _table(options))
    tasks = found.tasks(seed, count, split="held_out" if held_out else "train", family=family)
    begun = asyncio.run(_begun(found, tasks))
    if as_json:
        _print(json.dumps(begun, indent=1))
        return
    for one in begun:
        _print(f"# {one['task']['id']} ({one['task']['family']})")
        for tool in one["tools"]:
            _print(f"tool      {tool['name']}: {tool['description']}")
        for message in one["messages"]:
            _print(f"{message['role']:<9} {message['content']}")
        for message in one["solution"]:
            calls = [f"{c['function']['name']}({c['function']['arguments']})" for c in message.get("tool_calls") or ()]
            _print(f"{'':<9} → {message['role']}: {' '.join([message['content'], *calls]).strip()}")


async def _begun(found: Any, tasks: list[Any]) -> list[dict[str, Any]]:
    begun = []
    for task in tasks:
        session = found.session()
        try:
            begin = await session.reset(task, task.seed)
        finally:
            await session.close()
        parts = {"messages": list(begin.messages), "tools": list(begin.tools), "solution": list(found.solution(task))}
        begun.append({"task": task.model_dump(mode="json"), **parts})
    return begun


@app.command("score", epilog='Example: abruzzi environments score arithmetic "Answer: 7" --index 3')
def score(
    name: Name,
    answer: Annotated[str, typer.Argument(help="The policy's one message.")],
    options: OptionsText = "{}",
    family: Family = None,
    seed: Seed = 0,
    index: Annotated[int, typer.Option(min=0, help="Which task of the seed.")] = 0,
    held_out: HeldOut = False,
    as_json: AsJson = False,
) -> None:
    """What an answer is worth, computed as in training: in a process of its own, under a deadline."""
    from abruzzi_jobs.rl.environments import gym

    found = gym(name, _table(options))
    task = found.task(seed, index, split="held_out" if held_out else "train", family=family)
    messages, outcome = asyncio.run(_scored(found, task, answer))
    if as_json:
        _print(json.dumps({"task": task.model_dump(mode="json"), "outcome": outcome.model_dump(mode="json")}, indent=1))
        return
    for message in messages:
        _print(f"{message['role']:<9} {message['content']}")
    worth = "no reward" if outcome.reward is None else f"reward {outcome.reward:g}"
    parts = ", ".join(f"{part} {figure:g}" for part, figure in outcome.components.items())
    _print(
        f"{outcome.status.value}: {worth}{f' ({parts})' if parts else ''}{f'; {outcome.detail}' if outcome.detail else ''}"
    )


async def _scored(found: Any, task: Any, answer: str) -> Any:
    from abruzzi.contracts.rollout import Segment, Status, TokenSource, Trajectory
    from abruzzi_jobs.rl.environments.answers import as_assistant
    from abruzzi_jobs.rl.rewards import RewardPool

    session = found.session()
    try:
        begin = await session.reset(task, task.seed)
        said = as_assistant(answer)
        result = await session.step(said)
        messages = (*begin.messages, said, *result.observation.messages)
        nothing = Segment(source=TokenSource.PROMPT, tokens=())
        status = Status.OK if result.terminated else Status.TURNS
        ended = Trajectory(
            id="g0/0", group="g0", member=0, task=task, segments=(nothing,), status=status, turns=1
        )  # fmt: skip
        async with RewardPool(workers=1) as pool:
            return messages, await pool.score(ended, messages, await session.state())
    finally:
        await session.close()


@app.command("serve", epilog="Example: abruzzi environments serve software --port 8700")
def serve(
    name: Name,
    options: OptionsText = "{}",
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="0: any that is free.")] = 0,
    sessions: Annotated[int, typer.Option(min=1, help="Open at once, at most.")] = 4096,
    reward_workers: Annotated[int, typer.Option(min=1, help="Processes that compute rewards.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Serve it on OpenEnv's wire until interrupted, for trainers of others and for `openenv` here."""
    from abruzzi_jobs.rl.environments import gym
    from abruzzi_jobs.rl.environments.adapters.openenv_server import OpenEnvServer
    from abruzzi_jobs.rl.rewards import RewardPool

    found = gym(name, _table(options))

    async def run() -> None:
        asked = asyncio.Event()
        for ending in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(ending, asked.set)
        pool = RewardPool(workers=reward_workers)
        server = OpenEnvServer(found, pool=pool, max_sessions=sessions)
        async with pool, server.listening(host, port) as url:
            told = {"environment": found.reference, "url": url}
            _print(json.dumps(told) if as_json else f"{found.reference} is served at {url} (WebSocket {url}/ws)")
            sys.stdout.flush()
            await asked.wait()

    asyncio.run(run())


def _table(options: str) -> dict[str, Any]:
    try:
        found = json.loads(options)
    except ValueError as error:
        raise AbruzziError("bad_options", f"--options: no JSON ({error}).", hint="Such as '{\"digits\": 2}'.") from None
    if not isinstance(found, dict):
        raise AbruzziError("bad_options", "--options: no JSON object.", hint="Such as '{\"digits\": 2}'.")
    return found


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
