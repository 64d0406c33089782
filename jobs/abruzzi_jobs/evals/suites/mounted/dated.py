"""LiveBench's questions of one release, each scored by the rule of its task: what is right stands in the file, and no judge is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi_jobs.evals.scorers import ifeval_rules, livebench_tasks, mathematics
from abruzzi_jobs.evals.scorers.instructions import followed
from abruzzi_jobs.evals.suites.mounted.programs import Program
from abruzzi_jobs.evals.suites.suite import Helpers, Transcript

_AMPS, _COMPLETION = "AMPS_Hard", "coding_completion"
_PROGRAMS = ("LCB_generation", _COMPLETION)
_RULES = ("summarize", "paraphrase", "simplify", "story_generation")
UNSCORED = ("tablereformat",)
"""Tasks without a scorer here, which are not asked."""
_OLD_ZEBRA = "2024-11-25"
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_LATER = "9999-12-31"


class LiveBench(Program):
    """Option `release`, a date: the questions that its leaderboard of that day asked; the paper's is 2024-11-25. Subtasks are categories, so that the owner's figure,
    the mean of their means, can be told; the task stands in each item's id. An answer to an instruction counts as the owner counts it: the mean of all rules
    together and their share."""

    takes = ("release",)

    def __init__(self, settings: SuiteSettings) -> None:
        super().__init__(settings)
        self.release = str(settings.options.get("release", "2024-11-25"))
        if not _DATE.match(self.release):
            raise AbruzziError(
                "bad_options",
                f"suite {self.name}: release is not {self.release!r}.",
                hint="Give a date, such as 2024-11-25.",
            )

    def takes_row(self, row: Mapping[str, Any]) -> bool:
        came, went = _day(row.get("livebench_release_date")), _day(row.get("livebench_removal_date"))
        return (came or "") <= self.release < (went or _LATER) and row.get("task") not in UNSCORED

    def read(self, row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
        task = "math_comp" if str(row["task"]).startswith(("math_comp", "AMC", "AIME", "SMC")) else str(row["task"])
        meta: dict[str, Any] = {"task": task, "starter": "", "released": _day(row.get("livebench_release_date")) or ""}
        prompt = str(row["turns"][0])
        if task in _PROGRAMS:
            tests = [*_tests(row["public_test_cases"]), *_tests(row["private_test_cases"])]
            if not tests or not all({"input", "output"} <= set(test) for test in tests):
                raise ValueError("its tests are no list of {input, output}; unpack them")
            code = json.loads(row["original_json"])["starter_code"] if isinstance(row.get("original_json"), str) else ""
            return prompt, tests, {**meta, "starter": str(code or ""), "begun": str(row.get("partial_solution") or "")}
        if task in _RULES:
            unknown = [name for name in row["instruction_id_list"] if name not in ifeval_rules.RULES]
            if unknown:
                raise ValueError(f"no rule is called {unknown[0]!r}")
            return prompt, list(row["instruction_id_list"]), {**meta, "params": list(row["kwargs"])}
        if task != _AMPS and task not in livebench_tasks.SCORERS:
            raise ValueError(f"there is no scorer of the task {task!r}")
        if row.get("ground_truth") is None:
            raise ValueError("no ground_truth")
        return prompt, str(row["ground_truth"]), meta

    def asked(self, item: Item) -> str:
        return item.prompt

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        task, answer = item.meta["task"], transcript.answer
        if task in _PROGRAMS:
            return await super().score(item, _continued(item, transcript), helpers)
        if task == _AMPS:
            right, reason = mathematics.is_right(item.gold, answer)
            return Verdict(score=float(right), reason=reason)
        if task in _RULES:
            kept = followed(ifeval_rules.RULES, item.gold, item.meta["params"], answer).strict
            return Verdict(score=fmean((float(all(kept)), sum(kept) / len(kept))))
        scorer = livebench_tasks.SCORERS[task]
        if task == "zebra_puzzle" and item.meta["released"] < _OLD_ZEBRA:
            scorer = livebench_tasks.old_zebra
        score = max(0.0, scorer(item.gold, item.prompt, answer))
        return Verdict(score=score, reason="" if score == 1.0 else f"{item.gold[:80]} is right")

    def gold_answer(self, item: Item) -> str | None:
        task, gold = item.meta["task"], item.gold
        if task in (*_PROGRAMS, *_RULES):
            return None
        if task == _AMPS:
            return f"\\boxed{{{gold}}}"
        if task in ("zebra_puzzle", "connections"):
            is_old = task == "zebra_puzzle" and item.meta["released"] < _OLD_ZEBRA
            return f"***{gold}***" if is_old else f"<solution>{gold}</solution>"
        forms = {
            "web_of_lies_v2": "**{}**",
            "spatial": "**{}**",
            "olympiad": "Answer: {}",
            "plot_unscrambling": "<PLOT_SUMMARY>{}",
        }
        return forms.get(task, "{}").format(gold * 5 if task == "math_comp" and gold in "ABCDE" else gold)

    def perturbed_answer(self, item: Item) -> str:
        # Any sentence is the nearest to some sentence of a plot.
        return "" if item.meta["task"] in (*_RULES, "plot_unscrambling") else "Answer: nobody 73461"


def _continued(item: Item, transcript: Transcript) -> Transcript:
    """A completion stands behind what was begun, unless it repeats it."""
    begun = item.meta["begun"]
    if item.meta["task"] != _COMPLETION or not begun.strip():
        return transcript
    blocks = re.findall(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", transcript.answer, re.DOTALL)
    rest = blocks[-1] if blocks else transcript.answer
    whole = rest if begun.strip() in rest else f"{begun}\n{rest}"
    return Transcript(messages=transcript.messages, answer=f"```python\n{whole}\n```", truncated=transcript.truncated)


def _tests(given: Any) -> list[dict[str, Any]]:
    found = json.loads(given) if isinstance(given, str) else given
    return list(found or ())


def _day(value: Any) -> str | None:
    """Dates come as texts, with or without a time, or as the file's own."""
    return str(value)[:10] if value else None
