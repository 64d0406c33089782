"""BFCL v3 (Patil et al. 2025), several turns: the target calls tools of stateful simulators, and ends in the state that the owner's calls lead to.

The simulators are the owner's. Here a call is a method by name with arguments out of JSON; the owner evaluates it as Python, which no answer of a model
should be. After each turn every public attribute must be as after the owner's calls, and what these gave must have been seen by then.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from abruzzi.contracts.evaluation import Item, Verdict
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, Message
from abruzzi_jobs.data.package_data import json_lines
from abruzzi_jobs.evals.suites.bfcl import BerkeleySuite, answers, asked_in, declared
from abruzzi_jobs.evals.suites.calls import Call, made
from abruzzi_jobs.evals.suites.suite import Ask, Helpers, Transcript

CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
"""Of the owner's leaderboard. (`composite`, which is not on it, has calls in its answers that are no Python.)"""
_SIMULATORS = "bfcl.eval_checker.multi_turn_eval.func_source_code"
_MODULES = {
    "GorillaFileSystem": "gorilla_file_system", "MathAPI": "math_api", "MessageAPI": "message_api", "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api", "TradingBot": "trading_bot", "TravelAPI": "travel_booking", "VehicleControlAPI": "vehicle_control",
}  # fmt: skip
_MORE_FUNCTIONS = "I have updated some more functions you can choose from. What about now?"
_STEPS_A_TURN = 20
"""The owner's. A target that still calls then has lost the item."""
_LARGEST = {"base": 10**12, "exponent": 10_000, "precision": 10_000, "decimal_places": 10_000}
"""Of arguments whose size a simulator spends in time and memory."""

Turns = list[list[list[Call]]]
"""Calls of steps of turns."""


class World:
    """The simulators of one item, from its beginning."""

    def __init__(self, item: Item) -> None:
        self.instances: dict[str, Any] = {}
        self._methods: dict[str, Any] = {}
        for name in item.meta["classes"]:
            made_ = getattr(importlib.import_module(f"{_SIMULATORS}.{_MODULES[name]}"), name)()
            if name != "MathAPI":
                scenario = copy.deepcopy(item.meta["config"].get(name, {}))
                made_._load_scenario(scenario, long_context=item.subtask == "long_context")
            self.instances[name] = made_
            methods = inspect.getmembers(made_, predicate=inspect.ismethod)
            self._methods |= {key: method for key, method in methods if not key.startswith("_")}

    def call(self, name: str, arguments: Mapping[str, Any], positional: Sequence[Any] = ()) -> str:
        """What it gave, in the owner's words; faults are words, too."""
        method = self._methods.get(name)
        if method is None:
            return f"Error during execution: name '{name}' is not defined"
        for key, most in _LARGEST.items():
            value = arguments.get(key, 0)
            if isinstance(value, int | float) and abs(value) > most:
                return f"Error during execution: {key} is beyond {most}"
        try:
            found = method(*positional, **arguments)
        except Exception as error:
            return f"Error during execution: {error}"
        try:
            return _worded(found)
        except ValueError:  # more digits than Python writes
            return "Error during execution: the result is too large"

    def named(self, name: str, positional: Sequence[Any], arguments: Mapping[str, Any]) -> Call:
        """A call with all its arguments by name."""
        method = self._methods.get(name)
        parameters = list(inspect.signature(method).parameters) if method is not None else []
        return Call(name, {**dict(zip(parameters, positional, strict=False)), **arguments})

    def differs(self, other: World) -> str:
        """The first simulator and attribute that are not alike."""
        for name, instance in other.instances.items():
            mine = self.instances[name]
            for key, value in vars(instance).items():
                if not key.startswith("_") and getattr(mine, key) != value:
                    return f"{name}.{key}"
        return ""


