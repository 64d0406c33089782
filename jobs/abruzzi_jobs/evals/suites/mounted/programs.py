"""Mounted suites whose answers are programs, which run in a sandbox: what is right never lies in there where outputs are compared."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi_jobs.evals.scorers import texts
from abruzzi_jobs.evals.suites.boxed import A_TEST, ALL_TESTS, run_boxed
from abruzzi_jobs.evals.suites.mounted import inside
from abruzzi_jobs.evals.suites.mounted.kinds import MountedSuite
from abruzzi_jobs.evals.suites.suite import Helpers, Transcript
from abruzzi_jobs.rl.environments.evaluating import refuse_without_sandbox

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_IMPORTED = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools", "functools", "operator", "io",
    "sys", "json", "builtins", "typing",
)  # fmt: skip
_BEFORE = "".join(f"from {name} import *\n" for name in _IMPORTED) + "".join(f"import {name}\n" for name in _IMPORTED)
_PROGRAM = (
    f"{_BEFORE}sys.setrecursionlimit(50000)\nexec(compile(open('/workspace/program.py', encoding='utf-8').read(), '/workspace/program.py', 'exec', "
    "dont_inherit=True))"
)
"""What LiveCodeBench puts before each answer, and the answer: LeetCode's has List without an import."""
_INSIDE = Path(inside.__file__).read_text(encoding="utf-8")
_RUN = f"__import__('abruzzi_inside').ran('/workspace/main.py', {{given!r}}, {A_TEST.wall_seconds - 5})"
_CALL = (
    "__import__('abruzzi_inside').digest(getattr(globals().get('Solution', lambda: None)(), {name!r}, globals().get({name!r}))"
    "(*[__import__('json').loads(l) for l in {given!r}.splitlines()]))"
)


def program_of(text: str) -> str:
    """The last block of Python; the text where it has none."""
    blocks = _BLOCK.findall(text)
    return blocks[-1] if blocks else text


