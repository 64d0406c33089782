"""One step of a plan: a call that works in the world as it is, said in words that a user would use."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from abruzzi.contracts.agent import Fact, PlannedCall, ToolName
from abruzzi.contracts.tool import EntitySchema, FieldSchema, ToolSpec
from abruzzi_jobs.synthesis.evolution.tools_of import an, words
from abruzzi_jobs.synthesis.tasks.naming import Named, bare, by_description, by_number, fact, label, said, several
from abruzzi_jobs.synthesis.world import Snapshot, World

Answer = str | int
_QUESTIONS = {
    "text": ("name", "called", "title", "who", "whose"),
    "integer": ("how many", "how much", "number", "value"),
    "date": ("when", "date", "day"),
}
"""What else asks for a field of the kind."""
READS = ("get", "find", "related", "count", "total")


@dataclass(kw_only=True)
class Step:
    """`wish`: what is to be done, beginning with a verb. `withheld`: the wish without one fact, and that fact, where the agent would ask for it.
    `report`: what a good agent says of it. `answer`: what the user wants to hear."""

    calls: list[PlannedCall]
    wish: str
    facts: list[Fact]
    report: str
    withheld: tuple[str, Fact] | None = None
    answer: tuple[str, Answer] | None = None


@dataclass(kw_only=True)
class Scene:
    """Where steps are made. `first`: the world at the beginning. `made`: rows that the plan itself created."""

    world: World
    tools: Mapping[str, ToolSpec]
    first: Snapshot
    draw: random.Random
    describes: float
    """How often a row is called by its description, not by its id."""
    made: dict[str, list[int]] = field(default_factory=dict)

    def find_of(self, entity: str) -> ToolSpec | None:
        return next(
            (
                t
                for t in self.tools.values()
                if t.simulation and t.simulation.operation.kind == "find" and t.simulation.operation.entity == entity
            ),
            None,
        )

    def named(self, entity: EntitySchema, number: int) -> tuple[Named, list[PlannedCall]]:
        """A row in words, and the call that finds it where the words have no id."""
        fresh = self.made.get(entity.name, [])
        if number in fresh:
            return Named(
                phrase=f"the new {words(entity.name)}"
                if len(fresh) == 1
                else f"new {words(entity.name)} {fresh.index(number) + 1}"
            ), []
        find = self.find_of(entity.name)
        if self.draw.random() < self.describes:
            named = by_description(self.world, self.first, entity, number, find, self.draw)
            if named is not None and find is not None and named.look_up is not None:
                return named, [planned(find, named.look_up)]
        return by_number(entity, number), []


def planned(tool: ToolSpec, arguments: dict[str, Any]) -> PlannedCall:
    return PlannedCall(tool=ToolName(name=tool.name, source=tool.source), arguments=arguments)


def verb_of(verb: str, entity: EntitySchema) -> str:
    """Without what repeats the entity's name."""
    repeated = set(entity.name.split("_"))
    return " ".join(word for word in verb.split("_") if word not in repeated) or words(verb)


def done_to(verb: str, row: str) -> str:
    return f"{verb}: {row}" if " " in verb else f"{verb} {row}"


