"""A recipe whose one stage commits artifacts with rows (data_stage.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

STAGE = Path(__file__).with_name("data_stage.py")


def data_recipe(*, rows: int, waiting: int) -> str:
    """`rows`: of the rewrites; `waiting`: conversations about which people decide."""
    settings = {"PYTHONPATH": str(STAGE.parents[1]), "ROWS": str(rows), "WAITING": str(waiting)}
    env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    return f"""
version = 1
name = "data"
[[stage]]
id = "rows"
kind = "container"
[stage.container]
command = {json.dumps([sys.executable, str(STAGE)])}
env = {{ {env} }}
"""
