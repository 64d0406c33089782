"""The timeline of a step, as a stage keeps it."""

from __future__ import annotations

import pytest

from abruzzi.contracts.timeline import Timeline


def test_a_timeline_says_how_long_its_pipeline_took_and_how_much_of_that_ranks_waited() -> None:
    ranks = [
        [("F", 0, 0, 0.0, 0.5), ("F", 0, 1, 0.5, 1.0), ("I", 0, 0, 1.5, 2.0)],
        [("F", 1, 0, 0.5, 1.0), ("I", 1, 0, 1.0, 1.5)],
    ]
    found = Timeline(step=10, step_seconds=2.5, ranks=ranks)
    assert found.seconds == 2.0
    assert found.idle == pytest.approx(1 - 2.5 / 4)
    assert found.as_dict() == {
        "step": 10, "step_seconds": 2.5, "seconds": 2.0, "idle": 0.375, "microbatches": 2, "of": 2,
        "ranks": [[list(span) for span in rank] for rank in ranks],
    }  # fmt: skip
    assert found.facts() == {"timeline": "pipeline", "step_seconds": 2.5, "idle": 0.375}