class Teller:
    """Says one call. `answer` is what the world gave."""

    def __init__(self, scene: Scene, tool: ToolSpec, arguments: dict[str, Any]) -> None:
        assert tool.simulation is not None
        self.scene, self.tool, self.arguments = scene, tool, arguments
        self.operation = tool.simulation.operation
        self.entity = tool.simulation.state.entity(self.operation.entity)
        self.state = tool.simulation.state
        self.one = words(self.entity.name)
        self.facts: list[Fact] = []
        self.calls: list[PlannedCall] = []

    def prepare(self) -> Callable[[dict[str, Any]], Step | None]:
        """The words are found before the call is made, since descriptions are of the world as the user knows it; what comes back is finished by the answer."""
        return getattr(self, f"_{self.operation.kind}")()

    def _row(self, key: str = "", entity: EntitySchema | None = None) -> str:
        entity = entity or self.entity
        named, calls = self.scene.named(entity, self.arguments[key or entity.key])
        self.facts += named.facts
        self.calls += calls
        return named.phrase

    def _step(self, wish: str, report: str, **more: Any) -> Step:
        return Step(
            calls=[*self.calls, planned(self.tool, self.arguments)], wish=wish, facts=self.facts, report=report, **more
        )

    def _value(self, field: FieldSchema) -> str:
        """`label value` of a field that the call sets."""
        value = self.arguments[field.name]
        if field.kind == "reference":
            return f"for {self._row(field.name, self.state.entity(field.entity or ''))}"
        self.facts.append(fact(self.entity, field, value))
        return f"{label(field)} {said(field, value)}"

    def _asked(self, field: FieldSchema, value: Any, *more: str) -> Fact:
        found = fact(self.entity, field, value)
        return found.model_copy(
            update={"told": "asked", "words": (label(field), *more, *_QUESTIONS.get(field.kind, ()))}
        )

    def _create(self) -> Callable[[dict[str, Any]], Step | None]:
        given = [f for f in self.entity.fields if f.name in self.arguments]
        parts = {f.name: self._value(f) for f in given}
        facts = list(self.facts)
        wish = f"create {an(self.entity.name)}: {', '.join(parts.values())}"
        known, withheld = self.entity.fields[0], None
        if known.kind == "text" and known.name in parts and len(parts) > 1:
            rest = [part for name, part in parts.items() if name != known.name]
            withheld = (
                f"create {an(self.entity.name)}: {', '.join(rest)}",
                self._asked(known, self.arguments[known.name]),
            )

        def done(answer: dict[str, Any]) -> Step:
            self.facts = facts
            return self._step(
                wish, f"The {self.one} is created; its id is {answer[self.entity.key]}.", withheld=withheld
            )

        return done

    def _update(self) -> Callable[[dict[str, Any]], Step | None]:
        row = self._row()
        changed = [f for f in self.entity.fields if f.name in self.arguments]
        if not changed:
            return lambda answer: None
        values = ", ".join(f"its {label(f)} becomes {said(f, self.arguments[f.name])}" for f in changed)
        self.facts += [fact(self.entity, f, self.arguments[f.name]) for f in changed]
        last, withheld = changed[-1], None
        if last.kind in ("text", "integer", "date"):
            rest = "".join(f"its {label(f)} becomes {said(f, self.arguments[f.name])}, " for f in changed[:-1])
            wish = (
                f"change {row}: {rest}and its {label(last)} has to be changed too"
                if rest
                else f"change the {label(last)} of {row}"
            )
            withheld = (wish, self._asked(last, self.arguments[last.name], "new value"))
        return lambda answer: self._step(f"change {row}: {values}", f"The {self.one} is changed.", withheld=withheld)

    def _move(self) -> Callable[[dict[str, Any]], Step | None]:
        row, verb = self._row(), verb_of(self.operation.verb or "", self.entity)
        return lambda answer: self._step(
            done_to(verb, row),
            f"The {self.one} is {words(answer['status'])} now.",
        )

    def _adjust(self) -> Callable[[dict[str, Any]], Step | None]:
        column = self.entity.field(self.operation.field or "")
        row, amount = self._row(), said(column, self.arguments["by"])
        wish = f"{self.operation.verb} the {label(column)} of {row}"
        told = Fact(name="by", text=f"By {amount}.", value=str(self.arguments["by"]))
        self.facts.append(told)
        withheld = (
            wish,
            told.model_copy(
                update={"told": "asked", "words": ("how much", "amount", "how many", "by what", label(column))}
            ),
        )
        return lambda answer: self._step(
            f"{wish} by {amount}",
            f"The {label(column)} of the {self.one}: now {said(column, answer[column.name])}.",
            withheld=withheld,
        )

    def _transfer(self) -> Callable[[dict[str, Any]], Step | None]:
        column, key = self.entity.field(self.operation.field or ""), self.entity.key
        source, target = self._row(f"from_{key}"), self._row(f"to_{key}")
        amount = said(column, self.arguments["amount"])
        told = Fact(name="amount", text=f"The amount is {amount}.", value=str(self.arguments["amount"]))
        self.facts.append(told)
        withheld = (
            f"move some {label(column)} from {source} to {target}",
            told.model_copy(
                update={"told": "asked", "words": ("how much", "amount", "how many", "by what", label(column))}
            ),
        )
        wish = (
            f"move {amount} of {label(column)} from {source} to {target}"
            if "cents" in amount
            else f"move {amount} {label(column)} from {source} to {target}"
        )
        return lambda answer: self._step(wish, f"{amount} moved.", withheld=withheld)

    def _assign(self) -> Callable[[dict[str, Any]], Step | None]:
        owner = self.state.entity(self.entity.field(self.operation.field or "").entity or "")
        row, target = self._row(), self._row(self.operation.field or "", owner)
        return lambda answer: self._step(
            f"give {row} to {target}", f"The {self.one} belongs to the other {words(owner.name)} now."
        )

    def _delete(self) -> Callable[[dict[str, Any]], Step | None]:
        row = self._row()
        return lambda answer: self._step(f"delete {row}", f"The {self.one} is deleted.")

    def _get(self) -> Callable[[dict[str, Any]], Step | None]:
        columns = [f for f in self.entity.fields if f.kind in ("integer", "date", "status", "choice")]
        if not columns:
            return lambda answer: None
        column, row = self.scene.draw.choice(columns), self._row()

        def done(answer: dict[str, Any]) -> Step:
            value = answer[column.name]
            told = value if isinstance(value, int) else bare(column, value)
            report = f"The {label(column)} of the {self.one} is {said(column, value)}."
            return self._step(f"tell me the {label(column)} of {row}", report, answer=(f"the {label(column)}", told))

        return done

    def _find(self) -> Callable[[dict[str, Any]], Step | None]:
        filters = [f for f in self.entity.fields if f.name in self.arguments]
        if not filters:
            return lambda answer: None
        having = " and ".join(f"whose {label(f)} is {said(f, self.arguments[f.name])}" for f in filters)
        self.facts += [fact(self.entity, f, self.arguments[f.name]) for f in filters]
        return self._counted(f"{several(self.entity.name)} there are {having}")

    def _related(self) -> Callable[[dict[str, Any]], Step | None]:
        owner = self.state.entity(self.entity.field(self.operation.by or "").entity or "")
        return self._counted(f"{several(self.entity.name)} belong to {self._row(self.operation.by or '', owner)}")

    def _counted(self, what: str) -> Callable[[dict[str, Any]], Step | None]:
        def done(answer: dict[str, Any]) -> Step | None:
            total = answer["total"]
            if not total:
                return None
            return self._step(f"tell me how many {what}", f"The number is {total}.", answer=("the number", total))

        return done

    def _count(self) -> Callable[[dict[str, Any]], Step | None]:
        return self._grouped(f"how many {several(self.entity.name)} there are")

    def _total(self) -> Callable[[dict[str, Any]], Step | None]:
        column = self.entity.field(self.operation.field or "")
        unit = " in cents" if column.name.endswith("_cents") else ""
        return self._grouped(f"the sum{unit} of {label(column)} over all {several(self.entity.name)}")

    def _grouped(self, what: str) -> Callable[[dict[str, Any]], Step | None]:
        by = self.entity.field(self.operation.by or "")
        turn = self.scene.draw.random()

        def done(answer: dict[str, Any]) -> Step | None:
            groups = [group for group in answer["groups"] if group["value"]]
            if not groups:
                return None
            group = groups[int(turn * len(groups))]
            self.facts.append(fact(self.entity, by, group["key"]))
            wish = f"tell me {what} whose {label(by)} is {bare(by, group['key'])}"
            return self._step(wish, f"It is {group['value']}.", answer=("the figure", group["value"]))

        return done
