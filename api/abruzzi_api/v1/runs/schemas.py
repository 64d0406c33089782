"""Bodies of requests about runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from abruzzi.contracts.pool import PoolName

Text = Annotated[str, StringConstraints(max_length=1_000_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=80, strip_whitespace=True)]
Overrides = dict[
    Annotated[str, StringConstraints(max_length=200)], Annotated[str, StringConstraints(max_length=10_000)]
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecipeIn(Body):
    recipe_toml: Text
    overrides: Overrides = Field(default_factory=dict)


class PlanIn(RecipeIn):
    pool: PoolName | None = None
    """Every stage in this pool, whatever the recipe says."""
    nodes: int | None = Field(default=None, ge=1, le=512)
    """Of pre-training stages, whatever ranks the recipe says."""
    sweep: bool = False
    """Rank other layouts of the same ranks, too: takes seconds."""
    timeline: bool = False
    """Spans of the planned pipeline schedule, for a picture."""
    price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of one GPU-hour, in any currency."""


class RunIn(RecipeIn):
    name: Name | None = None


class BranchIn(Body):
    artifact_id: str = Field(max_length=32)
    recipe_toml: Text | None = None
    overrides: Overrides = Field(default_factory=dict)
    name: Name | None = None


class OverrideIn(Body):
    reason: str = Field(min_length=1, max_length=500)
    """For whoever reads the run's events and the audit log."""


class RetryIn(Body):
    stage_id: str | None = Field(default=None, max_length=16)
