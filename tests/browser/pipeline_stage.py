"""A stage for the browser tests that keeps the timeline of a step which four ranks of bench/plan_calibration.py have measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from abruzzi.client.stage import StageContext
from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.timeline import TIMELINE_FILE, Timeline, TimelineSpan

RECORD = Path(__file__).parents[2] / "bench" / "results" / "plan_calibration.json"
LAYOUT = "PP 4 x 1, EP 1, DP 1"


def span(text: str) -> TimelineSpan:
    """`2F3 0.0151 0.0349`: stage, operation, micro-batch, from and to in seconds."""
    action, start, end = text.split()
    op = next(letter for letter in action if letter.isalpha())
    stage, microbatch = action.split(op)
    return op, int(stage), int(microbatch), float(start), float(end)


def main() -> int:
    measured = json.loads(RECORD.read_text())["timelines"][LAYOUT]["measured"]
    found = Timeline(step=10, step_seconds=0.6, ranks=[[span(text) for text in rank] for rank in measured])
    context = StageContext.from_env()
    path = context.scratch / TIMELINE_FILE
    path.write_text(json.dumps(found.as_dict()))
    context.commit(ArtifactKind.FILES, "timeline-00000010", {path.name: path}, found.facts(), 10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
