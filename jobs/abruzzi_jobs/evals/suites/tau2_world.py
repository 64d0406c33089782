"""The worlds of tau2-bench: a company's database and tools, a customer's own device in telecom, and what an end in them is worth.

Worlds and tools are the owner's code, but for `calculate`; what is judged follows its evaluators: databases alike (`DB`), assertions that hold (`ENV_ASSERTION`), calls that
were made (`ACTION`), and figures that were told (`COMMUNICATE`).
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from abruzzi_jobs.data.package_data import package_folder
from abruzzi_jobs.evals.suites.tau2_arithmetic import calculate

DOMAINS = ("airline", "retail", "telecom")
_DATABASES = {"airline": ("data_model", "FlightDB"), "retail": ("data_model", "RetailDB")}


class Made(NamedTuple):
    """A call, and whose: `assistant` or `user`."""

    by: str
    name: str
    arguments: dict[str, Any]


def folder() -> Path:
    """Raises ModuleNotFoundError."""
    return package_folder("tau2") / "data" / "tau2"


def tasks(domain: str, split: str) -> Iterator[dict[str, Any]]:
    place = folder() / "domains" / domain
    wanted = set(json.loads((place / "split_tasks.json").read_text(encoding="utf-8"))[split])
    for task in json.loads((place / "tasks.json").read_text(encoding="utf-8")):
        if task["id"] in wanted:
            yield task


def splits(domain: str) -> list[str]:
    return list(json.loads((folder() / "domains" / domain / "split_tasks.json").read_text(encoding="utf-8")))


class World:
    """One task's, from its beginning."""

    def __init__(self, domain: str, task: Mapping[str, Any]) -> None:
        _be_quiet()
        from tau2.data_model.tasks import Task

        self._task = Task.model_validate(task)
        module = importlib.import_module(f"tau2.domains.{domain}.environment")
        database = {"db": _database(domain).model_copy(deep=True)} if domain in _DATABASES else {}
        self._environment = module.get_environment(**database)
        _calculate_ourselves(self._environment.tools)
        begin = self._task.initial_state
        self._environment.set_state(
            initialization_data=begin.initialization_data if begin else None,
            initialization_actions=begin.initialization_actions if begin else None,
            message_history=(begin.message_history or []) if begin else [],
        )
        self._environment.sync_tools()

    @property
    def policy(self) -> str:
        return self._environment.get_policy()

    def tools(self, by: str) -> list[dict[str, Any]]:
        kit = self._environment.tools if by == "assistant" else self._environment.user_tools
        return [tool.openai_schema for tool in kit.get_tools().values()] if kit is not None else []

    def call(self, made: Made) -> str:
        """The tool's answer; faults are words, too."""
        from tau2.data_model.message import ToolCall

        call = ToolCall(id="call", name=made.name, arguments=made.arguments, requestor=made.by)
        return str(self._environment.get_response(call).content)

    def databases(self) -> tuple[str | None, str | None]:
        return self._environment.get_db_hash(), self._environment.get_user_db_hash()

    def wanted(self) -> list[Made]:
        """The owner's own calls."""
        criteria = self._task.evaluation_criteria
        return [Made(a.requestor, a.name, dict(a.arguments)) for a in (criteria.actions or [])] if criteria else []

    def to_be_told(self) -> list[str]:
        criteria = self._task.evaluation_criteria
        return list(criteria.communicate_info or []) if criteria else []

    def basis(self) -> set[str]:
        criteria = self._task.evaluation_criteria
        return {kind.value for kind in criteria.reward_basis} if criteria else set()

    def broken_assertions(self) -> list[str]:
        criteria = self._task.evaluation_criteria
        held = [
            (a, self._environment.run_env_assertion(a, raise_assertion_error=False))
            for a in (criteria.env_assertions or [])
        ]
        return [assertion.func_name for assertion, holds in held if not holds]

    def unmade(self, calls: Sequence[Made]) -> list[str]:
        """Of the wanted calls."""
        from tau2.data_model.message import ToolCall

        made = [ToolCall(id="call", name=call.name, arguments=call.arguments, requestor=call.by) for call in calls]
        actions = self._task.evaluation_criteria.actions or []
        return [action.name for action in actions if not any(action.compare_with_tool_call(call) for call in made)]


def fault_of(domain: str, task: Mapping[str, Any], calls: Sequence[Made], said: Sequence[str]) -> str:
    """Why the reward is 0; empty where it is 1."""
    world, gold = World(domain, task), World(domain, task)
    for call in calls:
        world.call(call)
    for call in gold.wanted():
        gold.call(call)
    basis = world.basis()
    if "DB" in basis and world.databases() != gold.databases():
        return "the databases are not as they should be"
    if "ENV_ASSERTION" in basis and (broken := world.broken_assertions()):
        return f"{broken[0]} does not hold"
    if "ACTION" in basis and (unmade := world.unmade(calls)):
        return f"{unmade[0]} was not called as it should be"
    if "COMMUNICATE" in basis:
        told = [text.lower().replace(",", "") for text in said]
        untold = [info for info in world.to_be_told() if not any(info.lower() in text for text in told)]
        if untold:
            return f"{untold[0]!r} was not told"
    return ""


def _calculate_ourselves(kit: Any) -> None:
    theirs = kit.use_tool

    def use_tool(tool_name: str, **arguments: Any) -> Any:
        if tool_name == calculate.__name__ and kit.has_tool(tool_name):
            return calculate(**arguments)
        return theirs(tool_name=tool_name, **arguments)

    kit.use_tool = use_tool


@functools.lru_cache(maxsize=len(_DATABASES))
def _database(domain: str) -> Any:
    module, name = _DATABASES[domain]
    kind = getattr(importlib.import_module(f"tau2.domains.{domain}.{module}"), name)
    return kind.load(folder() / "domains" / domain / "db.json")


@functools.cache
def _be_quiet() -> None:
    """tau2 prints each call."""
    from loguru import logger

    logger.disable("tau2")
