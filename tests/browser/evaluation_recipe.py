"""A recipe whose first stage trains and evaluates (evaluation_stage.py), and whose second stands behind a gate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from browser.program_recipe import program_recipe

STAGE = Path(__file__).with_name("evaluation_stage.py")


def evaluation_recipe(*, name: str = "evaluated", gate: str = "", stage: Path = STAGE) -> str:
    """`gate`: before the stage `promote`; without one there is no such stage. `stage`: the program of the first one."""
    text = program_recipe(name, "train", stage, {"PYTHONPATH": str(STAGE.parents[1])})
    if gate:
        text += f"""
[[stage]]
id = "promote"
kind = "container"
needs = ["train"]
gate = {json.dumps(gate)}
[stage.container]
command = {json.dumps([sys.executable, "-c", "print('promoted')"])}
"""
    return text
