"""Notifications: who is told of what, and what became of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from abruzzi.contracts.resources import Resource


class Topic(StrEnum):
    """What can be subscribed to."""

    RUN_SUBMITTED = "run.submitted"
    RUN_ENDED = "run.ended"
    """However it ended."""
    RUN_SUCCEEDED = "run.succeeded"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"
    ARTIFACT_CORRUPT = "artifact.corrupt"
    """A file of an artifact no longer hashes to its digest."""


class Channel(StrEnum):
    WEBHOOK = "webhook"
    EMAIL = "email"


class DeliveryState(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    QUARANTINED = "quarantined"
    """Tried often enough; a person may try again."""
    CANCELLED = "cancelled"
    """The subscription was removed first."""


class SubscriptionOut(Resource):
    id: str
    project_id: str
    channel: Channel
    target: str
    """URL or e-mail address."""
    topics: list[Topic]
    created_by: str
    created_at: datetime


class SubscriptionCreated(SubscriptionOut):
    secret: str | None
    """Of a webhook, shown once: `whsec_…`, as the Standard Webhooks libraries take it."""


class DeliveryOut(Resource):
    id: str
    """The `webhook-id` that the receiver sees, the same in every try."""
    subscription_id: str
    topic: str
    state: DeliveryState
    tries: int
    error: str | None
    """Of the last try."""
    due_at: datetime | None
    """When the next try is due."""
    created_at: datetime
    sent_at: datetime | None


class QuarantinedOut(Resource):
    """A message of the platform to itself that could not be handled."""

    id: str
    kind: str
    body: dict[str, Any]
    tries: int
    error: str | None
    created_at: datetime


class ChoreOut(Resource):
    """Side work that comes round: verification, retention, roll-ups, …"""

    name: str
    due_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    """Of the last time that it went well."""
    failures: int
    """In a row."""
    error: str | None
    facts: dict[str, Any]


class ExportOut(Resource):
    """An export that was asked for: an artifact of kind `export` with this name appears at the stage when it is made."""

    run_id: str
    stage_id: str
    name: str
