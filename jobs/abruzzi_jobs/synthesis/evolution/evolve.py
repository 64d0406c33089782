"""The shipped generator: deterministic, so that a seed and a number of generations name a catalogue."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path

from abruzzi.contracts.tool import EntitySchema, FieldSchema, StateSchema, ToolSpec
from abruzzi_jobs.synthesis.evolution.blueprint import Application, parse_entity
from abruzzi_jobs.synthesis.evolution.tools_of import tools_of

GENERATOR = "domain-evolution-v1"
_FOLDER = Path(__file__).parent
GENERATIONS = 2


@dataclass(frozen=True)
class _Facet:
    name: str
    of: str
    line: str


@functools.cache
def seed_applications() -> tuple[Application, ...]:
    """Generation 0, of seeds.txt. Raises ValueError with the line that it could not read."""
    made: list[Application] = []
    domain = title = ""
    head: tuple[str, str] | None = None
    entities: list[EntitySchema] = []

    def finish() -> None:
        if head is not None:
            state = StateSchema(entities=tuple(entities))
            made.append(Application(domain=domain, domain_title=title, name=head[0], title=head[1], state=state))
            entities.clear()

    for number, line in enumerate((_FOLDER / "seeds.txt").read_text().splitlines(), 1):
        try:
            if not line.strip() or line.startswith("#"):
                continue
            if line.startswith("["):
                finish()
                head = None
                domain, _, title = line[1:].partition("] ")
            elif line.startswith("  "):
                entities.append(parse_entity(line.strip()))
            else:
                finish()
                name, _, told = line.partition(" = ")
                head = (name, told)
        except ValueError as error:
            raise ValueError(f"seeds.txt:{number}: {error}") from error
    finish()
    return tuple(made)


@functools.cache
def _facets() -> tuple[_Facet, ...]:
    lines = [line for line in (_FOLDER / "facets.txt").read_text().splitlines() if line and not line.startswith("#")]
    return tuple(_Facet(*(part.strip() for part in line.split(" | ", 2))) for line in lines)


def evolve(seed: int = 0, generations: int = GENERATIONS) -> list[Application]:
    """All applications after `generations`: each generation lets each application grow by one facet that it has not yet."""
    grown = []
    for application in seed_applications():
        draw = random.Random(f"{seed}/{application.domain}/{application.name}")
        for facet in draw.sample(_facets(), min(generations, len(_facets()))):
            application = _grow(application, facet)
        grown.append(application)
    return grown


def _grow(application: Application, facet: _Facet) -> Application:
    main, other = application.state.entities[:2]
    names = {"main": main.name, "other": other.name}
    parent = main if facet.of == "main" else other
    entity = parse_entity(facet.line.format(**names))
    described = entity.description.replace(parent.name, parent.name.replace("_", " "))
    reference = FieldSchema(name=parent.key, kind="reference", entity=parent.name)
    fields = (*entity.fields[:1], reference, *entity.fields[1:])
    fresh = entity.model_copy(update={"fields": fields, "description": described})
    state = StateSchema(entities=(*application.state.entities, fresh))
    return application.model_copy(update={"state": state, "generation": application.generation + 1})


def synthetic_tools(seed: int = 0, generations: int = GENERATIONS) -> list[ToolSpec]:
    """Before near-duplicates are dropped."""
    return [tool for application in evolve(seed, generations) for tool in tools_of(application)]
