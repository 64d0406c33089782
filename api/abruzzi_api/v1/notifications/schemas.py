"""Bodies of notifications."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from abruzzi.contracts.notification import Channel, ChoreOut, Topic
from abruzzi.contracts.resources import Resource


class SubscriptionIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    channel: Channel
    target: str = Field(min_length=1, max_length=2000)
    topics: list[Topic] = Field(min_length=1, max_length=len(Topic))


class Chores(Resource):
    items: list[ChoreOut]