def tool_in_box(name: str) -> str | None:
    """Path of a program that is on the PATH, and where boxes see it: below /usr or /bin. One in somebody's home would fail every answer."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    seen = [each for each in folders if any(Path(each).is_relative_to(root) for root in ("/usr", "/bin"))]
    return shutil.which(name, path=os.pathsep.join(seen))


class BoxedSuite(MountedSuite):
    """Answers are judged in a sandbox, or by code of the file's owner, which runs there, too."""

    form = "{question}\n\nAnswer with one block of Python."

    def __init__(self, settings: SuiteSettings) -> None:
        super().__init__(settings)
        refuse_without_sandbox(self.name)

    def read(self, row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
        prompt, gold, meta = super().read(row)
        more = {
            name: str(self.field(row, getattr(self.mounted, name))) for name in ("starter", "entry_point", "solution")
        }
        return prompt, gold, {**meta, **more}

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        return await asyncio.to_thread(self.judge, item, transcript.answer)

    @abstractmethod
    def judge(self, item: Item, answer: str) -> Verdict: ...

    def gold_answer(self, item: Item) -> str | None:
        return f"```python\n{item.meta['solution']}\n```" if item.meta["solution"] else None

    def perturbed_answer(self, item: Item) -> str | None:
        return "```python\npass\n```"


class Program(BoxedSuite):
    """Tests of input and output: of a whole program, or of a function (testtype `functional`, a line of JSON an argument)."""

    form = "{question}\n\nAnswer with one block of Python that reads standard input and writes standard output."

    def read(self, row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
        prompt, gold, meta = super().read(row)
        tests = json.loads(gold) if isinstance(gold, str) else list(gold)
        if not tests or not all({"input", "output"} <= set(test) for test in tests):
            raise ValueError("its tests are no list of {input, output}")
        return prompt, tests, {**meta, "context": meta["starter"]}

    def asked(self, item: Item) -> str:
        if item.meta["starter"]:
            return f"{item.prompt}\n\nAnswer with one block of Python that completes this:\n```python\n{item.meta['starter']}\n```"
        return super().asked(item)

    def judge(self, item: Item, answer: str) -> Verdict:
        program = program_of(answer)
        named = re.search(r"def (\w+)\(self", item.meta["starter"]) or re.search(r"def (\w+)\(", item.meta["starter"])
        form = _CALL if named else _RUN
        name = named[1] if named else ""
        calls = [form.format(given=str(test["input"]), name=name) for test in item.gold]
        files = {"program.py": program, "main.py": _PROGRAM, "abruzzi_inside.py": _INSIDE}
        found = run_boxed(files, _PROGRAM if named else "", calls, A_TEST)
        passed = [
            got is not None and got == _wanted(str(test["output"]), called=bool(named))
            for got, test in zip(found.values, item.gold, strict=True)
        ]
        wrong = next((n for n, ok in enumerate(passed) if not ok), None)
        reason = "" if wrong is None else f"test {wrong + 1} of {len(passed)} fails"
        return Verdict(score=float(all(passed)), reason=reason, parts={"tests": sum(passed) / len(passed)})


class Function(BoxedSuite):
    """A function by its signature, with the owner's `check`."""

    form = "Complete this function. Answer with the whole function in one block of Python.\n\n```python\n{question}```"

    def judge(self, item: Item, answer: str) -> Verdict:
        program, name = program_of(answer), item.meta["entry_point"]
        whole = (
            f"{item.prompt.partition(f'def {name}')[0]}\n{program}"
            if f"def {name}" in program
            else item.prompt + program
        )
        return _ends_well(f"{whole}\n\n{item.gold}", f"check({name})")

    def gold_answer(self, item: Item) -> str | None:
        return f"```python\n{item.prompt}{item.meta['solution']}\n```" if item.meta["solution"] else None

    def perturbed_answer(self, item: Item) -> str:
        return f"```python\n{item.prompt}    return None\n```"


class Asserts(BoxedSuite):
    """A program by its description, with the owner's assertions."""

    def judge(self, item: Item, answer: str) -> Verdict:
        return _ends_well(f"{program_of(answer)}\n\n{item.gold}", "None")


class Output(BoxedSuite):
    """What a program gives: a literal, compared as one. Nothing runs."""

    form = "```python\n{question}\n```\n\nWhat is f({context})? Think step by step, then end with 'Answer: …', a Python literal."

    def judge(self, item: Item, answer: str) -> Verdict:
        found = texts.stated(answer).strip("`").rpartition("==")[2].strip()
        return Verdict(score=float(_literal(found) == _literal(str(item.gold))), reason="")

    def gold_answer(self, item: Item) -> str:
        return f"Answer: {item.gold}"

    def perturbed_answer(self, item: Item) -> str:
        return "Answer: ['of', 73461]"


class Input(BoxedSuite):
    """Arguments for which a program gives what is told: any that do."""

    form = "```python\n{question}\n```\n\nFind arguments for which f(…) == {context}. Think step by step, then end with 'Answer: …', the arguments alone."

    def judge(self, item: Item, answer: str) -> Verdict:
        found = texts.stated(answer).strip("`")
        arguments = found[2:-1] if found.startswith("f(") and found.endswith(")") else found
        if not _is_call_of_f(f"f({arguments})"):
            return Verdict(score=0.0, reason="no arguments of Python")
        got = run_boxed({}, item.prompt, [f"f({arguments})"], A_TEST)
        given = got.values[0]
        right = given is not None and _literal(given) == _literal(item.meta["context"])
        return Verdict(score=float(right), reason="" if right else (got.fault or f"gives {given}")[:300])

    def gold_answer(self, item: Item) -> str:
        return f"Answer: {item.gold}"

    def perturbed_answer(self, item: Item) -> str:
        return "Answer: *range(99)"


def _ends_well(program: str, expression: str) -> Verdict:
    found = run_boxed({}, program, [expression], ALL_TESTS)
    passed = found.values == ("None",)
    return Verdict(score=float(passed), reason="" if passed else found.fault[:300])


def _wanted(output: str, *, called: bool) -> str | None:
    """What the box should tell: of outputs line by line, of a function's value as JSON. None where the file's is no JSON."""
    try:
        return repr(inside.digest(json.loads(output) if called else inside.lines(output)))
    except ValueError:
        return None


def _is_call_of_f(text: str) -> bool:
    """And nothing around it, such as a choice between it and the right result."""
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "f"


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
