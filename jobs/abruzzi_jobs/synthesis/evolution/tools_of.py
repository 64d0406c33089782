"""The tools of an application: what its entities allow, with schemas, pre- and postconditions and words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from abruzzi.contracts.tool import (
    Condition,
    EntitySchema,
    FieldSchema,
    Operation,
    Simulation,
    Term,
    ToolSpec,
    Transition,
)
from abruzzi_jobs.synthesis.evolution.blueprint import Application

LICENCE = "Apache-2.0"
FIND_LIMIT = 50
_ID = {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}  # what JSON's readers hold exactly


def tools_of(application: Application) -> list[ToolSpec]:
    """In the order of the entities. Two tools of one name would be told apart by nobody: the first stays."""
    made: dict[str, ToolSpec] = {}
    for entity in application.state.entities:
        for tool in _Maker(application, entity).tools():
            made.setdefault(tool.name, tool)
    return list(made.values())


def words(name: str) -> str:
    return name.replace("_", " ")


def an(name: str) -> str:
    return f"{'an' if name[0] in 'aeio' else 'a'} {words(name)}"


def field_schema(field: FieldSchema) -> dict[str, Any]:
    """JSON Schema of a value of the field."""
    said = field.description or words(field.name)
    if field.kind in ("choice", "status"):
        return {"type": "string", "enum": list(field.choices), "description": said}
    if field.kind == "boolean":
        return {"type": "boolean", "description": said}
    if field.kind == "date":
        return {
            "type": "string",
            "pattern": r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$",
            "description": f"{said}, YYYY-MM-DD",
        }
    if field.kind == "text":
        schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 120, "description": said}
        return {**schema, "examples": list(field.examples[:3])} if field.examples else schema
    schema = {"type": "integer", "description": said}
    if field.kind == "reference":
        return {**_ID, "description": f"id of the {words(field.entity or '')}"}
    bounds = {"minimum": field.minimum, "maximum": field.maximum}
    return {**schema, **{name: bound for name, bound in bounds.items() if bound is not None}}


def row_schema(entity: EntitySchema) -> dict[str, Any]:
    properties = {entity.key: {"type": "integer"}, **{field.name: field_schema(field) for field in entity.fields}}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def argument(name: str, **more: Any) -> Term:
    return Term(kind="argument", argument=name, **more)


def at(entity: EntitySchema, field: str, key: str, **more: Any) -> Term:
    return Term(kind="field", entity=entity.name, field=field, argument=key, **more)


def before(entity: EntitySchema, field: str, key: str, **more: Any) -> Term:
    return Term(kind="before", entity=entity.name, field=field, argument=key, **more)


class _Maker:
    def __init__(self, application: Application, entity: EntitySchema) -> None:
        self.application = application
        self.entity = entity
        self.one = words(entity.name)
        self.key = entity.key
        self.parents = [field for field in entity.fields if field.kind == "reference"]
        self.plain = [field for field in entity.fields if field.kind not in ("status", "reference")]

    def tools(self) -> Iterator[ToolSpec]:
        yield self._create()
        yield self._get()
        yield self._find()
        yield self._update()
        yield self._delete()
        for move in self.entity.transitions:
            yield self._move(move)
        for field in self.plain:
            if field.adjustable:
                yield self._adjust(field, raised=True)
                yield self._adjust(field, raised=False)
                yield self._transfer(field)
        for parent in self.parents:
            yield self._related(parent)
            yield self._assign(parent)
        yield from self._figures()

    def _spec(
        self,
        name: str,
        says: str,
        arguments: dict[str, Any],
        required: list[str],
        output: dict[str, Any],
        operation: Operation,
        needs: list[Condition],
        after: list[Condition],
    ) -> ToolSpec:
        told = f"{says} Part of {self.application.title} ({self.application.domain_title})."
        if needs:
            told += " Needs: " + "; ".join(condition.text for condition in needs) + "."
        return ToolSpec(
            name=name,
            description=told,
            input_schema=_object(arguments, required),
            output_schema=output,
            source=f"synthetic:{self.application.domain}/{self.application.name}",
            licence=LICENCE,
            simulation=Simulation(
                operation=operation,
                preconditions=tuple(needs),
                postconditions=tuple(after),
                state=self.application.state,
            ),
        )

    def _id(self, key: str = "", says: str = "") -> dict[str, Any]:
        return {key or self.key: {**_ID, "description": says or f"id of the {self.one}"}}

    def _exists(self, key: str = "", entity: str = "") -> Condition:
        entity, key = entity or self.entity.name, key or self.key
        left = Term(kind="argument", argument=key, entity=entity)
        return Condition(text=f"the {words(entity)} that {key} names exists", relation="exists", left=left)

    def _equal(self, field: str, right: Term, text: str) -> Condition:
        return Condition(text=text, relation="=", left=at(self.entity, field, self.key), right=right)

    def _counted(self, more: int, text: str) -> Condition:
        now = Term(kind="count", entity=self.entity.name)
        then = Term(kind="count_before", entity=self.entity.name, value=more)
        return Condition(text=text, relation="=", left=now, right=then)

    def _create(self) -> ToolSpec:
        taken = [field for field in self.entity.fields if field.kind != "status"]
        required = [field.name for field in taken if field.kind in ("text", "reference")]
        after = [self._equal(f.name, argument(f.name), f"its {words(f.name)} is the given one") for f in taken]
        grown = self._counted(1, f"there is one {self.one} more")
        status = self.entity.status
        first = f" It starts as {words(status.choices[0])}." if status else ""
        return self._spec(
            f"create_{self.entity.name}",
            f"Create {an(self.entity.name)}: {self.entity.description}.{first}",
            {field.name: field_schema(field) for field in taken},
            required,
            row_schema(self.entity),
            Operation(kind="create", entity=self.entity.name),
            [self._exists(field.name, field.entity or "") for field in self.parents],
            [*after, grown],
        )

    def _get(self) -> ToolSpec:
        known = ", ".join(words(field.name) for field in self.entity.fields[:3])
        return self._spec(
            f"get_{self.entity.name}",
            f"Read {an(self.entity.name)} by its id: {known} and the rest.",
            self._id(),
            [self.key],
            row_schema(self.entity),
            Operation(kind="get", entity=self.entity.name),
            [self._exists()],
            [],
        )

    def _find(self) -> ToolSpec:
        filters = [f for f in self.entity.fields if f.kind in ("choice", "status", "boolean")]
        first = self.entity.fields[0]
        arguments = {field.name: field_schema(field) for field in filters}
        if first.kind == "text":
            part = {
                "type": "string",
                "minLength": 1,
                "maxLength": 60,
                "description": f"part of the {words(first.name)}",
            }
            arguments[f"{first.name}_contains"] = part
        arguments["limit"] = {
            "type": "integer",
            "minimum": 1,
            "maximum": FIND_LIMIT,
            "description": f"{FIND_LIMIT} by default",
        }
        by = " or ".join(words(name) for name in list(arguments)[:-1]) or "id"
        return self._spec(
            f"find_{self.entity.name}",
            f"Search every {self.one} by {by}.",
            arguments,
            [],
            self._rows(),
            Operation(kind="find", entity=self.entity.name),
            [],
            [],
        )

    def _rows(self) -> dict[str, Any]:
        items = {"type": "array", "items": row_schema(self.entity), "maxItems": FIND_LIMIT}
        counted = {"items": items, "total": {"type": "integer"}, "complete": {"type": "boolean"}}
        return _object(counted, list(counted))

    def _update(self) -> ToolSpec:
        names = ", ".join(words(field.name) for field in self.plain)
        after = [
            self._equal(f.name, argument(f.name), f"a given {words(f.name)} is its {words(f.name)}") for f in self.plain
        ]
        return self._spec(
            f"update_{self.entity.name}",
            f"Change what is known of {an(self.entity.name)}: {names}. What is left out stays.",
            self._id() | {field.name: field_schema(field) for field in self.plain},
            [self.key],
            row_schema(self.entity),
            Operation(kind="update", entity=self.entity.name),
            [self._exists()],
            after,
        )

    def _delete(self) -> ToolSpec:
        needs = [self._exists()]
        for child in self.application.state.entities:
            for field in child.fields:
                if field.kind == "reference" and field.entity == self.entity.name:
                    held = Term(kind="count", entity=child.name, field=field.name, argument=self.key)
                    none = Term(kind="constant", value=0)
                    text = f"no {words(child.name)} refers to it"
                    needs.append(Condition(text=text, relation="=", left=held, right=none))
        return self._spec(
            f"delete_{self.entity.name}",
            f"Delete {an(self.entity.name)} for good.",
            self._id(),
            [self.key],
            _object({"deleted": {"type": "integer"}}, ["deleted"]),
            Operation(kind="delete", entity=self.entity.name),
            needs,
            [self._counted(-1, f"there is one {self.one} less")],
        )

    def _move(self, move: Transition) -> ToolSpec:
        origins = " or ".join(words(origin) for origin in move.origins)
        left = at(self.entity, "status", self.key)
        allowed = Condition(text=f"it is {origins}", relation="in", left=left, values=move.origins)
        target = Term(kind="constant", value=move.target)
        name = (
            move.verb if self.entity.name.split("_")[0] in move.verb.split("_") else f"{move.verb}_{self.entity.name}"
        )
        return self._spec(
            name,
            f"{words(move.verb).capitalize()}: takes {an(self.entity.name)} ({self.entity.description}) from {origins} to {words(move.target)}.",
            self._id(),
            [self.key],
            row_schema(self.entity),
            Operation(kind="move", entity=self.entity.name, verb=move.verb),
            [self._exists(), allowed],
            [self._equal("status", target, f"it is {words(move.target)}")],
        )

    def _adjust(self, field: FieldSchema, *, raised: bool) -> ToolSpec:
        verb, sign = ("raise", "plus") if raised else ("lower", "minus")
        bound = field.maximum if raised else field.minimum
        now = at(self.entity, field.name, self.key, **{sign: "by"})
        edge = "at most" if raised else "at least"
        held = Condition(
            text=f"the {words(field.name)} stays {edge} {bound}",
            relation="<=" if raised else ">=",
            left=now,
            right=Term(kind="constant", value=bound),
        )
        then = before(self.entity, field.name, self.key, **{sign: "by"})
        return self._spec(
            f"{verb}_{self.entity.name}_{field.name}",
            f"{verb.capitalize()} the {words(field.name)} of {an(self.entity.name)} by an amount; it stays {edge} {bound}.",
            self._id()
            | {
                "by": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": max(1, (field.maximum or 1)),
                    "description": "how much",
                }
            },
            [self.key, "by"],
            row_schema(self.entity),
            Operation(kind="adjust", entity=self.entity.name, field=field.name, verb=verb),
            [self._exists(), held],
            [self._equal(field.name, then, f"its {words(field.name)} changed by exactly that")],
        )

    def _transfer(self, field: FieldSchema) -> ToolSpec:
        source, target = f"from_{self.key}", f"to_{self.key}"
        apart = Condition(
            text=f"the two are not the same {self.one}", relation="!=", left=argument(source), right=argument(target)
        )
        low = Condition(
            text=f"the first has that much {words(field.name)} to give",
            relation=">=",
            left=at(self.entity, field.name, source, minus="amount"),
            right=Term(kind="constant", value=field.minimum),
        )
        high = Condition(
            text=f"the second can take that much {words(field.name)}",
            relation="<=",
            left=at(self.entity, field.name, target, plus="amount"),
            right=Term(kind="constant", value=field.maximum),
        )
        after = [
            Condition(
                text=f"its {words(field.name)} changed by the amount",
                relation="=",
                left=at(self.entity, field.name, key),
                right=before(self.entity, field.name, key, **{sign: "amount"}),
            )
            for key, sign in ((source, "minus"), (target, "plus"))
        ]
        amount = {
            "amount": {
                "type": "integer",
                "minimum": 1,
                "maximum": max(1, field.maximum or 1),
                "description": "how much",
            }
        }
        rows = {"source": row_schema(self.entity), "target": row_schema(self.entity)}
        return self._spec(
            f"transfer_{field.name}_between_{self.entity.name}",
            f"Move an amount of {words(field.name)} from one {self.one} to another; nothing is lost on the way.",
            self._id(source, f"the {self.one} that gives") | self._id(target, f"the {self.one} that takes") | amount,
            [source, target, "amount"],
            _object(rows, list(rows)),
            Operation(kind="transfer", entity=self.entity.name, field=field.name),
            [self._exists(source), self._exists(target), apart, low, high],
            after,
        )

    def _related(self, parent: FieldSchema) -> ToolSpec:
        owner = parent.entity or ""
        return self._spec(
            f"list_{self.entity.name}_of_{owner}",
            f"List every {self.one} that belongs to one {words(owner)}.",
            self._id(parent.name, f"id of the {words(owner)}"),
            [parent.name],
            self._rows(),
            Operation(kind="related", entity=self.entity.name, by=parent.name),
            [self._exists(parent.name, owner)],
            [],
        )

    def _assign(self, parent: FieldSchema) -> ToolSpec:
        owner = parent.entity or ""
        return self._spec(
            f"assign_{self.entity.name}_to_{owner}",
            f"Give {an(self.entity.name)} to another {words(owner)}.",
            self._id() | self._id(parent.name, f"id of the {words(owner)} that it belongs to from now on"),
            [self.key, parent.name],
            row_schema(self.entity),
            Operation(kind="assign", entity=self.entity.name, field=parent.name),
            [self._exists(), self._exists(parent.name, owner)],
            [self._equal(parent.name, argument(parent.name), f"it belongs to that {words(owner)}")],
        )

    def _figures(self) -> Iterator[ToolSpec]:
        group = self.entity.status or next((f for f in self.plain if f.kind == "choice"), None)
        if group is None:
            return
        keyed = _object({"key": {"type": "string"}, "value": {"type": "integer"}}, ["key", "value"])
        output = _object({"groups": {"type": "array", "items": keyed}}, ["groups"])
        yield self._spec(
            f"count_{self.entity.name}_by_{group.name}",
            f"How many {self.one} records there are of each {words(group.name)}: {', '.join(words(c) for c in group.choices)}.",
            {},
            [],
            output,
            Operation(kind="count", entity=self.entity.name, by=group.name),
            [],
            [],
        )
        summed = next((f for f in self.plain if f.adjustable), None)
        if summed is not None:
            yield self._spec(
                f"total_{self.entity.name}_{summed.name}",
                f"The sum of {words(summed.name)} over every {self.one} of each {words(group.name)}.",
                {},
                [],
                output,
                Operation(kind="total", entity=self.entity.name, field=summed.name, by=group.name),
                [],
                [],
            )
