"""A world: the state of one application, and calls on it. Each call is a transaction: done with all its conditions true, or not at all."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.tool import StateSchema, ToolSpec
from abruzzi_jobs.synthesis.evolution.tools_of import FIND_LIMIT
from abruzzi_jobs.synthesis.schemas import value_fault
from abruzzi_jobs.synthesis.world.conditions import holds, remembered
from abruzzi_jobs.synthesis.world.faults import Fault, Schedule
from abruzzi_jobs.synthesis.world.tables import Row, Snapshot, Tables, default, difference

ROWS_EACH = 8
_READS = ("get", "find", "related", "count", "total")


class BrokenTool(AbruzziError):
    """A tool did not do what it promises: its specification is at fault, not its caller."""

    def __init__(self, tool: str, what: str) -> None:
        super().__init__("broken_tool", f"{tool}: {what}", status=500)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`answer`: what the caller is told, {…} as the tool's output schema says, or {"error": {"code", "message"}}. `changes`: what was done to the
    state (empty for a refused call; not empty for one whose answer was lost)."""

    ok: bool
    answer: dict[str, Any]
    fault: Fault | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def error(self) -> str | None:
        return None if self.ok else self.answer["error"]["code"]


class World:
    """Equal arguments and equal calls make equal states and answers."""

    def __init__(
        self, state: StateSchema, *, seed: int = 0, rows_each: int = ROWS_EACH, schedule: Schedule | None = None
    ) -> None:
        self.tables = Tables(state, seed, rows_each)
        self.rows_each = rows_each
        self._schedule = schedule or Schedule()
        self._calls = 0

    def snapshot(self) -> Snapshot:
        return self.tables.snapshot()

    def digest(self) -> str:
        return self.tables.digest()

    def close(self) -> None:
        self.tables.close()

    def call(self, tool: ToolSpec, arguments: dict[str, Any]) -> Outcome:
        """Never raises for what the caller did; raises BrokenTool for what the tool did, and then the state is as before."""
        if tool.simulation is None or tool.simulation.state != self.tables.state:
            raise AbruzziError("wrong_world", f"{tool.name} of {tool.source} does not run in this world.")
        fault = self._schedule.fault(self._calls)
        self._calls += 1
        if broken := value_fault(arguments, tool.input_schema) or _unwritable(arguments):
            return _refused("invalid_arguments", broken)
        arguments = {name: _whole(value) for name, value in arguments.items()}
        if fault == "unavailable":
            return _refused("unavailable", "The service did not answer; nothing was done.", fault)
        if fault == "rate_limited":
            return _refused("rate_limited", "Too many calls; try again later.", fault)
        if unmet := self.unmet(tool, arguments):
            return _refused(*unmet)
        return self._done(tool, arguments, fault)

    def unmet(self, tool: ToolSpec, arguments: dict[str, Any]) -> tuple[str, str] | None:
        """(code, message) of the first precondition that does not hold."""
        assert tool.simulation is not None
        for condition in tool.simulation.preconditions:
            if not holds(condition, arguments, self.tables):
                code = "not_found" if condition.relation == "exists" else "precondition_failed"
                return code, f"Not so: {condition.text}."
        return None

    def _done(self, tool: ToolSpec, arguments: dict[str, Any], fault: Fault | None) -> Outcome:
        assert tool.simulation is not None
        after = tool.simulation.postconditions
        before = remembered(after, arguments, self.tables)
        reads = tool.simulation.operation.kind in _READS
        was, written = {} if reads else self.snapshot(), self.tables.written
        self.tables.begin()
        try:
            answer, named = _Performer(self.tables, tool, arguments).perform()
            wrote = self.tables.written != written
            for condition in after:
                if not holds(condition, named, self.tables, before):
                    raise BrokenTool(tool.name, f"does not hold afterwards: {condition.text}")
            if wrote and reads:
                raise BrokenTool(tool.name, "reads, but changed the state")
            changes = difference(was, self.snapshot()) if wrote else []
        except sqlite3.IntegrityError as error:
            self.tables.undo()
            raise BrokenTool(tool.name, f"breaks an invariant of the state: {error}") from error
        except BaseException:
            self.tables.undo()
            raise
        self.tables.keep()
        if fault == "lost_answer":
            error = {"code": "timeout", "message": "No answer in time; it is not known whether it was done."}
            return Outcome(ok=False, answer={"error": error}, fault=fault, changes=changes)
        if fault == "partial" and "items" in answer and len(answer["items"]) > 1:
            half = answer["items"][: len(answer["items"]) // 2]
            return Outcome(ok=True, answer={**answer, "items": half, "complete": False}, fault=fault)
        return Outcome(ok=True, answer=answer, changes=changes)


def _refused(code: str, message: str, fault: Fault | None = None) -> Outcome:
    return Outcome(ok=False, answer={"error": {"code": code, "message": message}}, fault=fault)


def _whole(value: Any) -> Any:
    """JSON Schema takes 3.0 for an integer; lists are cut by integers alone."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unwritable(arguments: dict[str, Any]) -> str:
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "$: half of a surrogate pair is no text"
    return ""


class _Performer:
    """One operation. `perform` gives the answer, and the arguments as conditions see them: with the id of the row that was made."""

    def __init__(self, tables: Tables, tool: ToolSpec, arguments: dict[str, Any]) -> None:
        assert tool.simulation is not None
        self.tables = tables
        self.operation = tool.simulation.operation
        self.entity = tables.state.entity(self.operation.entity)
        self.arguments = arguments
        self.number = arguments.get(self.entity.key)

    def perform(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return getattr(self, f"_{self.operation.kind}")(), {**self.arguments, self.entity.key: self.number}

    def _row(self) -> Row:
        row = self.tables.row(self.entity.name, self.number)
        assert row is not None
        return row

    def _create(self) -> Row:
        row = {field.name: self.arguments.get(field.name, default(field)) for field in self.entity.fields}
        self.number = self.tables.insert(self.entity, row)
        return self._row()

    def _get(self) -> Row:
        return self._row()

    def _change(self, values: Row) -> Row:
        assert self.number is not None
        self.tables.change(self.entity.name, self.number, values)
        return self._row()

    def _update(self) -> Row:
        return self._change({name: value for name, value in self.arguments.items() if name != self.entity.key})

    def _move(self) -> Row:
        target = next(move.target for move in self.entity.transitions if move.verb == self.operation.verb)
        return self._change({"status": target})

    def _assign(self) -> Row:
        name = self.operation.field or ""
        return self._change({name: self.arguments[name]})

    def _adjust(self) -> Row:
        name = self.operation.field or ""
        by = self.arguments["by"] if self.operation.verb == "raise" else -self.arguments["by"]
        return self._change({name: self._row()[name] + by})

    def _delete(self) -> dict[str, Any]:
        assert self.number is not None
        self.tables.delete(self.entity.name, self.number)
        return {"deleted": self.number}

    def _transfer(self) -> dict[str, Any]:
        name, key = self.operation.field or "", self.entity.key
        rows = {}
        for place, argument, sign in (("source", f"from_{key}", -1), ("target", f"to_{key}", 1)):
            number = self.arguments[argument]
            row = self.tables.row(self.entity.name, number)
            assert row is not None
            self.tables.change(self.entity.name, number, {name: row[name] + sign * self.arguments["amount"]})
            rows[place] = self.tables.row(self.entity.name, number)
        return rows

    def _find(self) -> dict[str, Any]:
        where = {
            name: value for name, value in self.arguments.items() if name != "limit" and not name.endswith("_contains")
        }
        part = next((name for name in self.arguments if name.endswith("_contains")), None)
        contains = (part.removesuffix("_contains"), self.arguments[part]) if part else None
        return _listed(self.tables.rows(self.entity.name, where, contains), self.arguments.get("limit", FIND_LIMIT))

    def _related(self) -> dict[str, Any]:
        by = self.operation.by or ""
        return _listed(self.tables.rows(self.entity.name, {by: self.arguments[by]}), FIND_LIMIT)

    def _count(self) -> dict[str, Any]:
        return self._grouped(None)

    def _total(self) -> dict[str, Any]:
        return self._grouped(self.operation.field)

    def _grouped(self, total: str | None) -> dict[str, Any]:
        by = self.operation.by or ""
        found = self.tables.grouped(self.entity.name, by, total)
        choices = self.entity.field(by).choices
        return {"groups": [{"key": choice, "value": found.get(choice, 0)} for choice in choices]}


def _listed(rows: list[Row], limit: int) -> dict[str, Any]:
    return {"items": rows[:limit], "total": len(rows), "complete": len(rows) <= limit}
