"""BFCL v3 (Patil et al. 2025), single turns: calls compared with what its owner allows for each argument, by the owner's own checker.

Java's and JavaScript's arguments are strings of these languages, as in the owner's function calling mode. The SQL, REST and executed categories, which
the owner no longer scores, are left out.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, ClassVar

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi.contracts.graph import nearest
from abruzzi_jobs.chat.request import ChatRequest, Message
from abruzzi_jobs.data.package_data import json_lines
from abruzzi_jobs.evals.suites.calls import FORM, Call, last_message, made, sendable, written
from abruzzi_jobs.evals.suites.suite import Ask, Helpers, QuestionSuite, Transcript, answered

LANGUAGES = {"java": "Java", "javascript": "JavaScript"}
CATEGORIES = (
    "simple", "multiple", "parallel", "parallel_multiple", "java", "javascript", "irrelevance",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance", "live_relevance",
)  # fmt: skip
_UNANSWERED = ("irrelevance", "live_irrelevance", "live_relevance")
_SYSTEM = "You can call these functions:\n{functions}\n\n" + FORM
WITHOUT_GOLD = frozenset((
    "java_36", "java_64", "java_65", "live_simple_106-63-0", "live_simple_112-68-0", "live_multiple_862-181-3", "live_multiple_964-207-0",
))  # fmt: skip
"""Of these, nothing that the owner allows passes the owner's checker: a required argument is missing or has no value, or its type cannot be written."""
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What the owner's checker raises at an argument of a shape that it does not foresee: a wrong one."""


class BerkeleySuite(QuestionSuite):
    """Of the leaderboard's third version. Option `categories`: some of `known`."""

    version = 3
    licence = "Apache-2.0"
    source = "Patil et al. 2025 (Berkeley Function-Calling Leaderboard), package nvidia-bfcl"
    defaults = SuiteSettings(temperature=0.0, max_tokens=8192, tools=True)
    takes = ("categories",)
    known: ClassVar[tuple[str, ...]]

    def __init__(self, settings: SuiteSettings) -> None:
        """Raises AbruzziError `bad_options`."""
        super().__init__(settings)
        self.categories = tuple(settings.options.get("categories", self.known))
        for category in self.categories:
            if category not in self.known:
                raise AbruzziError(
                    "bad_options",
                    f"suite {self.name}: no category is called {category!r}.",
                    hint=nearest(str(category), list(self.known)),
                )


class BFCL(BerkeleySuite):
    """Without tools, the functions stand in the prompt."""

    name = "bfcl"
    summary = "BFCL v3, single turns: 3641 questions whose function calls are compared argument by argument."
    known = CATEGORIES

    def items(self) -> Iterator[Item]:
        seen = Counter[str]()
        for category in self.categories:
            tasks = json_lines("nvidia-bfcl", f"bfcl/data/BFCL_v3_{category}.json")
            for task, gold in zip(tasks, repeat(None) if category in _UNANSWERED else answers(category), strict=False):
                seen[task["id"]] += 1  # the owner gave one id to two questions
                yield Item(
                    id=task["id"] if seen[task["id"]] == 1 else f"{task['id']}-{seen[task['id']]}",
                    prompt=asked_in(task["question"][0]),
                    gold=gold,
                    subtask=category,
                    meta={"turns": task["question"][0], "functions": task["function"]},
                )

    def messages(self, item: Item) -> list[Message]:
        turns: list[Message] = list(item.meta["turns"])
        if self.settings.tools:
            return turns
        functions = written(
            [Call(f["name"], {"description": f["description"], **f["parameters"]}) for f in _functions(item)]
        )
        return [{"role": "system", "content": _SYSTEM.format(functions=functions)}, *turns]

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        messages = self.messages(item)
        tools = [declared(function) for function in _functions(item)] if self.settings.tools else []
        return answered(messages, await ask(ChatRequest(messages=messages, tools=tools)))

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        calls = made(last_message(transcript), [function["name"] for function in item.meta["functions"]])
        if item.subtask.endswith("irrelevance"):
            return Verdict(score=float(not calls), reason="" if not calls else "calls where no function serves")
        if calls is None:
            return Verdict(score=0.0, reason="its arguments are no JSON object")
        if item.subtask == "live_relevance":
            return Verdict(score=float(bool(calls)), reason="" if calls else "calls nothing")
        fault = fault_of(calls, item)
        return Verdict(score=float(not fault), reason=fault[:300])

    def gold_answer(self, item: Item) -> str | None:
        if item.id in WITHOUT_GOLD:
            return None
        if item.subtask.endswith("irrelevance"):
            return "None of these serves."
        if item.subtask == "live_relevance":
            return written([Call(item.meta["functions"][0]["name"], {})])
        return written([_first_allowed(call, item) for call in item.gold])

    def perturbed_answer(self, item: Item) -> str:
        """The right calls to a function that is not there; where nothing is to be called, a call, and the other way round."""
        if item.subtask.endswith("irrelevance"):
            return written([Call(next((f["name"] for f in item.meta["functions"]), "answer"), {})])
        if item.subtask == "live_relevance":
            return "None of these serves."
        return written([Call(f"{call.name}_", call.arguments) for call in (_first_allowed(c, item) for c in item.gold)])


