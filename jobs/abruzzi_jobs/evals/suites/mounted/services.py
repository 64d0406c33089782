"""Calls of services as ACEBench asks for them (Chen et al. 2025): its normal questions, by calls and their arguments, and its special ones, by what a target
says of a question that cannot be served.

The agent part is a suite of its own (agents.py). As at the owner's, a text argument is right where it holds what is expected, without regard to
case and punctuation; a number has to be the same here, where the owner looks at its type alone. A turn of several is an item of its own.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from abruzzi.contracts.evaluation import Item, Verdict
from abruzzi_jobs.chat.request import ChatRequest, Message
from abruzzi_jobs.evals.suites.bfcl import declared
from abruzzi_jobs.evals.suites.calls import Call, last_message, made
from abruzzi_jobs.evals.suites.mounted.kinds import MountedSuite
from abruzzi_jobs.evals.suites.suite import Ask, Helpers, Transcript, answered

INCOMPLETE, WRONG_VALUE, IRRELEVANT = "special_incomplete", "special_error_param", "special_irrelevant"
_MISSING = "Missing necessary parameters"
_INCORRECT = "There is incorrect value"
_LIMITED = "the limitations of the function"
_RULES = (
    "Serve what the user asks for last, by calls of these APIs.\n"
    f"Where a required parameter is not told, say: {_MISSING} (key1, key2) for the api (ApiName)\n"
    f"Where a value is not of the form that the API wants, say: {_INCORRECT} (value) for the parameters (key) in the conversation history.\n"
    f"Where no API serves, say: Due to {_LIMITED}, I cannot solve this problem.\n"
)
_WRITTEN = "Otherwise answer with the calls and nothing else: [ApiName1(key1='value1', key2=2), ApiName2(key1=['a'])]\n"
_CATEGORY = re.compile(r"^(.*?)(?:_\d+)+$")
_NUMBERED = re.compile(r"_\d+$")
_IGNORED = re.compile(r"[\s,./\-_*^'\"]")
_LONGEST = 100_000


class Services(MountedSuite):
    """With tools, calls are the protocol's; without, they stand in the text as the owner asks for them."""

    def takes_row(self, row: Mapping[str, Any]) -> bool:
        return not str(row.get(self.mounted.id)).startswith("agent")

    def read(self, row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
        prompt, gold, meta = super().read(row)
        functions = list(row[self.mounted.params])
        if not all({"name", "parameters"} <= set(function) for function in functions):
            raise ValueError("a function has no name or no parameters")
        category = _CATEGORY.match(str(row[self.mounted.id]))
        if category is None:
            raise ValueError(f"{row[self.mounted.id]!r} names no category")
        if category[1].startswith("special") and category[1] != IRRELEVANT and not isinstance(gold, dict):
            raise ValueError("its ground_truth is no table")
        told = [str(row.get(name) or "") for name in ("time", "profile")]
        more = {"functions": functions, "told": "\n".join(filter(None, told)), "category": category[1]}
        return prompt, gold, {**meta, **more}

    def _items(self, place: Path) -> Iterator[Item]:
        for item in super()._items(place):
            yield item.model_copy(update={"subtask": item.meta["category"]})

    def messages(self, item: Item) -> list[Message]:
        parts = [_RULES if self.settings.tools else _RULES + _WRITTEN, item.meta["told"]]
        if not self.settings.tools:
            parts.append("\n".join(json.dumps(function, ensure_ascii=False) for function in item.meta["functions"]))
        system = "\n".join(part for part in parts if part)
        return [{"role": "system", "content": system}, {"role": "user", "content": item.prompt}]

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        messages = self.messages(item)
        tools = [tool_of(function) for function in item.meta["functions"]] if self.settings.tools else []
        return answered(messages, await ask(ChatRequest(messages=messages, tools=tools)))

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        fault = _unsaid(item, transcript.answer) if item.subtask.startswith("special") else _fault(item, transcript)
        return Verdict(score=float(not fault), reason=fault[:300])

    def gold_answer(self, item: Item) -> str:
        if item.subtask == INCOMPLETE:
            return "; ".join(f"{_MISSING} ({', '.join(keys)}) for the api ({name})" for name, keys in item.gold.items())
        if item.subtask == WRONG_VALUE:
            said = (
                f"{_INCORRECT} ({', '.join(values)}) for the parameters ({key})" for key, values in item.gold.items()
            )
            return "; ".join(said)
        if item.subtask == IRRELEVANT:
            return f"Due to {_LIMITED}, I cannot solve this problem."
        calls = (f"{name}({', '.join(f'{k}={v!r}' for k, v in given.items())})" for name, given in _wanted(item)[0])
        return f"[{', '.join(calls)}]"

    def perturbed_answer(self, item: Item) -> str:
        """A call of what is not there; for what cannot be served, one of what is."""
        name = item.meta["functions"][0]["name"] if item.subtask.startswith("special") else "nobody_73461"
        return f"[{name}()]"


def _unsaid(item: Item, said: str) -> str:
    """What should have been said of a question that cannot be served; empty where it was."""
    if item.subtask == IRRELEVANT:
        return "" if _LIMITED in said else "does not say that no function serves"
    opening = _MISSING if item.subtask == INCOMPLETE else _INCORRECT
    if opening not in said:
        return f"does not say: {opening}"
    named = [str(value) for values in item.gold.values() for value in values]
    if item.subtask == INCOMPLETE:
        named += list(item.gold)
    return next((f"does not name {value}" for value in named if value not in said), "")


def _fault(item: Item, transcript: Transcript) -> str:
    message = last_message(transcript)
    if message.get("tool_calls"):
        calls = made(message, [function["name"] for function in item.meta["functions"]])
    else:
        calls = calls_in(str(message.get("content") or ""))
    if calls is None:
        return "no calls that can be read"
    faults = [_differs(wanted, calls, item.meta["functions"]) for wanted in _wanted(item)]
    return "" if "" in faults else faults[0]


def calls_in(text: str) -> list[Call] | None:
    """Of the list of calls that stands last; None where there is none, or where an argument is no literal."""
    text = text.strip()[-_LONGEST:]
    begin, end = text.find("["), text.rfind("]")
    if not 0 <= begin < end:
        return None
    try:
        node = ast.parse(text[begin : end + 1], mode="eval").body
        if not isinstance(node, ast.List):
            return None
        return [_call(part) for part in node.elts]
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call by names")
    names: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no call by names")
        names[keyword.arg] = _literal(keyword.value)
    return Call(ast.unparse(node.func), names)


class _Words(ast.NodeTransformer):
    """true, false and null as JSON writes them."""

    known: ClassVar[Mapping[str, Any]] = {"true": True, "false": False, "null": None}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.known:
            raise ValueError(f"{node.id} is no value")
        return ast.copy_location(ast.Constant(self.known[node.id]), node)


def _literal(node: ast.expr) -> Any:
    return ast.literal_eval(_Words().visit(node))


def _wanted(item: Item) -> list[list[Call]]:
    """Each of the answers that the owner allows; several calls of one API are numbered there."""
    answers = item.gold if isinstance(item.gold, list) else [item.gold]
    return [[Call(_NUMBERED.sub("", name), dict(given)) for name, given in answer.items()] for answer in answers]


def _differs(wanted: Sequence[Call], calls: Sequence[Call], functions: Sequence[Mapping[str, Any]]) -> str:
    counted, needed = Counter(call.name for call in calls), Counter(call.name for call in wanted)
    if counted != needed:
        return f"calls {dict(counted)}, not {dict(needed)}"
    schemas = {_NUMBERED.sub("", function["name"]): function["parameters"] for function in functions}
    for call in wanted:
        faults = [
            _argument_fault(call, other, schemas.get(call.name) or {}) for other in calls if other.name == call.name
        ]
        if "" not in faults:
            return faults[0]
    return ""


def _argument_fault(wanted: Call, call: Call, schema: Mapping[str, Any]) -> str:
    for name in schema.get("required") or ():
        if name not in call.arguments and name in wanted.arguments:
            return f"{call.name} without {name}"
    for name, value in call.arguments.items():
        if name not in wanted.arguments:
            return f"{call.name} with {name}, which nobody asked for"
        if not _same(value, wanted.arguments[name]):
            return f"{call.name}: {name} is {json.dumps(value, default=str)[:100]}"
    return ""


def _same(value: Any, wanted: Any) -> bool:
    value, wanted = (
        one.lower() == "true" if isinstance(one, str) and one.lower() in ("true", "false") else one
        for one in (value, wanted)
    )
    if isinstance(wanted, dict):
        return (
            isinstance(value, dict)
            and value.keys() == wanted.keys()
            and all(_same(value[k], wanted[k]) for k in wanted)
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and len(value) == len(wanted) and all(map(_same, value, wanted))
    if isinstance(wanted, str):
        return isinstance(value, str) and _plain(wanted) in _plain(value)
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).lower()


def tool_of(function: Mapping[str, Any]) -> dict[str, Any]:
    """As the chat protocol declares it."""
    parameters = function["parameters"] or {"type": "object", "properties": {}}
    return declared({**function, "description": function.get("description", ""), "parameters": parameters})
