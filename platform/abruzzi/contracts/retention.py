"""What may be removed, and how old it must be: data, so that an operator can change it and see what it would do first (dry run)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class RetentionPolicy(BaseModel):
    """Ages in days; None keeps for ever. Counted from the run's end for what belongs to a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    log_days: float | None = Field(default=None, gt=0)
    """Log chunks of ended runs, in the object store and in the index."""
    metric_days: float | None = Field(default=None, gt=0)
    """Metric points and tiers of ended runs."""
    idempotency_days: float | None = Field(default=7.0, ge=1)
    """Remembered answers to POSTs."""
    outbox_days: float | None = Field(default=14.0, gt=0)
    """Messages that were sent."""
    delivery_days: float | None = Field(default=90.0, gt=0)
    """Notifications that were sent or cancelled."""
    token_days: float | None = Field(default=30.0, gt=0)
    """Tokens, so long after they expired or were revoked."""
    artifact_days: float | None = Field(default=7.0, gt=0)
    """Files of artifacts, so long after they were marked deleted; their records stay."""