def asked_in(*turns: Sequence[Message]) -> str:
    """What users say in them: of a conversation's question, what training text may hold."""
    return "\n".join(str(said["content"]) for turn in turns for said in turn if said["role"] == "user")


def answers(category: str) -> Iterator[Any]:
    """In the order of the questions, as the owner pairs them (one id is not the same in both files)."""
    for line in json_lines("nvidia-bfcl", f"bfcl/data/possible_answer/BFCL_v3_{category}.json"):
        yield line["ground_truth"]


def fault_of(calls: list[Call], item: Item) -> str:
    """By the owner's checker; empty where they are right."""
    from bfcl.eval_checker.ast_eval.ast_checker import ast_checker

    language = LANGUAGES.get(item.subtask, "Python")
    output = [{call.name: call.arguments} for call in calls]
    try:
        found = ast_checker(item.meta["functions"], output, item.gold, language, item.subtask, "abruzzi")
    except _UNREADABLE as error:
        return f"an argument of a shape that is not foreseen ({type(error).__name__}: {error})"
    return "" if found["valid"] else f"{found['error_type']}: {' '.join(map(str, found['error']))}"


def declared(function: Mapping[str, Any]) -> dict[str, Any]:
    """A function of BFCL as a tool of the chat protocol: JSON Schema's types, a name that can be sent."""
    parameters = _schema(function["parameters"])
    told = {"name": sendable(function["name"]), "description": function["description"], "parameters": parameters}
    return {"type": "function", "function": told}


def _functions(item: Item) -> list[dict[str, Any]]:
    """Java's and JavaScript's with arguments that are strings."""
    language = LANGUAGES.get(item.subtask)
    if language is None:
        return item.meta["functions"]
    functions = copy.deepcopy(item.meta["functions"])
    for function in functions:
        function["description"] += f" Its arguments are expressions of {language}."
        for parameter in function["parameters"]["properties"].values():
            parameter["description"] = (
                f"{parameter.get('description', '')} ({language}: {parameter['type']}, as a string.)"
            )
            parameter["type"] = "string"
            for key in ("items", "properties"):
                parameter.pop(key, None)
    return functions


def _schema(node: Any) -> Any:
    from bfcl.model_handler.constant import GORILLA_TO_OPENAPI

    if isinstance(node, list):
        return [_schema(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: _schema(value) for key, value in node.items() if key != "optional"}
    if isinstance(node.get("type"), str):
        found["type"] = GORILLA_TO_OPENAPI.get(node["type"], "string")
    return found


def _first_allowed(call: Mapping[str, Mapping[str, list[Any]]], item: Item) -> Call:
    """For each argument the first value that the owner allows; what may be left out is."""
    ((name, allowed),) = call.items()
    functions = item.meta["functions"]
    function = next((f for f in functions if f["name"] == name), functions[0])
    told = function["parameters"]["properties"]
    required = function["parameters"].get("required", [])
    arguments = {}
    for key, values in allowed.items():
        if "" in values and key not in required:
            continue
        value = next((value for value in values if value != ""), "")
        if item.subtask in LANGUAGES:
            inner = told[key].get("items", {}).get("type", "")
            arguments[key] = _spelt(value, told[key]["type"], inner, java=item.subtask == "java")
        else:
            arguments[key] = _chosen(value)
    return Call(function["name"], arguments)


def _chosen(value: Any) -> Any:
    """Dictionaries list what each key may be."""
    if isinstance(value, dict):
        kept = {key: [v for v in allowed if v != ""] for key, allowed in value.items() if "" not in allowed}
        return {key: allowed[0] for key, allowed in kept.items()}
    return [_chosen(part) for part in value] if isinstance(value, list) else value


def _spelt(value: Any, kind: str, inner: str = "", *, java: bool) -> str:
    """An expression of the language, as its parsing by the owner's checker wants it: strings stand in quotes inside of collections, but for Java arrays."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        quoted = inner in ("String", "char", "any", "") and kind != "Array"
        parts = [_quoted(v) if quoted and isinstance(v, str) else _spelt(v, inner, java=java) for v in value]
        form = {"ArrayList": "new ArrayList<>(Arrays.asList({}))", "Array": "new Object[]{{{}}}"}.get(kind, "[{}]")
        return form.format(", ".join(parts))
    if isinstance(value, dict):
        pairs = {k: v[0] if isinstance(v, list) and v else v for k, v in value.items()}
        told = {k: _quoted(v) if isinstance(v, str) else _spelt(v, "", java=java) for k, v in pairs.items()}
        if java:
            return f"new HashMap<>() {{{{ {' '.join(f'put({_quoted(k)}, {v});' for k, v in told.items())} }}}}"
        return "{" + ", ".join(f"{_quoted(k)}: {v}" for k, v in told.items()) + "}"
    suffixes = {"long": "L", "float": "f"} if java else {"Bigint": "n"}
    return f"{value}{suffixes.get(kind, '') if isinstance(value, int | float) else ''}"


def _quoted(text: str) -> str:
    return f'"{text}"'
