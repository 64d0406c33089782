"""Services over several turns or steps, as ACEBench's agent part asks for them (Chen et al. 2025): right where they end in the state that the owner expects.

The folder is the owner's repository: its data, its prompts, which are read as text, and the programs that simulate a telephone, a shop and an airline. These
run in a box and keep nothing: at each step all calls so far are made anew, from the beginning. In several turns the role `user` is the customer.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi.contracts.graph import nearest
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, Message
from abruzzi_jobs.evals.suites.calls import Call, made
from abruzzi_jobs.evals.suites.mounted import simulated
from abruzzi_jobs.evals.suites.mounted.kinds import MountedSuite
from abruzzi_jobs.evals.suites.mounted.services import calls_in, tool_of
from abruzzi_jobs.evals.suites.suite import Ask, Helpers, Transcript
from abruzzi_jobs.rl.environments.evaluating import refuse_without_sandbox, write_files
from abruzzi_jobs.sandbox import Box, Limits, python_files, run, scratch_folder

PARTS = ("multi_turn", "multi_step")
_FILES = {
    "BaseApi": "phone_platform/base_api.py", "MessageApi": "phone_platform/message.py", "ReminderApi": "phone_platform/reminder.py",
    "FoodPlatform": "phone_platform/food_services.py", "Travel": "travel.py",
}  # fmt: skip
_KEPT = {
    "BaseApi": ["wifi", "logged_in"], "MessageApi": ["inbox"], "ReminderApi": ["reminder_list"], "FoodPlatform": ["users", "logged_in_users", "orders"],
    "Travel": ["users", "reservations"],
}  # fmt: skip
"""Attributes that the owner compares."""
_PROMPTS = {
    "multi_turn": "model_inference/multi_turn/common_agent.py",
    "multi_step": "model_inference/multi_step/common_agent_step.py",
}
_RULES = {
    "multi_turn": "You serve a user by calls of tools. Ask the user for what you lack, and do not make anything up.",
    "multi_step": "You do what the user asks for by calls of tools, one after the other. Nobody answers questions. When it is done, say: finish conversation",
}
_GREETING = "Is there anything you need help with today?"
_END = "finish conversation"
_NOBODY = "Nobody answers questions: use what is known, and say 'finish conversation' when it is done."
_MESSAGES = 40
"""The owner's limit, of all who take part."""
_LIMITS = Limits(cpu_seconds=30, memory_bytes=512 << 20, file_bytes=1 << 20, processes=8)
_WALL_SECONDS = 60.0
_APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)")
_LOOSE = re.compile(r"[\s'\"\\]")


class Ended(NamedTuple):
    results: list[list[str]]
    """What each call of each step gave."""
    state: dict[str, dict[str, Any]]
    """Attributes of each service."""


