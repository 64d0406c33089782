"""A recipe of one stage that runs a program of these tests with their interpreter."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType


def program_recipe(name: str, stage: str, program: Path, env: Mapping[str, str] = MappingProxyType({})) -> str:
    text = f"""
version = 1
name = "{name}"
[[stage]]
id = "{stage}"
kind = "container"
[stage.container]
command = {json.dumps([sys.executable, str(program)])}
"""
    pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in env.items())
    return f"{text}env = {{ {pairs} }}\n" if env else text
