"""Telemetry on the wire: metric batches and heartbeats. Columnar, so that 10 000 points are one small JSON body."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MetricKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_./-]{0,127}$")]
"""Such as `train/loss`, `train/max_logit/layer.03`."""
MetricValue = float | Literal["NaN", "Infinity", "-Infinity"]


class Series(BaseModel):
    """Points of one key, as columns of equal length."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    steps: list[Annotated[int, Field(ge=0)]]
    values: list[float]
    """JSON strings "NaN", "Infinity" and "-Infinity" stand for the numbers that JSON lacks."""
    at: list[float]
    """Unix seconds."""

    @model_validator(mode="after")
    def _columns_agree(self) -> Series:
        if not len(self.steps) == len(self.values) == len(self.at):
            raise ValueError("steps, values and at must have the same length")
        return self


class Heartbeat(BaseModel):
    """Body of POST /api/v1/attempts/{attempt_id}/heartbeats, and content of `$ABRUZZI_ATTEMPT_DIR/rank-<r>/heartbeat.json`.

    The file is what the local executor reads, so that an API outage never looks like a hang.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(ge=0)
    step: int = Field(ge=0)
    total_steps: int | None = None
    phase: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    """Such as `setup`, `train`, `save`, `evaluate`; deadlines are fitted per phase. `ended` is the launcher's own."""
    even_steps: bool = False
    """A step of this phase is a unit of work that takes about as long as the next one. Only then can the platform fit a hang deadline from
    their times: where a step is a byte or a document, its time says nothing about the time between two heartbeats."""
    progress: float | None = Field(default=None, ge=0, le=1)
    message: str = Field(default="", max_length=200)
    at: float
    """Unix seconds by the rank's clock."""


class MetricBatch(BaseModel):
    """Body of POST /api/v1/attempts/{attempt_id}/metrics. Idempotent by (attempt, key, step): the first write of a point stays."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    series: dict[MetricKey, Series]
    heartbeat: Heartbeat | None = None
    """Where the rank is, on the same way: a request costs the platform far more than what is in it."""
