"""Python functions that pass hidden tests. The program runs in a sandbox, where it sees arguments and never a right result: what it returns is compared
outside, so that nothing it does in there can pass for a pass."""

from __future__ import annotations

import random
import re
from typing import Any

from pydantic import Field, StrictInt

from abruzzi.contracts.rollout import Outcome, Task
from abruzzi.contracts.training import Strict
from abruzzi_jobs.data.validation.programs import parsed
from abruzzi_jobs.instruct import programs
from abruzzi_jobs.rl.environments.answers import scored
from abruzzi_jobs.rl.environments.evaluating import evaluate, refuse_without_sandbox
from abruzzi_jobs.rl.environments.single_turn import QuestionGym

_CODE = re.compile(r"```[a-zA-Z]*\n(.*?)```", re.DOTALL)


class CodingOptions(Strict):
    tests: StrictInt = Field(default=8, ge=1, le=64)
    """Hidden ones; two more are shown."""


class Coding(QuestionGym):
    name = "coding"
    summary = "Short Python functions by description and two examples; hidden tests in a sandbox."
    families = tuple(programs.NAMES)
    Options = CodingOptions

    def refuse_unless_ready(self) -> None:
        refuse_without_sandbox(self.name)

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        drawn = programs.drawn(family, draw, examples=2 + self.options.tests)
        return {"prompt": drawn.prompt, "tests": [list(test) for test in drawn.examples[2:]]}

    def judge(self, task: Task, text: str) -> Outcome:
        """1 where all hidden tests pass."""
        blocks = _CODE.findall(text)
        program = str(max(blocks, key=len)) if blocks else text
        is_python = bool(program.strip()) and parsed(program) is not None
        parts = {"format": float(bool(blocks)), "compiles": float(is_python)}
        if not is_python:
            return scored(self.reference, 0.0, detail="no Python", tests=0.0, **parts)
        tests = task.data["tests"]
        found = evaluate({"program.py": program}, "from program import *", [call for call, _ in tests])
        passed = [got == wanted for got, (_, wanted) in zip(found.values, tests, strict=True)]
        wrong = next((i for i, ok in enumerate(passed) if not ok and found.values[i] is not None), None)
        detail = found.fault if wrong is None else f"{tests[wrong][0]} gives {str(found.values[wrong])[:80]}"
        return scored(self.reference, float(all(passed)), detail=detail, tests=sum(passed) / len(passed), **parts)