class Agents(MountedSuite):
    """Score: the state at the end. Part `process`: the share of the owner's milestones that were reached in their order; 1 where the state is right. Option
    `parts`: some of multi_turn and multi_step. With tools, calls are the protocol's; without, they stand in the text as the owner asks for them."""

    asks = ("user",)
    takes = ("parts",)

    def __init__(self, settings: SuiteSettings) -> None:
        super().__init__(settings)
        refuse_without_sandbox(self.name)
        self.parts = [str(part) for part in settings.options.get("parts", PARTS)]
        for part in self.parts:
            if part not in PARTS:
                hint = nearest(part, list(PARTS))
                raise AbruzziError("bad_options", f"suite {self.name}: no part is called {part!r}.", hint=hint)
        self._programs = {path: text for part in PARTS for path, text in self._programs_of(part).items()}
        """Of both: those of several steps import some of several turns."""
        self._texts = {part: self._texts_of(part) for part in self.parts}

    def items(self) -> Iterator[Item]:
        for part in self.parts:
            wanted = {row["id"]: row for row in self._lines(f"data_all/data_en/possible_answer/data_agent_{part}.json")}
            for number, row in enumerate(self._lines(f"data_all/data_en/data_agent_{part}.json"), 1):
                try:
                    yield self._item(part, row, wanted[row["id"]])
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise AbruzziError(
                        "bad_data",
                        f"{self.place}: item {number} of {part} is malformed ({type(error).__name__}: {error}).",
                    ) from error

    def _item(self, part: str, row: Mapping[str, Any], right: Mapping[str, Any]) -> Item:
        stones = right["mile_stone"]
        ways = stones if stones and isinstance(stones[0], list) else [stones]
        state = {name: values for one in right["ground_truth"] for name, values in one.items()}
        if unknown := [name for name in row["involved_classes"] if name not in _FILES]:
            raise ValueError(f"no service is called {unknown[0]!r}")
        meta = {
            "services": row["involved_classes"],
            "config": dict(row["initial_config"]),
            "functions": list(row["function"]),
        }
        gold = {"state": state, "ways": [list(way) for way in ways]}
        return Item(id=str(row["id"]), prompt=str(row["question"]), gold=gold, subtask=part, meta=meta)

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        return await _Conversation(self, item, ask, helpers).run()

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        if transcript.state is not None:
            steps = [[Call(*call) for call in step] for step in transcript.state["steps"]]
        else:
            steps = [read for said in json.loads(transcript.answer) if (read := _read(said))]
        ended = await asyncio.to_thread(self.ended, item, steps)
        fault = _differs(item.gold["state"], ended.state) if steps else "nothing is called"
        process = 1.0 if not fault else max((_reached(way, steps) for way in item.gold["ways"]), default=0.0)
        return Verdict(score=float(not fault), reason=fault[:300], parts={"process": process})

    def ended(self, item: Item, steps: Sequence[Sequence[Call]]) -> Ended:
        """What the services give and come to. Raises AbruzziError `no_sandbox`, `sandbox_failed`."""
        root = f"model_inference.{item.subtask}.scenariosen."
        modules = {name: root + _FILES[name].removesuffix(".py").replace("/", ".") for name in item.meta["services"]}
        plan = {
            "classes": modules,
            "kept": {name: _KEPT[name] for name in modules},
            "config": item.meta["config"],
            "steps": steps,
        }
        with scratch_folder("abruzzi-services-") as folder:
            write_files(folder, {**self._programs, "simulated.py": _SIMULATED})
            box = Box(workspace=folder, readable=python_files(), limits=_LIMITS)
            argv = [sys.executable, "-I", "-B", "/workspace/simulated.py"]
            done = run(box, argv, stdin=json.dumps(plan).encode(), wall_seconds=_WALL_SECONDS, output_bytes=8 << 20)
        if not done.ok:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            why = said[-1] if said and done.ending == "exited" else done.ending.replace("_", " ")
            raise AbruzziError("sandbox_failed", f"suite {self.name}: the services ended ({why}).", status=503)
        return Ended(**json.loads(done.stdout))

    def system(self, item: Item) -> str:
        """With tools; without, the owner's words."""
        texts = self._texts[item.subtask]
        own = [_RULES[item.subtask]] if self.settings.tools else [texts["MULTI_TURN_AGENT_PROMPT_SYSTEM_EN"]]
        policy = [self.policy(item)] if item.subtask == "multi_turn" else []
        return "\n".join([*own, *policy])

    def policy(self, item: Item) -> str:
        texts = self._texts["multi_turn"]
        names = {"Travel": "TRAVEL_PROMPT_EN", "BaseApi": "BASE_PROMPT_EN"}
        return "\n".join(texts[name] for service, name in names.items() if service in item.meta["services"])

    def customer(self, item: Item) -> str:
        kind = "TRAVEL" if "Travel" in item.meta["services"] else "BASE"
        return self._texts["multi_turn"][f"SYSTEM_PROMPT_{kind}_EN"].replace("{instruction}", item.prompt)

    def asked_for(self, item: Item, history: str) -> str:
        """The owner's question for the next step."""
        form = self._texts[item.subtask]["MULTI_TURN_AGENT_PROMPT_USER_EN"]
        return form.replace("{functions}", str(item.meta["functions"])).replace("{history}", history)

    def gold_answer(self, item: Item) -> str:
        """The owner's milestones; in some of the owner's items they do not lead to the state that is asked for."""
        return json.dumps(item.gold["ways"][0])

    def perturbed_answer(self, item: Item) -> str:
        """Nothing is called."""
        return "[]"

    def _lines(self, name: str) -> list[dict[str, Any]]:
        place = self.place / name
        found = []
        try:
            for number, line in enumerate(place.read_text(encoding="utf-8").splitlines(), 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"line {number} is no object")
                    found.append(row)
        except (OSError, ValueError) as error:
            raise self._lacks(name, str(error)) from error
        return found

    def _programs_of(self, part: str) -> dict[str, str]:
        root = f"model_inference/{part}/scenariosen"
        return {f"{root}/{name}": self._text(f"{root}/{name}") for name in _FILES.values()}

    def _texts_of(self, part: str) -> dict[str, str]:
        wanted = {_PROMPTS[part]: ("MULTI_TURN_AGENT_PROMPT_SYSTEM_EN", "MULTI_TURN_AGENT_PROMPT_USER_EN")}
        if part == "multi_turn":
            wanted["model_inference/prompt_en.py"] = ("TRAVEL_PROMPT_EN", "BASE_PROMPT_EN")
            wanted["model_inference/multi_turn/APIModel_user.py"] = ("SYSTEM_PROMPT_TRAVEL_EN", "SYSTEM_PROMPT_BASE_EN")
        found: dict[str, str] = {}
        for name, constants in wanted.items():
            told = _constants(self._text(name))
            if lacking := [constant for constant in constants if constant not in told]:
                raise self._lacks(name, f"it has no text {lacking[0]}")
            found |= {constant: told[constant] for constant in constants}
        return found

    def _text(self, name: str) -> str:
        try:
            return (self.place / name).read_text(encoding="utf-8")
        except OSError as error:
            raise self._lacks(name, error.strerror or str(error)) from error

    def _lacks(self, name: str, why: str) -> AbruzziError:
        return AbruzziError(
            "bad_data",
            f"{self.mounted.title} needs {self.place / name} ({why}), which is published by {self.mounted.owner}.",
            hint="Mount the whole repository.",
        )


