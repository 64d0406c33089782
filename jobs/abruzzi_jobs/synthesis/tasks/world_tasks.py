"""Tasks in the world of a synthetic application, made backwards: a plan that works is drawn first, and the wish and the rubric follow from what it did."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from abruzzi.contracts.agent import AgentSpec, Clause, Difficulty, Fact, PlannedCall, RealGround, Task, WorldGround
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.judge.checks import numbers, says
from abruzzi_jobs.synthesis.tasks import rubrics
from abruzzi_jobs.synthesis.tasks.impossible import draw_refusal
from abruzzi_jobs.synthesis.tasks.personas import draw_persona, put
from abruzzi_jobs.synthesis.tasks.plans import draw_plan
from abruzzi_jobs.synthesis.tasks.steps import Scene, Step
from abruzzi_jobs.synthesis.world import World, difference

GENERATOR = "backward-plans-v1"
_ROWS_EACH = 8
_LENGTHS: Mapping[Difficulty, tuple[int, int]] = {"simple": (1, 1), "moderate": (2, 3), "complex": (3, 6)}
_DESCRIBES: Mapping[Difficulty, float] = {"simple": 0.0, "moderate": 0.4, "complex": 0.6}
_WITHHOLDS: Mapping[Difficulty, float] = {"simple": 0.0, "moderate": 0.25, "complex": 0.5}
_GOES_ON = 0.4
_IMPOSSIBLE = 0.12
_LOOKS_ONLY = 0.2


def draw_world_task(agent: AgentSpec, tools: Sequence[ToolSpec], difficulty: Difficulty, seed: int) -> Task | None:
    """`tools`: the agent's tools of one application. None where this draw gave nothing that can be asked."""
    draw = random.Random(f"task/{seed}/{agent.id}")
    state = tools[0].simulation.state if tools[0].simulation else None
    assert state is not None
    ground = WorldGround(source=tools[0].source, seed=draw.getrandbits(31), rows_each=_ROWS_EACH)
    world = World(state, seed=ground.seed, rows_each=ground.rows_each)
    try:
        first = world.snapshot()
        named = {tool.name: tool for tool in tools}
        scene = Scene(world=world, tools=named, first=first, draw=draw, describes=_DESCRIBES[difficulty])
        if draw.random() < _IMPOSSIBLE:
            return _refused(agent, ground, scene, difficulty)
        length = draw.randint(*_LENGTHS[difficulty])
        steps = draw_plan(scene, length, acts=draw.random() >= _LOOKS_ONLY)
        if steps is None:
            return None
        changes = difference(first, world.snapshot())
        answers = [step.answer for step in steps if step.answer is not None]
        clauses = [*rubrics.of_changes(changes), *rubrics.of_answers(answers)]
        if answers:
            clauses.append(rubrics.looked())
        return _told(agent, ground, scene, difficulty, steps, clauses)
    finally:
        world.close()


def _told(
    agent: AgentSpec,
    ground: WorldGround,
    scene: Scene,
    difficulty: Difficulty,
    steps: list[Step],
    clauses: list[Clause],
) -> Task | None:
    """Puts the steps into words: all at once, or with something that has to be asked for, or with wishes that come later."""
    draw = scene.draw
    persona, manner = draw_persona(draw, "; ".join(step.wish for step in steps))
    later = 1 if len(steps) > 2 and draw.random() < _GOES_ON else 0
    opening = steps[: len(steps) - later]
    open_to_ask = [n for n, step in enumerate(opening) if step.withheld is not None]
    asked = draw.choice(open_to_ask) if open_to_ask and draw.random() < _WITHHOLDS[difficulty] else None
    wishes, facts, plan = [], [], []
    for number, step in enumerate(steps):
        needs: tuple[str, ...] = ()
        if number >= len(opening):
            wish = f"{step.wish[:1].upper()}{step.wish[1:]}."
            after = Fact(name=f"wish_{number}", text=wish, value=wish, told="after")
            facts, needs = [*facts, after], (after.name,)
        elif number == asked and step.withheld is not None:
            wish, secret = step.withheld
            secret = secret.model_copy(update={"name": f"asked_{number}"})
            kept = [fact for fact in step.facts if fact.value != secret.value and says(wish, fact.value)]
            wishes, facts, needs = [*wishes, wish], [*facts, *kept, secret], (secret.name,)
        else:
            wishes, facts = [*wishes, step.wish], [*facts, *step.facts]
        plan += [call.model_copy(update={"needs": needs}) for call in step.calls]
    instruction = put(wishes, manner, draw)
    if any(_given_away(instruction, step.answer[1]) for step in steps if step.answer is not None):
        return None
    if asked is not None and any(says(instruction, fact.value) for fact in facts if fact.told == "asked"):
        return None
    return finished(
        agent,
        ground,
        difficulty,
        instruction=instruction,
        persona=persona,
        facts=_distinct(facts),
        plan=plan,
        reference_answer=" ".join(step.report for step in steps),
        rubric=(*clauses, *rubrics.manners(len(plan)), *rubrics.for_a_judge()),
    )


def _refused(agent: AgentSpec, ground: WorldGround, scene: Scene, difficulty: Difficulty) -> Task | None:
    refusal = draw_refusal(scene)
    if refusal is None:
        return None
    persona, manner = draw_persona(scene.draw, f"{refusal.wish} (which cannot be done)")
    return finished(
        agent,
        ground,
        difficulty,
        instruction=put([refusal.wish], manner, scene.draw),
        persona=persona,
        facts=refusal.facts,
        plan=refusal.plan,
        reference_answer=f"I am sorry, that cannot be done: {refusal.why}. Nothing was changed.",
        rubric=(*rubrics.of_refusal(), *rubrics.manners(1, may_fail=True), *rubrics.for_a_judge()),
        is_impossible=True,
    )


def finished(
    agent: AgentSpec,
    ground: WorldGround | RealGround,
    difficulty: Difficulty,
    *,
    plan: Sequence[PlannedCall],
    **parts: Any,
) -> Task:
    """With an id over who is to do what where."""
    calls = [call.model_dump(mode="json") for call in plan]
    named = json.dumps([agent.id, parts["instruction"], ground.model_dump(mode="json"), calls], sort_keys=True)
    return Task(
        id=f"task-{hashlib.sha256(named.encode()).hexdigest()[:12]}",
        agent_id=agent.id,
        ground=ground,
        difficulty=difficulty,
        plan=tuple(plan),
        generator=GENERATOR,
        **parts,
    )


def _given_away(instruction: str, answer: str | int) -> bool:
    return answer in numbers(instruction) if isinstance(answer, int) else says(instruction, answer)


def _distinct(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    return tuple({(fact.name, fact.value): fact for fact in facts}.values())
