"""The table of a `synthesize` stage: tools, agents and tasks, and how their trajectories are played and judged (paper 3.1.1)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, model_validator

from abruzzi.contracts.agent import Difficulty
from abruzzi.contracts.quantity import Count
from abruzzi.contracts.training import Strict


class FaultRates(Strict):
    """Shares of the calls of synthetic tools that go wrong by themselves, by a schedule that each trajectory's seed draws."""

    unavailable: StrictFloat = Field(default=0.02, ge=0, le=1)
    """Nothing is done, and the tool says so."""
    rate_limited: StrictFloat = Field(default=0.02, ge=0, le=1)
    lost_answer: StrictFloat = Field(default=0.01, ge=0, le=1)
    """It is done, but the caller hears of a timeout."""
    partial: StrictFloat = Field(default=0.02, ge=0, le=1)
    """A list is cut to its first half, and says so."""

    @model_validator(mode="after")
    def _shares(self) -> FaultRates:
        total = self.unavailable + self.rate_limited + self.lost_answer + self.partial
        if total > 1:
            raise ValueError(f"faults: together they are {total:g} of the calls, more than all")
        return self


class SynthesisConfig(Strict):
    synthetic: Count = Field(default=0, ge=0)
    """Tools by domain evolution, in whole applications: the first ones of as many."""
    generations: StrictInt = Field(default=2, ge=0, le=12)
    """How often each application grows."""
    servers: tuple[str, ...] = ()
    """Names of shipped tool servers, such as "mcp-server-time"; each is started in a sandbox without network. `abruzzi tools import` lists them."""
    code_sandbox: StrictBool = False
    """Every agent has the tool `python`, too: a program run in a sandbox without network."""
    agents: Count = Field(default=64, gt=0)
    tools_per_agent: StrictInt = Field(default=24, ge=1, le=128)
    """At most; without those that every agent has."""
    difficulties: tuple[Difficulty, ...] = Field(default=("simple", "moderate", "complex"), min_length=1)
    words: Literal["rule", "model"] = "rule"
    """`model`: role `user` says the tasks' instructions in its own words, role `tool_author` the agents' system prompts, each where the stage has it. What
    loses, gives away or invents something stays in the words of the rule."""
    tasks: Count = Field(default=256, gt=0)
    """Each is played once."""
    concurrency: StrictInt = Field(default=64, ge=1, le=8192)
    """Trajectories under way at a time."""
    max_turns: StrictInt = Field(default=12, ge=1, le=1000)
    """Messages of the agent in a trajectory."""
    max_tokens: Count = Field(default=32_768, gt=0)
    """Of the agent's answers in a trajectory."""
    max_calls: StrictInt = Field(default=8, ge=1, le=128)
    """Calls in one message; those beyond are answered with an error."""
    min_score: StrictFloat = Field(default=0.5, ge=0, le=1)
    """Of the rubric; what scores less is discarded, as is what fails a mandatory clause."""
    faults: FaultRates = FaultRates()
    tool_calls: Literal["native", "prompted"] = "native"
    """`prompted`: for models whose server knows no tools. They are described in the prompt, and the answer is a JSON object under a schema."""
    shard_rows: StrictInt = Field(default=64, ge=1, le=100_000)
    """Trajectories that are kept together while the stage runs: what a crash may cost."""

    @model_validator(mode="after")
    def _some_tools(self) -> SynthesisConfig:
        if not self.synthetic and not self.servers:
            raise ValueError("synthetic: there are no tools; set synthetic = 500, or name servers")
        return self
