"""Mounted suites whose answers are programs, which run in a sandbox: what is right never lies in there where outputs are compared."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi_jobs.evals.scorers import texts
from abruzzi_jobs.evals.suites.mounted.kinds import MountedSuite
from abruzzi_jobs.evals.suites.suite import Helpers, Transcript
from abruzzi_jobs.rl.environments.evaluating import evaluate, refuse_without_sandbox

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_RUN = (
    "(lambda p: p.stdout if p.returncode == 0 else None)(__import__('subprocess').run([__import__('sys').executable, '-I', '/workspace/program.py'], "
    "input={given!r}, capture_output=True, text=True, timeout=8))"
)
_CALL = "getattr(globals().get('Solution', lambda: None)(), {name!r}, globals().get({name!r}))(*[__import__('json').loads(l) for l in {given!r}.splitlines()])"


def program_of(text: str) -> str:
    """The last block of Python; the text where it has none."""
    blocks = _BLOCK.findall(text)
    return blocks[-1] if blocks else text


class _Programs(MountedSuite):
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


class Program(_Programs):
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
        found = evaluate({"program.py": program}, program if named else "", calls)
        passed = [
            _same(got, str(test["output"]), called=bool(named))
            for got, test in zip(found.values, item.gold, strict=True)
        ]
        wrong = next((n for n, ok in enumerate(passed) if not ok), None)
        reason = "" if wrong is None else f"test {wrong + 1} of {len(passed)} fails"
        return Verdict(score=float(all(passed)), reason=reason, parts={"tests": sum(passed) / len(passed)})


class Function(_Programs):
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


class Asserts(_Programs):
    """A program by its description, with the owner's assertions."""

    def judge(self, item: Item, answer: str) -> Verdict:
        return _ends_well(f"{program_of(answer)}\n\n{item.gold}", "None")


class Output(_Programs):
    """What a program gives: a literal, compared as one. Nothing runs."""

    form = "```python\n{question}\n```\n\nWhat is f({context})? Think step by step, then end with 'Answer: …', a Python literal."

    def judge(self, item: Item, answer: str) -> Verdict:
        found = texts.stated(answer).strip("`").rpartition("==")[2].strip()
        return Verdict(score=float(_literal(found) == _literal(str(item.gold))), reason="")

    def gold_answer(self, item: Item) -> str:
        return f"Answer: {item.gold}"

    def perturbed_answer(self, item: Item) -> str:
        return "Answer: ['of', 73461]"


class Input(_Programs):
    """Arguments for which a program gives what is told: any that do."""

    form = "```python\n{question}\n```\n\nFind arguments for which f(…) == {context}. Think step by step, then end with 'Answer: …', the arguments alone."

    def judge(self, item: Item, answer: str) -> Verdict:
        found = texts.stated(answer).strip("`")
        arguments = found[2:-1] if found.startswith("f(") and found.endswith(")") else found
        try:
            ast.parse(f"f({arguments})", mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return Verdict(score=0.0, reason="no arguments of Python")
        got = evaluate({}, item.prompt, [f"f({arguments})"])
        given = got.values[0]
        right = given is not None and _literal(given) == _literal(item.meta["context"])
        return Verdict(score=float(right), reason="" if right else (got.fault or f"gives {given}")[:300])

    def gold_answer(self, item: Item) -> str:
        return f"Answer: {item.gold}"

    def perturbed_answer(self, item: Item) -> str:
        return "Answer: *range(99)"


def _ends_well(program: str, expression: str) -> Verdict:
    found = evaluate({}, program, [expression])
    passed = found.values == ("None",)
    return Verdict(score=float(passed), reason="" if passed else found.fault[:300])


def _same(got: str | None, wanted: str, *, called: bool) -> bool:
    """Outputs line by line without blanks at their ends, numbers as they are written; values of a function as JSON."""
    value = _literal(got) if got is not None else None
    if called:
        try:
            return got is not None and json.loads(json.dumps(value)) == json.loads(wanted)
        except (ValueError, TypeError):
            return False
    if not isinstance(value, str):
        return False
    lines = [[line.rstrip() for line in text.strip().splitlines()] for text in (value, wanted)]
    return lines[0] == lines[1]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