class BFCLTurns(BerkeleySuite):
    name = "bfcl-turns"
    summary = "BFCL v3, several turns: 800 conversations with eight stateful simulators of tools."
    known = CATEGORIES

    def items(self) -> Iterator[Item]:
        for category in self.categories:
            tasks = json_lines("nvidia-bfcl", f"bfcl/data/BFCL_v3_multi_turn_{category}.json")
            for task, gold in zip(tasks, answers(f"multi_turn_{category}"), strict=True):
                meta = {
                    "turns": task["question"],
                    "config": task["initial_config"],
                    "classes": task["involved_classes"],
                    "held_back": task.get("missed_function", {}),
                }
                yield Item(id=task["id"], prompt=asked_in(*task["question"]), gold=gold, subtask=category, meta=meta)

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        world, held_back = World(item), {int(turn): names for turn, names in item.meta["held_back"].items()}
        hidden = {name for names in held_back.values() for name in names}
        functions = [f for name in item.meta["classes"] for f in _functions(name)]
        messages: list[Message] = []
        turns: Turns = []
        cut = False
        for number, said in enumerate(item.meta["turns"]):
            hidden -= set(held_back.get(number, ()))
            messages += said or [{"role": "user", "content": _MORE_FUNCTIONS}]
            tools = [declared(f) for f in functions if f["name"] not in hidden]
            steps: list[list[Call]] = []
            while len(steps) < _STEPS_A_TURN:
                response = await ask(ChatRequest(messages=tuple(messages), tools=tools))
                cut = cut or response.finish_reason == "length"
                messages.append(response.message())
                calls = made(response.message()) if response.tool_calls else []
                if not response.tool_calls:
                    break
                steps.append(calls or [])
                messages += _told(response, calls, world)
            turns.append(steps)
            if len(steps) == _STEPS_A_TURN:
                break
        last = next((str(m.get("content") or "") for m in reversed(messages) if m["role"] == "assistant"), "")
        return Transcript(messages=tuple(messages), answer=last, state={"turns": turns}, truncated=cut)

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        fault = fault_of(item, _turns(transcript))
        return Verdict(score=float(not fault), reason=fault[:300])

    def gold_answer(self, item: Item) -> str:
        """Turns of steps of calls, as JSON; positional arguments by the names of the simulators' parameters."""
        world = World(item)
        return json.dumps([[[world.named(*_parsed(call)) for call in turn]] if turn else [] for turn in item.gold])

    def perturbed_answer(self, item: Item) -> str:
        """Without what the last turn with calls asks for."""
        turns = json.loads(self.gold_answer(item))
        last = max(number for number, turn in enumerate(turns) if turn)
        return json.dumps([*turns[:last], [], *turns[last + 1 :]])


def fault_of(item: Item, turns: Turns) -> str:
    """Why the item is lost, in one sentence; empty where it is won."""
    if len(turns) < len(item.gold):
        return f"gave up in turn {len(turns)} after {_STEPS_A_TURN} steps"
    world, owner = World(item), World(item)
    seen: list[str] = []
    for number, wanted in enumerate(item.gold):
        calls = [call for step in turns[number] for call in step]
        seen += [world.call(*call) for call in calls]
        gave = [owner.call(name, named, positional) for name, positional, named in map(_parsed, wanted)]
        if not wanted:
            if calls:
                return f"calls in turn {number}, where nothing can be done yet"
            continue
        if not calls:
            return f"calls nothing in turn {number}"
        if differs := world.differs(owner):
            return f"after turn {number}, {differs} is not as it should be"
        if missing := _missing(gave, seen):
            return f"by turn {number} it has not seen {missing[:120]}"
    return ""


def _worded(found: Any) -> str:
    """Raises ValueError for whole numbers of more than some thousand digits."""
    if isinstance(found, dict):
        try:
            return json.dumps(found)
        except (TypeError, ValueError):
            return str(found)
    return found if isinstance(found, str) else str(found)


def _missing(wanted: list[str], seen: list[str]) -> str:
    left = list(seen)
    for result in wanted:
        if result not in left:
            return result
        left.remove(result)
    return ""


def _turns(transcript: Transcript) -> Turns:
    """Of the state; of an answer alone, as `gold_answer` writes it."""
    if transcript.state is None:
        return turns_of(transcript.answer)
    return [[[Call(*call) for call in step] for step in turn] for turn in transcript.state["turns"]]


def turns_of(text: str) -> Turns:
    return [[[Call(*call) for call in step] for step in turn] for turn in json.loads(text)]


def _told(response: ChatResponse, calls: list[Call] | None, world: World) -> list[Message]:
    """The tools' answers; where one call cannot be read, none is made."""
    if calls is None:
        results = ["Error during execution: the arguments are no JSON object"] * len(response.tool_calls)
    else:
        results = [world.call(*call) for call in calls]
    pairs = zip(response.tool_calls, results, strict=True)
    return [{"role": "tool", "tool_call_id": call.id, "content": result} for call, result in pairs]


def _functions(simulator: str) -> list[dict[str, Any]]:
    return list(json_lines("nvidia-bfcl", f"bfcl/data/multi_turn_func_doc/{_MODULES[simulator]}.json"))


def _parsed(call: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The owner's calls are Python with literals for arguments."""
    node = ast.parse(call.strip(), mode="eval").body
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    return node.func.id, [ast.literal_eval(argument) for argument in node.args], named
