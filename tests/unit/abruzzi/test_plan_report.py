"""The report in docs/ is what the planner says today."""

from __future__ import annotations

from pathlib import Path

from abruzzi.plan.report import report

ROOT = Path(__file__).parents[3]


def test_the_report_on_k2_is_current() -> None:
    said = report((ROOT / "recipes/k2.toml").read_text())
    assert said == (ROOT / "docs/plan-k2.md").read_text(), (
        "python -m abruzzi.plan.report recipes/k2.toml > docs/plan-k2.md"
    )
