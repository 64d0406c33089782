"""Agents, the tasks that they are given, and the rubrics by which what they did is judged (paper 3.1.1: system prompt × tool set; tasks with rubrics).

Everything here is data: `abruzzi_jobs.synthesis` makes it from a seed, plays it and judges it. Clauses that a program can check come first; a model is
asked only about what no program can tell.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from abruzzi.contracts.tool import Name, Scalar

Difficulty = Literal["simple", "moderate", "complex"]
Arguments = dict[str, Any]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolName(_Frozen):
    """Names one ToolSpec of a catalogue."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="What models' protocols allow as a name.")
    source: str


class AgentSpec(_Frozen):
    """`traits` says what it was made of (domain, expertise, manner, …). No two tools share a name: nobody could tell them apart in a call."""

    id: str = Field(pattern=r"^agent-[0-9a-f]{12}$")
    system_prompt: str = Field(min_length=1)
    tools: tuple[ToolName, ...] = Field(min_length=1)
    traits: dict[str, str] = {}
    generator: str
    is_llm: bool = False

    @model_validator(mode="after")
    def _told_apart(self) -> AgentSpec:
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ValueError(f"agent {self.id}: two of its tools are called {max(names, key=names.count)!r}")
        return self


class Fact(_Frozen):
    """Something that the task needs and only the user knows. `value` occurs in `text` as it stands. Told `first`: the instruction has it. `asked`: given
    where the agent's question has one of the `words` in it. `after`: a further wish, said once the agent reports."""

    name: str
    text: str
    value: str
    told: Literal["first", "asked", "after"] = "first"
    words: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_so(self) -> Fact:
        if self.value not in self.text:
            raise ValueError(f"fact {self.name!r}: its text does not say {self.value!r}")
        return self


class Persona(_Frozen):
    """The simulated user. `patience`: turns after the first for which it answers before it leaves. `hidden_goal`: what it wants in the end, which it
    never says as such."""

    name: str
    style: str
    patience: int = Field(default=6, ge=1)
    hidden_goal: str


class WorldGround(_Frozen):
    """The world of one synthetic application, as `World(state, seed=seed, rows_each=rows_each)` makes it."""

    kind: Literal["world"] = "world"
    source: str = Field(pattern=r"^synthetic:")
    seed: int
    rows_each: int = Field(default=8, ge=1)


class RealGround(_Frozen):
    """Tool servers that run for real. `files`: what lies in the workspace before they start (path below it → text; folders made as needed), beside what the
    servers' own entries prepare."""

    kind: Literal["real"] = "real"
    servers: tuple[str, ...] = Field(min_length=1)
    files: dict[str, str] = {}


Ground = Annotated[WorldGround | RealGround, Field(discriminator="kind")]


class PlannedCall(_Frozen):
    """A call of the plan that proves the task solvable: it succeeds, in this order, on the task's ground. `needs` names the facts that must have been
    told before it can be made."""

    tool: ToolName
    arguments: Arguments
    needs: tuple[str, ...] = ()


class Change(_Frozen):
    """As `abruzzi_jobs.synthesis.world.difference` says it: the changed fields alone; None where there was or is no row."""

    entity: Name
    id: int
    before: dict[str, Scalar] | None
    after: dict[str, Scalar] | None


class _Clause(_Frozen):
    """`text` says it in words. A mandatory clause that fails discards the trajectory; the others count by weight."""

    id: str
    text: str
    weight: float = Field(default=1.0, gt=0)
    mandatory: bool = True


class StateClause(_Clause):
    """Of the rows of `entity` that are `where` there are `count` (any number but none where it is None) afterwards, and each has `values`."""

    kind: Literal["state"] = "state"
    entity: Name
    where: dict[str, Scalar] = {}
    values: dict[str, Scalar] = {}
    count: int | None = Field(default=None, ge=0)


class DiffClause(_Clause):
    """The state changed by `changes` and by nothing else. The ids of new rows are free, as long as references to them go along."""

    kind: Literal["diff"] = "diff"
    changes: tuple[Change, ...] = ()


