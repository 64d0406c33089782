"""Agents that only know a base URL: what they ask with OpenAI's own client is played by the policy, and learned from, token for token."""

from __future__ import annotations

import asyncio
import copy
import errno
import json
import os
import random
import select
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import torch
from rollout_lab import ADD, begun

from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Group, Outcome, Status, Task, TokenSource, Trajectory
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.rl.engine.enforcer import Enforcer
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.environments.adapters import agent_process
from abruzzi_jobs.rl.environments.adapters.agent_process import OUTPUT_BYTES, Ran, run_agent
from abruzzi_jobs.rl.environments.adapters.program import Access, Program, ProgramGym, ProgramSession
from abruzzi_jobs.rl.environments.environment import Message, Observation
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.rl.rollout.dialogue import Dialogue
from abruzzi_jobs.rl.rollout.played import Played
from abruzzi_jobs.rl.rollout.player import Limits, Player, Terms
from abruzzi_jobs.sft.template import ChatTemplate
from abruzzi_jobs.train.divergence import DivergenceWatch

TASK = Task(id="t", family="any", environment="programs@1", data={"target": 3})
TOOL = {"type": "function", "function": {**ADD, "parameters": {**ADD["parameters"], "additionalProperties": False}}}
LIMITS = Limits(budget_tokens=300, positions=1024, step_s=240.0, reset_s=240.0)


def client(access: Access, **settings: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=access.base_url, api_key=access.api_key, max_retries=0, **settings)


async def adder(task: Task, access: Access) -> dict[str, Any]:
    """Twenty lines of agent: a loop of calls and results, streamed at every second turn."""
    messages: list[Any] = [{"role": "user", "content": f"Add up to {task.data['target']}."}]
    total, turns = 0, 0
    async with client(access) as policy:
        while total < task.data["target"] and turns < 3:
            turns += 1
            if turns % 2:
                answer = (
                    (await policy.chat.completions.create(model="policy", messages=messages, tools=[TOOL]))
                    .choices[0]
                    .message
                )  # type: ignore[arg-type]
                said = answer.model_dump(exclude_none=True)
            else:
                said = await streamed(policy, messages)
            messages.append(said)
            for call in said.get("tool_calls") or ():
                total += json.loads(call["function"]["arguments"]).get("number", 0)
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": str(total)})
            if not said.get("tool_calls"):
                messages.append({"role": "user", "content": "Go on."})
    return {"total": total, "turns": turns}


