"""Tools: what an agent may call. Real ones are imported from tool servers; synthetic ones carry the world in which they run.

A synthetic tool is data, not code: an operation on the entities of its application, with pre- and postconditions and the schema of the state.
`abruzzi_jobs.synthesis.world` executes it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Scalar = str | int | float | bool | None


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldSchema(_Frozen):
    """A column. `kind` `reference` names an entity's row by its id; `status` moves along the entity's transitions; `date` is YYYY-MM-DD.
    `minimum` and `maximum` are inclusive, in the unit that the name says (money in whole cents)."""

    name: Name
    kind: Literal["text", "integer", "choice", "boolean", "date", "reference", "status"]
    description: str = ""
    choices: tuple[str, ...] = ()
    entity: Name | None = None
    minimum: int | None = None
    maximum: int | None = None
    adjustable: bool = Field(
        default=False, description="An integer that may be raised, lowered and moved between rows."
    )
    examples: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> FieldSchema:
        if self.kind in ("choice", "status") and len(set(self.choices)) < 2:
            raise ValueError(f"field {self.name!r}: a {self.kind} needs two choices or more")
        if (self.kind == "reference") != (self.entity is not None):
            raise ValueError(f"field {self.name!r}: `entity` belongs to references, and each needs one")
        if None not in (self.minimum, self.maximum) and (self.minimum or 0) > (self.maximum or 0):
            raise ValueError(f"field {self.name!r}: minimum {self.minimum} is above maximum {self.maximum}")
        return self


class Transition(_Frozen):
    """A verb that takes the status from one of `origins` to `target`."""

    verb: Name
    origins: tuple[str, ...] = Field(min_length=1)
    target: str


class EntitySchema(_Frozen):
    """A table. Its id (`<name>_id`, integer) is implied. The first field is the one that people know a row by."""

    name: Name
    description: str = ""
    fields: tuple[FieldSchema, ...] = Field(min_length=1)
    transitions: tuple[Transition, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.name}_id"

    @property
    def status(self) -> FieldSchema | None:
        return next((field for field in self.fields if field.kind == "status"), None)

    def field(self, name: str) -> FieldSchema:
        """Raises KeyError."""
        for found in self.fields:
            if found.name == name:
                return found
        raise KeyError(name)

    @model_validator(mode="after")
    def _coherent(self) -> EntitySchema:
        names = [field.name for field in self.fields]
        if len(set(names)) < len(names) or self.key in names:
            raise ValueError(f"entity {self.name!r}: two fields share a name")
        known = set(self.status.choices) if self.status else set()
        for move in self.transitions:
            strange = {*move.origins, move.target} - known
            if strange:
                raise ValueError(
                    f"entity {self.name!r}: {move.verb!r} names statuses that it does not have: {sorted(strange)}"
                )
        return self


class StateSchema(_Frozen):
    """The state of an application. References name entities of the same application; a row is made after those that it refers to."""

    entities: tuple[EntitySchema, ...] = Field(min_length=1)

    def entity(self, name: str) -> EntitySchema:
        """Raises KeyError."""
        for found in self.entities:
            if found.name == name:
                return found
        raise KeyError(name)

    @model_validator(mode="after")
    def _closed(self) -> StateSchema:
        before: set[str] = set()
        for entity in self.entities:
            if entity.name in before:
                raise ValueError(f"two entities are called {entity.name!r}")
            for field in entity.fields:
                if field.kind == "reference" and field.entity not in before:
                    raise ValueError(
                        f"{entity.name}.{field.name} refers to {field.entity!r}, which does not come before it"
                    )
            before.add(entity.name)
        return self


class Term(_Frozen):
    """A value in a condition. `argument`: of the call. `field`: of the row of `entity` whose id is the argument `argument` (of the new row where the
    call creates it), after the call or, as `before`, ahead of it. `count`: rows of `entity`, those whose `field` is the argument `argument` where both
    are given; `count_before` ahead of the call, plus `value`. `constant`: `value`."""

    kind: Literal["argument", "field", "before", "count", "count_before", "constant"]
    argument: str | None = None
    entity: Name | None = None
    field: Name | None = None
    value: Scalar = None
    plus: str | None = Field(default=None, description="An integer argument that is added.")
    minus: str | None = Field(default=None, description="An integer argument that is subtracted.")


class Condition(_Frozen):
    """`text` says it in words. `exists`: the row that `left` names is there; otherwise `left` stands in `relation` to `right`
    (`in`: to one of `values`). Where an optional argument is absent, what is said of it holds."""

    text: str
    relation: Literal["exists", "=", "!=", "<=", ">=", "in"]
    left: Term
    right: Term | None = None
    values: tuple[Scalar, ...] = ()


class Operation(_Frozen):
    """What the call does to the state. `entity` is the table, `field` the column of `adjust`, `transfer`, `assign`, `total`; `verb` the
    transition of `move`, or `raise` and `lower`."""

    kind: Literal[
        "create", "get", "find", "update", "move", "delete", "adjust", "transfer", "assign", "total", "count", "related"
    ]
    entity: Name
    field: Name | None = None
    verb: Name | None = None
    by: Name | None = Field(
        default=None, description="The field that `related`, `total` and `count` select or group by."
    )


class Simulation(_Frozen):
    """How a synthetic tool runs."""

    operation: Operation
    preconditions: tuple[Condition, ...] = ()
    postconditions: tuple[Condition, ...] = ()
    state: StateSchema


class ToolSpec(_Frozen):
    """`source` is `mcp:<server>@<version>`, `synthetic:<domain>/<application>` or `sandbox:<program>`; input and output schemas are JSON Schema 2020-12 unless they
    name another draft."""

    name: str = Field(min_length=1, max_length=128)
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    source: str = Field(pattern=r"^(mcp:.+@.+|sandbox:[a-z]+|synthetic:[a-z0-9-]+/[a-z0-9-]+)$")
    licence: str
    annotations: dict[str, Any] | None = Field(
        default=None, description="What a server hints: readOnlyHint, destructiveHint, …"
    )
    simulation: Simulation | None = None

    @property
    def is_synthetic(self) -> bool:
        return self.source.startswith("synthetic:")

    @property
    def digest(self) -> str:
        """Over everything that the tool is, so that equal digests mean equal tools."""
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @model_validator(mode="after")
    def _executable(self) -> ToolSpec:
        if self.is_synthetic != (self.simulation is not None):
            raise ValueError(f"tool {self.name!r}: synthetic tools carry their simulation, real ones have none")
        return self
