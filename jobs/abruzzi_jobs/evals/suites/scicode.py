"""SciCode (Tian et al. 2024): research problems of natural science, step by step; each step sees the code that the target wrote for those before it.

The package ships the 15 problems of the development set with their solutions, not the numbers that its tests compare with (the owner's test_data.h5): those are
what the owner's solution gives in the same box, just before, from the same random numbers. Solved is a problem all of whose steps pass.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi_jobs.chat.request import ChatRequest, Message
from abruzzi_jobs.data.package_data import distribution_files, json_lines
from abruzzi_jobs.evals.suites.boxed import run_boxed
from abruzzi_jobs.evals.suites.suite import Ask, Helpers, QuestionSuite, Transcript
from abruzzi_jobs.rl.environments.evaluating import Bounds, refuse_without_sandbox

A_STEP = Bounds(cpu_seconds=300, wall_seconds=1800.0, box_seconds=None, memory_bytes=2 << 30)
"""The owner waits half an hour for a step; molecular dynamics in plain Python takes a minute, for the solution and for the answer."""
LEFT_OUT = {"10": "an Ewald summation, whose tests take 6 GiB of memory each"}
"""Problems that are not asked, with the reason."""
_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_IMPORTS = re.compile(r"^\s*(?:import .*|from .*\s+import\s+.*)", re.MULTILINE)
_CHECK = """
import json, random
import numpy as np
_problem = json.loads({problem!r})
def _ran(codes):
    place = {{}}
    for code in (_problem["dependencies"], *codes):
        exec(compile(code, "step", "exec", dont_inherit=True), place)
    return place
def check(step):
    right, said = (_ran(_problem[who][: step + 1]) for who in ("solutions", "answers"))
    drawn = np.random.get_state(), random.getstate()
    targets = []
    for _, target in _problem["tests"][step]:
        exec(target, right)
        targets.append(right.get("target"))
    np.random.set_state(drawn[0]), random.setstate(drawn[1])
    for (test, _), said["target"] in zip(_problem["tests"][step], targets):
        exec(test, said)
"""


class SciCode(QuestionSuite):
    """Option `background`: whether a step is told with the background that its authors wrote for it. Parts: `steps`, the share of them that pass."""

    name = "scicode"
    summary = "SciCode: 14 of the 15 problems of its development set, in 39 steps, checked by their tests in a sandbox."
    licence = "Apache-2.0"
    source = "Tian et al. 2024 (arXiv 2407.13168), package nvidia-scicode"
    defaults = SuiteSettings(temperature=0.0, max_tokens=8192)
    takes = ("background",)

    def __init__(self, settings: SuiteSettings) -> None:
        super().__init__(settings)
        refuse_without_sandbox(self.name)
        self._form = next(
            iter(distribution_files("nvidia-scicode", "scicode/data/multistep_template", ".txt"))
        ).read_text(encoding="utf-8")

    def items(self) -> Iterator[Item]:
        for problem in json_lines("nvidia-scicode", "scicode/data/problems_dev.jsonl"):
            if problem["problem_id"] in LEFT_OUT:
                continue
            steps = problem["sub_steps"]
            yield Item(
                id=problem["problem_id"],
                prompt=problem["problem_description_main"],
                gold=[step["ground_truth_code"] for step in steps],
                meta={
                    "dependencies": problem["required_dependencies"],
                    "told": [self._told(step) for step in steps],
                    "headers": [f"{step['function_header']}\n\n{step['return_line']}" for step in steps],
                    "tests": [step["test_cases"] for step in steps],
                },
            )

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        said: list[Message] = []
        codes: list[str] = []
        truncated = False
        for step in range(len(item.gold)):
            question: Message = {"role": "user", "content": self._asked(item, step, codes)}
            response = await ask(ChatRequest(messages=[question]))
            truncated |= response.finish_reason == "length"
            said += [question, response.message()]
            codes.append(_code(response.text))
        return Transcript(messages=tuple(said), answer=json.dumps(codes), truncated=truncated)

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        return await asyncio.to_thread(self._score, item, json.loads(transcript.answer))

    def gold_answer(self, item: Item) -> str:
        return json.dumps(item.gold)

    def perturbed_answer(self, item: Item) -> str:
        """Each function as asked for, doing nothing."""
        return json.dumps(
            [f"{header.rpartition('return')[0].rstrip()}\n    return None" for header in item.meta["headers"]]
        )

    def _told(self, step: dict[str, Any]) -> str:
        background = step["step_background"] if self.settings.options.get("background") else ""
        return f"{step['step_description_prompt']}\n{background}".strip()

    def _asked(self, item: Item, step: int, codes: list[str]) -> str:
        before = [f"{told}\n\n{code}" for told, code in zip(item.meta["told"], codes, strict=False)]
        places = {
            "problem_steps_str": "\n\n------\n\n".join(before),
            "next_step_str": f"{item.meta['told'][step]}\n\n{item.meta['headers'][step]}",
            "dependencies": item.meta["dependencies"],
        }
        return re.sub(r"\{(\w+)\}", lambda place: places.get(place[1], place[0]), self._form)

    def _score(self, item: Item, codes: list[str]) -> Verdict:
        problem = {
            "dependencies": item.meta["dependencies"],
            "solutions": item.gold,
            "answers": codes,
            "tests": [[(test, _target(test)) for test in tests] for tests in item.meta["tests"]],
        }
        steps = len(item.gold)
        found = run_boxed({}, _CHECK.format(problem=json.dumps(problem)), [f"check({n})" for n in range(steps)], A_STEP)
        passed = [value == "None" for value in found.values]
        share = sum(passed) / steps
        return Verdict(score=float(share == 1.0), parts={"steps": share}, reason=found.fault[:300])


def _code(text: str) -> str:
    """The last block, without imports, as the owner reads it: what is needed is there already."""
    blocks = _BLOCK.findall(text)
    return _IMPORTS.sub("", blocks[-1] if blocks else text)


def _target(test: str) -> str:
    """The test with `target = …`, what it compares with `target`, in its assertion's place; "" where it compares with nothing of that name."""
    tree = ast.parse(test)
    for place, statement in enumerate(tree.body):
        compared = _compared(statement)
        if compared is not None:
            target = ast.Assign(targets=[ast.Name("target", ast.Store())], value=compared)
            return ast.unparse(ast.fix_missing_locations(ast.Module([*tree.body[:place], target], [])))
    return ""


def _compared(statement: ast.stmt) -> ast.expr | None:
    for node in ast.walk(statement):
        sides: list[ast.expr] = []
        if isinstance(node, ast.Call):
            sides = node.args
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Name) and side.id == "target" for side in sides[1:]):
            return sides[0]
        if len(sides) > 1 and _is_part_of_target(sides[1]) and isinstance(sides[0], ast.Subscript):
            return sides[0].value
    return None


def _is_part_of_target(node: ast.expr) -> bool:
    """`target[0]`, beside which stands the same part of what is compared."""
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "target"