async def streamed(policy: openai.AsyncOpenAI, messages: list[Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": ""}
    stream = await policy.chat.completions.create(model="policy", messages=messages, tools=[TOOL], stream=True)  # type: ignore[call-overload]
    async for chunk in stream:
        delta = chunk.choices[0].delta
        said["content"] += delta.content or ""
        if delta.tool_calls:
            said["tool_calls"] = [
                {"id": call.id, "type": "function", "function": call.function.model_dump()} for call in delta.tool_calls
            ]
    return said


def new_model(template: ChatTemplate) -> KimiK2:
    config = ModelConfig(
        vocab_size=template.tokenizer.get_vocab_size(), hidden_size=32, num_layers=1, num_heads=2, q_lora_rank=16, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, intermediate_size=32, moe_intermediate_size=16, num_experts=4,
        num_experts_per_token=2, max_position=1024,
    )  # fmt: skip
    return KimiK2(config, seed=2)


def dialogue(template: ChatTemplate) -> Dialogue:
    size = template.tokenizer.get_vocab_size()
    enforcer = Enforcer(template.tokenizer, template.markers, vocab_size=size, end_of_text=template.end_of_text)
    return Dialogue(template, enforcer=enforcer)


async def played(
    template: ChatTemplate,
    engine: TorchEngine,
    program: Program,
    *,
    member: int,
    pauses: bool = False,
    ends: frozenset[int] = frozenset(),
) -> Played:
    """`pauses`: it is paused whenever some tokens are drawn, and the engine put to sleep. `ends`: more tokens that end a turn."""
    talk = dialogue(template)
    talk.stop_tokens |= ends
    async with AsyncEngine(engine) as front:
        player = Player(
            begun(TASK, member=member), seed=100 + member, limits=LIMITS, dialogue=talk,
            make=lambda task: ProgramSession(program), generate=front.generate,
        )  # fmt: skip
        try:
            async with asyncio.timeout(240):
                while True:
                    cap = 23 if pauses else None
                    found = await player.play(Terms(temperature=1.0, cap_tokens=cap))
                    if found.trajectory.status is not Status.PARTIAL:
                        return found
                    await front.pause("abort")
                    await front.call(lambda e: e.sleep(1))
                    await front.call(lambda e: e.wake())
                    await front.resume()
        finally:
            await player.release()


async def test_an_agent_with_a_base_url_plays_and_its_trajectory_is_learned_from_token_for_token(
    template: ChatTemplate,
) -> None:
    model = new_model(template)
    trajectories: list[Trajectory] = []
    for member in range(2):
        found = await played(template, TorchEngine(copy.deepcopy(model)), adder, member=member)
        trajectory = found.trajectory
        assert trajectory.status in (Status.OK, Status.BUDGET), trajectory.outcome
        if trajectory.status is Status.OK:
            assert found.state["result"]["turns"] == found.state["requests"] == trajectory.turns
            assert found.state["restarts"] == 0
        assert [s.source for s in trajectory.segments].count(TokenSource.PROMPT) == 1
        reward = float(member)
        trajectories.append(
            trajectory.model_copy(
                update={"outcome": Outcome(status=Status.OK, reward=reward), "status": Status.OK, "group": "g0000000"}
            )
        )
    assert mismatch(model, trajectories) == 0.0


async def test_a_rollout_is_paused_while_a_request_waits_and_the_program_notices_nothing(
    template: ChatTemplate,
) -> None:
    model = new_model(template)
    whole = await played(template, TorchEngine(copy.deepcopy(model)), adder, member=5)
    pieces = await played(template, TorchEngine(copy.deepcopy(model)), adder, member=5, pauses=True)
    assert len(pieces.trajectory.segments) > len(whole.trajectory.segments)
    assert pieces.trajectory.tokens == whole.trajectory.tokens
    assert pieces.messages == whole.messages
    assert pieces.state == whole.state


async def forgetful(task: Task, access: Access) -> int:
    """Rewrites its history before each request, as agents do that summarise."""
    async with client(access) as policy:
        for number in range(3):
            messages: Any = [{"role": "user", "content": f"{number} so far. Say more."}]
            await policy.chat.completions.create(model="policy", messages=messages, tools=[TOOL])  # type: ignore[call-overload]
    return 3


async def test_an_edited_history_begins_another_sequence_in_the_same_trajectory_and_is_learned_as_one(
    template: ChatTemplate,
) -> None:
    model, soon = new_model(template), frozenset(range(40, 80))
    members = [
        await played(template, TorchEngine(copy.deepcopy(model)), forgetful, member=m, pauses=m == 1, ends=soon)
        for m in range(2)
    ]
    for found in members:
        prompts = [s.tokens for s in found.trajectory.segments if s.source is TokenSource.PROMPT]
        assert len(set(prompts)) == len(prompts) == 3, [s.source for s in found.trajectory.segments]
        assert found.trajectory.status is Status.OK
        assert found.state == {"result": 3, "requests": 3, "restarts": 2}
    scored = [
        m.trajectory.model_copy(update={"outcome": Outcome(status=Status.OK, reward=float(n))})
        for n, m in enumerate(members)
    ]
    assert mismatch(model, scored) == 0.0


async def repetitive(task: Task, access: Access) -> list[str | None]:
    """Asks the same thing of a fresh history each time, as agents do that vote."""
    said = []
    async with client(access) as policy:
        for _ in range(3):
            messages: Any = [{"role": "user", "content": "Say something."}]
            answer = await policy.chat.completions.create(model="policy", messages=messages)
            said.append(answer.choices[0].message.content)
    return said


async def test_the_same_question_of_a_fresh_history_is_answered_by_draws_of_its_own(template: ChatTemplate) -> None:
    found = await played(
        template, TorchEngine(new_model(template)), repetitive, member=0, ends=frozenset(range(40, 80))
    )
    spoken = [s.tokens for s in found.trajectory.segments if s.source is TokenSource.POLICY]
    assert len(set(spoken)) == len(spoken) == 3


def mismatch(model: KimiK2, trajectories: list[Trajectory]) -> float:
    """The largest difference between the engine's log-probabilities and the learner's."""
    own = copy.deepcopy(model)
    settings = OptimizerConfig(newton_schulz_precision="float32", peak_lr=1e-3)
    optimizer = build_optimizer(own.named_parameters(), settings, model=own.config)
    learner = Learner(
        own, optimizer, Ranks(0, 1, torch.device("cpu")), ObjectiveConfig(), watch=DivergenceWatch(), micro_tokens=4096
    )
    group = Group(id=trajectories[0].group, task=TASK, trajectories=tuple(trajectories))
    [minibatch] = learner.anchor([group], version=0)
    metrics = learner.step(0, minibatch).metrics
    assert metrics["rl/learned_tokens"] == sum(t.policy_tokens for t in trajectories)
    return metrics["rl/mismatch_max"]


# The session alone, with turns of the test's making


async def turns(program: Program, answer: Callable[[int], Message]) -> tuple[ProgramSession, list[Observation]]:
    session = ProgramSession(program)
    async with asyncio.timeout(240):
        seen = [await session.reset(TASK, 0)]
        while True:
            step = await session.step(answer(len(seen) - 1))
            if step.terminated:
                return session, seen
            seen.append(step.observation)


def says(text: str) -> Callable[[int], Message]:
    return lambda number: {"role": "assistant", "content": f"{text} {number}"}


async def test_errors_are_openai_s(template: ChatTemplate) -> None:
    found: list[type[Exception]] = []

    async def clumsy(task: Task, access: Access) -> None:
        wrong = Access(access.base_url, "not the key")
        requests: list[tuple[Access, dict[str, Any]]] = [
            (wrong, {"messages": [{"role": "user", "content": "x"}]}),
            (access, {"messages": [{"role": "nobody", "content": "x"}]}),
            (access, {"messages": [{"role": "user", "content": "x"}], "n": 2}),
            (access, {"messages": [{"role": "user", "content": "x"}], "stop": ["y"]}),
            (access, {"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"}),
        ]
        for to, body in requests:
            async with client(to) as policy:
                try:
                    await policy.chat.completions.create(model="policy", **body)
                except openai.APIStatusError as error:
                    found.append(type(error))
        async with client(access) as policy:
            assert [model.id async for model in await policy.models.list()] == ["policy"]
            await policy.chat.completions.create(model="policy", messages=[{"role": "user", "content": "at last"}])

    session, seen = await turns(clumsy, says("yes"))
    await session.close()
    assert found == [openai.AuthenticationError, *[openai.BadRequestError] * 4]
    assert [message["content"] for message in seen[0].messages] == ["at last"]


async def test_a_client_that_ran_out_of_patience_gets_the_turn_when_it_asks_again() -> None:
    gone = asyncio.Event()
    heard: list[str | None] = []

    async def impatient(task: Task, access: Access) -> None:
        messages: Any = [{"role": "user", "content": "Well?"}]
        async with client(access) as policy:
            first = asyncio.create_task(policy.chat.completions.create(model="policy", messages=messages))
            await asked.wait()
            first.cancel()
            await asyncio.wait({first})
            while not session_asked().answer.done():  # the server has noticed
                await asyncio.wait({first}, timeout=0.001)
            gone.set()
            answer = await policy.chat.completions.create(model="policy", messages=messages)
            heard.append(answer.choices[0].message.content)

    asked = asyncio.Event()
    session = ProgramSession(impatient)

    def session_asked() -> Any:
        assert session._asked is not None
        return session._asked

    async with asyncio.timeout(240):
        await session.reset(TASK, 0)
        asked.set()
        await gone.wait()
        step = await session.step({"role": "assistant", "content": "Now."})
    await session.close()
    assert step.terminated
    assert heard == ["Now."]


async def test_what_a_program_raises_is_the_environment_s_error_and_closing_ends_a_program(
    template: ChatTemplate,
) -> None:
    async def broken(task: Task, access: Access) -> None:
        raise ZeroDivisionError("the agent's own")

    found = await played(template, TorchEngine(new_model(template)), broken, member=0)
    assert found.trajectory.status is Status.ENVIRONMENT_ERROR
    assert found.trajectory.outcome is not None
    assert "the agent's own" in found.trajectory.outcome.detail
    ended = asyncio.Event()

    async def waits(task: Task, access: Access) -> None:
        try:
            async with client(access) as policy:
                await policy.chat.completions.create(model="policy", messages=[{"role": "user", "content": "x"}])
        finally:
            ended.set()

    session = ProgramSession(waits)
    await session.reset(TASK, 0)
    await session.close()
    assert ended.is_set()


PROCESS = """
import json, os, sys, urllib.request
task = json.load(sys.stdin)
body = {"model": "policy", "messages": [{"role": "user", "content": "What is %d?" % task["target"]}]}
asked = urllib.request.Request(
    os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
    {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"},
)
print(json.load(urllib.request.urlopen(asked))["choices"][0]["message"]["content"])
"""


class Processes(ProgramGym):
    name = "processes"
    summary = "An agent that is a process."
    families = ("any",)

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        return {"target": draw.randrange(100)}

    async def play(self, task: Task, access: Access) -> Any:
        ran = await run_agent([sys.executable, "-c", PROCESS], access, stdin=json.dumps(task.data))
        return {"code": ran.code, "output": ran.output, "errors": ran.errors}

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        right = state["result"]["output"].strip() == str(trajectory.task.data["target"])
        return Outcome(status=Status.OK, reward=float(right))


async def test_an_agent_that_is_a_process_has_its_address_in_its_environment_and_is_scored_by_what_it_did() -> None:
    gym = Processes()
    session = gym.session()
    async with asyncio.timeout(240):
        first = await session.reset(TASK, 0)
        step = await session.step({"role": "assistant", "content": "3"})
    state = await session.state()
    await session.close()
    assert [message["content"] for message in first.messages] == ["What is 3?"]
    assert step.terminated
    assert state["result"] == {"code": 0, "output": "3\n", "errors": ""}
    trajectory = begun(TASK)
    assert gym.score(trajectory, (), state).reward == 1.0


def without_pidfds(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def refused(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    if how == "not Linux":
        monkeypatch.delattr(os, "pidfd_open")
    if how == "none left":
        monkeypatch.setattr(os, "pidfd_open", refused)


@pytest.mark.parametrize("how", ["not Linux", "none left"])
async def test_an_agent_s_end_is_known_without_a_pidfd(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    without_pidfds(monkeypatch, how)
    async with asyncio.timeout(240):
        ran = await run_agent([sys.executable, "-c", "print('done'); raise SystemExit(3)"], NOWHERE)
    assert ran == Ran(3, "done\n", "")


async def test_an_agent_whose_end_cannot_be_watched_does_not_live_on(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    @asynccontextmanager
    async def unwatchable(process: subprocess.Popen[bytes]) -> AsyncIterator[asyncio.Event]:
        started.append(process)
        raise RuntimeError("can't start new thread")
        yield

    monkeypatch.setattr(agent_process, "_until_ended", unwatchable)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await run_agent([sys.executable, "-c", "import signal\nwhile True: signal.pause()"], NOWHERE)
    assert [process.returncode for process in started] == [-9], "killed, and reaped"


@pytest.mark.parametrize("how", ["by a pidfd", "not Linux", "none left"])
async def test_closing_kills_an_agent_s_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    without_pidfds(monkeypatch, how)
    told = tmp_path / "pid"
    code = f"import os, signal\nopen({str(told)!r}, 'w').write(str(os.getpid()))\nwhile True: signal.pause()"
    running = asyncio.ensure_future(run_agent([sys.executable, "-c", code], NOWHERE))
    async with asyncio.timeout(240):
        while not (told.exists() and told.read_text()):
            await asyncio.wait({running}, timeout=0.02)
        process = psutil.Process(int(told.read_text()))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    monkeypatch.undo()  # psutil asks for pidfds, too
    assert process not in psutil.wait_procs([process], timeout=120)[1]


NOWHERE = Access("http://127.0.0.1:9/v1", "key")
LEAVES_A_CHILD = """
import os, subprocess, sys
held = os.open(sys.argv[1], os.O_WRONLY)
subprocess.Popen([sys.executable, "-c", "import signal\\nwhile True: signal.pause()"], pass_fds=[held])
print("done")
"""
FLOODS = """
import sys
for _ in range(1600):
    sys.stdout.write("x" * 65536)
print("the end")
"""


async def test_an_agent_is_not_waited_for_by_way_of_a_child_that_holds_its_output_and_the_child_is_ended(
    tmp_path: Path,
) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    hung_up = select.poll()
    hung_up.register(reader := os.open(held, os.O_RDONLY | os.O_NONBLOCK), select.POLLIN)
    async with asyncio.timeout(240):
        ran = await run_agent([sys.executable, "-c", LEAVES_A_CHILD, str(held)], NOWHERE)
    assert (ran.code, ran.output) == (0, "done\n")
    assert hung_up.poll(240_000) == [(reader, select.POLLHUP)], "nobody holds it any more"
    os.close(reader)


async def test_of_an_agent_that_floods_the_end_is_kept_and_no_more() -> None:
    tracemalloc.start()
    try:
        async with asyncio.timeout(240):
            ran = await run_agent([sys.executable, "-c", FLOODS], NOWHERE)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ran.code == 0
    assert ran.output.endswith("xthe end\n")
    assert len(ran.output) == OUTPUT_BYTES
    assert peak_bytes < 4 << 20, "of 100 MiB that it wrote"
