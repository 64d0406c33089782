"""A recipe whose one stage commits artifacts with rows (data_stage.py)."""

from __future__ import annotations

from pathlib import Path

from browser.program_recipe import program_recipe

STAGE = Path(__file__).with_name("data_stage.py")


def data_recipe(*, rows: int, waiting: int) -> str:
    """`rows`: of the rewrites; `waiting`: conversations about which people decide."""
    settings = {"PYTHONPATH": str(STAGE.parents[1]), "ROWS": str(rows), "WAITING": str(waiting)}
    return program_recipe("data", "rows", STAGE, settings)
