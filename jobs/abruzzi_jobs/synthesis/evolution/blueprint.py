"""What an application is before it becomes tools, and the short notation of seeds.txt and facets.txt."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field

from abruzzi.contracts.tool import EntitySchema, FieldSchema, StateSchema, Transition

PEOPLE = (
    "Amira Conti",
    "Jonas Berg",
    "Lucia Ferri",
    "Mateo Silva",
    "Nora Lind",
    "Pavel Novak",
    "Sara Okafor",
    "Yuki Tanaka",
)
PLACES = ("Aquila", "Bergen", "Chieti", "Graz", "Lyon", "Pescara", "Porto", "Teramo")
_FIELD = re.compile(r"^([a-z][a-z0-9_]*):([a-z]+)(?:\((.*)\))?$")


class Application(BaseModel):
    """The unit that evolves and that an author writes: a state schema under a name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    domain: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    domain_title: str = Field(min_length=1, max_length=80)
    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    title: str = Field(min_length=1, max_length=80)
    state: StateSchema
    generation: int = 0


def parse_entity(line: str) -> EntitySchema:
    """`name | description | field:kind(…), … | verb: origin|origin>target, …`. Raises ValueError that quotes what it could not read."""
    name, description, fields, moves = (part.strip() for part in line.split(" | "))
    transitions = tuple(_transition(move) for move in moves.split(", ")) if moves else ()
    columns = [_field(text) for text in re.split(r", (?![^(]*\))", fields)]
    statuses = dict.fromkeys(status for move in transitions for status in (*move.origins, move.target))
    if statuses:
        columns.append(FieldSchema(name="status", kind="status", choices=tuple(statuses)))
    return EntitySchema(name=name, description=description, fields=tuple(columns), transitions=transitions)


def _transition(text: str) -> Transition:
    verb, _, way = text.partition(": ")
    origins, arrow, target = way.partition(">")
    if not arrow:
        raise ValueError(f"{text!r} is no transition `verb: origin|origin>target`")
    return Transition(verb=verb, origins=tuple(origins.split("|")), target=target)


def _field(text: str) -> FieldSchema:
    found = _FIELD.match(text)
    if found is None:
        raise ValueError(f"{text!r} is no field `name:kind(…)`")
    name, kind, inside = found.groups()
    if kind in ("person", "place"):
        return FieldSchema(name=name, kind="text", examples=PEOPLE if kind == "person" else PLACES)
    if kind == "text":
        return FieldSchema(name=name, kind="text", examples=tuple((inside or name).split("/")))
    if kind in ("int", "qty", "cents"):
        low, _, high = (inside or "").partition("..")
        return FieldSchema(name=name, kind="integer", minimum=int(low), maximum=int(high), adjustable=kind != "int")
    if kind == "one":
        return FieldSchema(name=name, kind="choice", choices=tuple((inside or "").split("/")))
    if kind == "ref":
        return FieldSchema(name=name, kind="reference", entity=inside)
    if kind in ("date", "flag"):
        return FieldSchema(name=name, kind="date" if kind == "date" else "boolean")
    raise ValueError(f"{text!r}: there is no kind {kind!r}")
