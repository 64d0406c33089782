"""Since when a workload holds what it asked for: by Kueue's reservation, or by the first pod that has a node."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from abruzzi.engine.view import Phase
from abruzzi_operators.executors.assess import Facts, assess
from abruzzi_operators.renderers.names import LABEL_QUEUE

EARLY, LATE = "2026-11-26T00:00:10Z", "2026-11-26T00:00:20Z"


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).astimezone(UTC).timestamp()


def workload(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "w", "uid": "u", "labels": labels}}


def pod(name: str, scheduled_at: str | None) -> dict[str, Any]:
    condition = {
        "type": "PodScheduled",
        "status": "True" if scheduled_at else "False",
        "lastTransitionTime": scheduled_at or LATE,
    }
    return {"metadata": {"name": name}, "spec": {}, "status": {"phase": "Pending", "conditions": [condition]}}


@pytest.mark.parametrize(
    ("labels", "reserved", "scheduled", "since"),
    [
        ({}, None, (None,), None),
        ({}, None, (LATE, EARLY), EARLY),
        ({}, None, (None, LATE), LATE),
        ({LABEL_QUEUE: "h800"}, None, (), None),
        ({LABEL_QUEUE: "h800"}, EARLY, (), EARLY),
        ({LABEL_QUEUE: "h800"}, EARLY, (LATE,), EARLY),  # quota is held from its reservation, whatever nodes do
    ],
)
def test_it_holds_from_the_reservation_or_from_the_first_node(
    labels: dict[str, str], reserved: str | None, scheduled: tuple[str | None, ...], since: str | None
) -> None:
    living = [pod(f"p{number}", at) for number, at in enumerate(scheduled)]
    facts = Facts(
        workload(**labels), living, {}, reserved_at=seconds(reserved) if reserved else None, now=seconds(LATE)
    )
    seen = assess(facts).seen
    assert seen is not None
    assert (seen.phase, seen.held_since) == (Phase.PENDING, seconds(since) if since else None)
