"""Synthetic tools: more than 3000 different ones, each with schemas that hold and a simulation that runs."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema

from abruzzi.contracts.tool import FieldSchema, StateSchema, ToolSpec
from abruzzi_jobs.synthesis.embedding import distinct
from abruzzi_jobs.synthesis.evolution import evolve, synthetic_tools
from abruzzi_jobs.synthesis.evolution.author import author_application
from abruzzi_jobs.synthesis.evolution.blueprint import parse_entity
from abruzzi_jobs.synthesis.schemas import schema_fault, value_fault
from abruzzi_jobs.synthesis.world import World, sample_call


@pytest.fixture(scope="module")
def kept() -> list[ToolSpec]:
    return distinct(synthetic_tools())[0]


def test_three_thousand_tools_and_more_remain_of_seventeen_domains(kept):
    assert len(kept) >= 3000
    domains = Counter(tool.source.removeprefix("synthetic:").split("/")[0] for tool in kept)
    assert len(domains) == 17
    assert min(domains.values()) >= 100, domains
    assert len({tool.digest for tool in kept}) == len(kept)
    assert len({(tool.source, tool.name) for tool in kept}) == len(kept)


def test_a_seed_names_a_catalogue_and_further_generations_only_add():
    first = [application.model_dump_json() for application in evolve(3)]
    assert (
        first
        == [application.model_dump_json() for application in evolve(3)]
        != [a.model_dump_json() for a in evolve(4)]
    )
    small, large = ({(t.source, t.name) for t in synthetic_tools(3, generations)} for generations in (1, 2))
    assert small < large


def test_tools_have_valid_schemas_take_fitting_calls_and_refuse_others():
    check_each(synthetic_tools()[::8])


@pytest.mark.prove
def test_each_of_the_three_thousand_tools_has_valid_schemas_takes_a_fitting_call_and_refuses_others(kept):
    assert len(kept) >= 3000
    check_each(kept)


def check_each(tools: list[ToolSpec]) -> None:
    world = None
    for tool in tools:
        assert schema_fault(tool.input_schema, of_object=True) == "", tool.name
        assert schema_fault(tool.output_schema, of_object=True) == "", tool.name
        if world is None or world.tables.state != tool.simulation.state:
            world = World(tool.simulation.state)
        for wrong in (
            {"no_such_argument": 1},
            *({**fit, key: []} for fit in [sample_call(world, tool)] if fit for key in fit),
        ):
            assert world.call(tool, wrong).error == "invalid_arguments", tool.name
        absent = {name: 999_999 if name.endswith("_id") else 1 for name in tool.input_schema["required"]}
        if any(name.endswith("_id") for name in absent):
            assert world.call(tool, absent).error in ("not_found", "invalid_arguments"), tool.name
        arguments = sample_call(world, tool)
        if arguments is None:  # earlier calls changed the rows that it needs
            world = World(tool.simulation.state)
            arguments = sample_call(world, tool)
        assert arguments is not None, tool.name
        outcome = world.call(tool, arguments)
        assert outcome.ok, (tool.name, outcome)
        assert value_fault(outcome.answer, tool.output_schema) == "", (tool.name, outcome)


ALL = synthetic_tools(generations=1)


def fitting(schema: dict) -> st.SearchStrategy:
    """Flat objects by hand: hypothesis-jsonschema 0.23 makes values well, but its objects need an older hypothesis."""
    parts = {name: from_schema(part) for name, part in schema["properties"].items()}
    required = {name: part for name, part in parts.items() if name in schema["required"]}
    return st.fixed_dictionaries(
        required, optional={name: part for name, part in parts.items() if name not in required}
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_whatever_fits_the_schema_is_done_or_refused_for_a_stated_reason(data):
    tool = data.draw(st.sampled_from(ALL))
    arguments = data.draw(fitting(tool.input_schema))
    world = World(tool.simulation.state)
    before = world.digest()
    outcome = world.call(tool, arguments)
    assert outcome.error in (None, "not_found", "precondition_failed"), outcome
    assert bool(outcome.changes) == (world.digest() != before)
    if not outcome.ok:
        assert outcome.changes == []
    world.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_whatever_does_not_fit_the_schema_is_refused_and_changes_nothing(data):
    tool = data.draw(st.sampled_from(ALL))
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
        max_leaves=6,
    )
    names = st.sampled_from([*tool.input_schema["properties"], "other"])
    arguments = data.draw(st.dictionaries(names, junk))
    world = World(tool.simulation.state)
    before = world.digest()
    fits = value_fault(arguments, tool.input_schema) == ""
    assert (world.call(tool, arguments).error == "invalid_arguments") == (not fits)
    assert fits or world.digest() == before
    world.close()


async def test_an_author_is_told_what_was_wrong_and_its_application_becomes_tools_that_run():
    state = evolve(generations=0)[0].state
    answers = [
        "I would rather not.",
        '{"entities": [',
        json.dumps({"entities": [{"name": "Lead", "fields": []}]}),
        "Here you are:\n" + state.model_dump_json(exclude_defaults=True) + "\nDone.",
    ]
    prompts = []

    async def author(prompt: str) -> str:
        prompts.append(prompt)
        return answers[len(prompts) - 1]

    names = {"domain": "gaming", "domain_title": "gaming", "name": "sales", "title": "sales pipeline"}
    made = await author_application(author, **names, tries=4)
    assert len(made.rejected) == 3
    assert "no JSON object" in prompts[1]
    assert len(made.tools) > 20
    assert all(tool.source == "synthetic:gaming/sales" for tool in made.tools)

    prompts.clear()
    none = await author_application(author, **names, tries=2)
    assert (none.application, none.tools, len(none.rejected)) == (None, [], 2)


def test_a_state_whose_parts_do_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match="refers to 'boat', which does not come before it"):
        StateSchema(entities=(parse_entity("sail | cloth | mark:text(a/b), boat_id:ref(boat) | hoist: down>up"),))
    with pytest.raises(ValueError, match="needs two choices"):
        FieldSchema(name="x", kind="choice", choices=("one",))
    with pytest.raises(ValueError, match="no kind 'colour'"):
        parse_entity("sail | cloth | mark:colour(a) | hoist: down>up")
