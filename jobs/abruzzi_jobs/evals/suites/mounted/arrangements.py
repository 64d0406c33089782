"""Puzzles with many solutions, such as AutoLogi's (Zhu et al. 2025): an arrangement is right where the owner's functions accept it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from abruzzi.contracts.evaluation import Item, Verdict
from abruzzi_jobs.evals.suites.boxed import A_TEST, run_boxed
from abruzzi_jobs.evals.suites.mounted.programs import BoxedSuite

_BLOCK = re.compile(r"```\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_LONGEST = 20_000
"""Characters of an arrangement; the owner's are of some hundred."""


class Arrangement(BoxedSuite):
    """The fields `answer` and `context` name the code of inputs_check and of constraint_list. The answer is a literal, so nothing of it runs. Parts: `format`,
    what inputs_check says alone."""

    form = "{question}"

    def read(self, row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
        prompt, gold, meta = super().read(row)
        for code, name in ((gold, "constraint_list"), (meta["context"], "inputs_check")):
            if name not in str(code):
                raise ValueError(f"its code has no {name}")
        return prompt, str(gold), {**meta, "checked": meta.pop("context")}

    def judge(self, item: Item, answer: str) -> Verdict:
        found = _literal_of(answer)
        if found is None:
            return Verdict(score=0.0, reason="no arrangement", parts={"format": 0.0})
        given = f"__import__('ast').literal_eval({found!r})"
        asked = [f"bool(inputs_check({given}))", f"all(bool(holds({given})) for holds in constraint_list)"]
        told = run_boxed(
            {}, f"import itertools, collections, math, re\n{item.meta['checked']}\n\n{item.gold}\n", asked, A_TEST
        )
        is_formed, holds = (value == "True" for value in told.values)
        reason = (
            ""
            if is_formed and holds
            else "a constraint does not hold"
            if is_formed
            else "not in the form that is asked for"
        )
        return Verdict(score=float(is_formed and holds), reason=reason, parts={"format": float(is_formed)})

    def gold_answer(self, item: Item) -> None:
        """Nobody says: the owner publishes what accepts a solution, and no solution."""

    def perturbed_answer(self, item: Item) -> str:
        return "```\n{'nobody': 73461}\n```"


def _literal_of(answer: str) -> str | None:
    """The last block that is a literal, of Python or JSON; else the last line that is one."""
    blocks = [block.partition("=")[2] if re.match(r"\s*\w+\s*=", block) else block for block in _BLOCK.findall(answer)]
    for text in reversed([*answer.strip().splitlines()[-1:], *blocks]):
        text = text.strip()
        if not text.startswith(("{", "[", "(")) or len(text) > _LONGEST:
            continue
        for read in (ast.literal_eval, json.loads):
            try:
                return repr(read(text))
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    return None