class CallClause(_Clause):
    """`tool` (any, where None) was called with at least these `arguments` (texts alike but for blanks and case), so many times, and the first such call
    came after one of the tool `after`. Calls count that succeeded; where `tried`, the others too."""

    kind: Literal["call"] = "call"
    tool: str | None = None
    arguments: Arguments = {}
    at_least: int = Field(default=1, ge=0)
    at_most: int | None = Field(default=None, ge=0)
    tried: bool = False
    after: str | None = None


class AnswerClause(_Clause):
    """What the agent told the user after its first call of a tool (everything where it called none): has each of `contains`, one of `any_of`, none
    of `excludes` (whole words, whatever their case), and the number within the tolerance."""

    kind: Literal["answer"] = "answer"
    contains: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    number: float | None = None
    tolerance: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _says_something(self) -> AnswerClause:
        if self.number is None and not (self.contains or self.any_of or self.excludes):
            raise ValueError(f"clause {self.id!r} asks nothing of the answer")
        return self


class NoErrorClause(_Clause):
    """At most so many calls failed by the agent's own doing (faults that the schedule injected are not counted)."""

    kind: Literal["no_error"] = "no_error"
    at_most: int = Field(default=0, ge=0)


class ProbeClause(_Clause):
    """On a real ground the platform calls the tool itself once the conversation is over: the answer has each of `contains` and none of `excludes`."""

    kind: Literal["probe"] = "probe"
    call: PlannedCall
    contains: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


class JudgeClause(_Clause):
    """For a model: what no program can tell. It never decides alone."""

    kind: Literal["judge"] = "judge"


Clause = Annotated[
    StateClause | DiffClause | CallClause | AnswerClause | NoErrorClause | ProbeClause | JudgeClause,
    Field(discriminator="kind"),
]


class Task(_Frozen):
    """`plan` and `reference_answer` are the proof that it can be solved: played on `ground`, they meet the whole rubric. Where the task `is_impossible`
    the plan looks or tries, changes nothing, and the answer says why it cannot be done. Neither is ever shown to the agent."""

    id: str = Field(pattern=r"^task-[0-9a-f]{12}$")
    agent_id: str = Field(description="The AgentSpec that it is given to: it has the tools of the plan.")
    instruction: str = Field(min_length=1, description="What the user says first.")
    difficulty: Difficulty
    persona: Persona
    facts: tuple[Fact, ...] = ()
    ground: Ground
    plan: tuple[PlannedCall, ...]
    reference_answer: str
    rubric: tuple[Clause, ...] = Field(min_length=1)
    is_impossible: bool = False
    generator: str
    is_llm: bool = Field(default=False, description="A model worded the instruction.")

    @model_validator(mode="after")
    def _judgeable(self) -> Task:
        ids = [clause.id for clause in self.rubric]
        if len(set(ids)) < len(ids):
            raise ValueError(f"task {self.id}: two clauses are called {max(ids, key=ids.count)!r}")
        if not any(clause.mandatory and clause.kind != "judge" for clause in self.rubric):
            raise ValueError(f"task {self.id}: nothing mandatory in its rubric can be checked by a program")
        return self


class CallRecord(_Frozen):
    """A call as it happened. `answer` is what the agent was told: an object of a synthetic tool, the text of a real one. `fault`: what the schedule
    injected. `changes`: what it did to the world's state."""

    turn: int
    tool: str
    source: str
    arguments: Arguments
    answer: Any
    ok: bool
    fault: str | None = None
    changes: tuple[Change, ...] = ()
    is_real: bool = False
    seconds: float | None = None


class ProbeRecord(_Frozen):
    """The answer to the call of the ProbeClause of that id."""

    clause: str
    ok: bool
    answer: str


class Verdict(_Frozen):
    """`passed` is None where the judge was of two minds."""

    clause: str
    passed: bool | None
    by: Literal["check", "state", "judge"]
    why: str