class _Conversation:
    def __init__(self, suite: Agents, item: Item, ask: Ask, helpers: Helpers) -> None:
        self._suite, self._item, self._ask = suite, item, ask
        self._user = helpers["user"] if item.subtask == "multi_turn" else None
        self._messages: list[Message] = [{"role": "system", "content": suite.system(item)}]
        self._of_user: list[Message] = []
        self._steps: list[list[Call]] = []
        self._history = ""
        self._cut = False

    async def run(self) -> Transcript:
        said = self._item.prompt
        if self._user is not None:
            self._of_user = [{"role": "system", "content": self._suite.customer(self._item)}]
            said = await self._customer(_GREETING)
        self._told("user", said)
        number, last = 1, ""
        while number < _MESSAGES:
            response = await self._answer()
            number, last = number + 2, response.text
            calls = self._calls(response)
            if calls or response.tool_calls:
                await self._made(response, calls)
            elif _END in last:
                break
            elif self._user is None:
                self._told("user", _NOBODY, by="execution")
            else:
                said = await self._customer(last)
                if _END in said:
                    break
                self._told("user", said)
        state = {"steps": [[list(call) for call in step] for step in self._steps]}
        return Transcript(messages=tuple(self._messages), answer=last, state=state, truncated=self._cut)

    async def _answer(self) -> ChatResponse:
        if self._suite.settings.tools:
            tools = [tool_of(function) for function in self._item.meta["functions"]]
            request = ChatRequest(messages=tuple(self._messages), tools=tools)
        else:
            question = self._suite.asked_for(self._item, self._history)
            request = ChatRequest(messages=(self._messages[0], {"role": "user", "content": question}))
        response = await self._ask(request)
        self._messages.append(response.message())
        self._history += f"agent: {response.text}\n"
        self._cut = self._cut or response.finish_reason == "length"
        return response

    def _calls(self, response: ChatResponse) -> list[Call] | None:
        if response.tool_calls:
            return made(response.message(), [function["name"] for function in self._item.meta["functions"]])
        return None if self._suite.settings.tools else calls_in(response.text)

    async def _made(self, response: ChatResponse, calls: list[Call] | None) -> None:
        """Calls that cannot be read are none of the services'."""
        results = ["Error during execution: the arguments are no JSON object"] * len(response.tool_calls)
        if calls is not None:
            self._steps.append(calls)
            ended = await asyncio.to_thread(self._suite.ended, self._item, self._steps)
            results = ended.results[-1]
        if response.tool_calls:
            for call, result in zip(response.tool_calls, results, strict=True):
                self._messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        else:
            self._told("user", f"[{', '.join(results)}]", by="execution")

    def _told(self, role: str, text: str, *, by: str = "user") -> None:
        self._history += f"{by}: {text}\n"
        self._messages.append({"role": role, "content": text if by == "user" else f"{by}: {text}"})

    async def _customer(self, heard: str) -> str:
        assert self._user is not None
        self._of_user.append({"role": "user", "content": heard})
        response = await self._user.complete(ChatRequest(messages=tuple(self._of_user), temperature=0.0))
        self._of_user.append({"role": "assistant", "content": response.text})
        return response.text


_SIMULATED = Path(simulated.__file__).read_text(encoding="utf-8")


def _constants(source: str) -> dict[str, str]:
    """Texts that a module gives names; nothing of it runs."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    return found


def _read(said: str) -> list[Call] | None:
    """Of a milestone, also where its owner wrote 'Domino's'."""
    calls = calls_in(said)
    return calls if calls is not None else calls_in(_APOSTROPHE.sub(r"\\'", said))


def _differs(wanted: Mapping[str, Mapping[str, Any]], state: Mapping[str, Mapping[str, Any]]) -> str:
    """As the owner compares: of tables the keys that are expected; a service that the owner's answer does not name is not looked at."""
    for name, values in state.items():
        for key, value in values.items() if name in wanted else ():
            if key not in wanted[name]:
                return f"{name}.{key} is not expected"
            right = wanted[name][key]
            alike = right == value
            if isinstance(right, dict) and isinstance(value, dict):
                alike = all(part in value and value[part] == right[part] for part in right)
            if not alike:
                return f"{name}.{key} is not as it should be"
    return ""


def _reached(way: Sequence[str], steps: Sequence[Sequence[Call]]) -> float:
    """Share of the milestones found in their order, behind each other; blanks and quotation marks do not count."""
    spelt = [_loose(f"[{', '.join(map(_spelt, step))}]") for step in steps]
    found = begin = 0
    for stone in way:
        if (wanted := _loose(stone)) in spelt[begin:]:
            begin = spelt.index(wanted, begin) + 1
            found += 1
        else:
            break  # the owner's search has used up all steps by then
    return found / len(way) if way else 1.0


def _spelt(call: Call) -> str:
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"


def _loose(text: str) -> str:
    return _LOOSE.sub("", text)
