"""Papers to replicate in code, as PaperBench's variant Code-Dev asks (Starace et al. 2025): nothing is run, a judge looks at each leaf of the owner's rubric."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi_jobs.evals.scorers.grader import graded, no_verdict
from abruzzi_jobs.evals.suites.mounted.kinds import MountedSuite
from abruzzi_jobs.evals.suites.mounted.repairs import LIMITS, worked
from abruzzi_jobs.evals.suites.suite import Ask, Helpers, Transcript
from abruzzi_jobs.rl.environments.evaluating import refuse_without_sandbox
from abruzzi_jobs.rl.environments.gyms.software.workspace import Workspace

_CODE = "Code Development"
_SYSTEM = (
    "You replicate a paper in code, in the repository that is your working folder. Nothing of it will be run: what counts is that the code does what the paper "
    "says, all of it. Write README.md that says which file does what, and when it is done say so in one sentence."
)
_READ_AT_MOST = 300_000
"""Characters of a submission that the judge sees."""
_AT_ONCE = 8


@dataclass(frozen=True)
class Leaf:
    requirement: str
    weight: float
    """Share of the whole: weights are among siblings, those that ask for more than code left out."""


class Replication(MountedSuite):
    """Score: the weighted share of leaves that the judge finds in the code. Option `turns`, 200 by default. The field `params` names the rubric, a tree of
    {requirements, weight, sub_tasks, task_category}."""

    asks = ("judge",)
    takes = ("turns",)
    task: ClassVar[str] = (
        "You check whether code does what one requirement of a rubric asks for, by the paper that it replicates. met: it does; unmet: it does not, or in part."
    )
    words: ClassVar[tuple[str, ...]] = ("met", "unmet")

    def __init__(self, settings: SuiteSettings) -> None:
        super().__init__(settings)
        refuse_without_sandbox(self.name)
        self.turns = settings.options.get("turns", 200)
        if not isinstance(self.turns, int) or not 1 <= self.turns <= 1000:
            raise AbruzziError(
                "bad_options", f"suite {self.name}: turns is {self.turns!r}.", hint="Give a number from 1 to 1000."
            )

    def read(self, row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
        prompt, _, meta = super().read(row)
        rubric = row[self.mounted.params]
        leaves = list(_leaves(json.loads(rubric) if isinstance(rubric, str) else rubric, 1.0))
        if not leaves:
            raise ValueError("its rubric asks for no code")
        return prompt, [[leaf.requirement, leaf.weight] for leaf in leaves], meta

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        workspace = await asyncio.to_thread(Workspace, {".gitignore": ""}, limits=LIMITS)
        told = f"{item.prompt}\n\n{item.meta['context']}".strip()
        try:
            return await worked(workspace, _SYSTEM, told, ask, self.turns, workspace.changes)
        finally:
            await asyncio.to_thread(workspace.close)

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        code = str(transcript.state if transcript.state is not None else transcript.answer)[:_READ_AT_MOST]
        if not code.strip():
            return Verdict(score=0.0, reason="nothing was written")
        gate = asyncio.Semaphore(_AT_ONCE)

        async def judged(requirement: str) -> Any:
            async with gate:
                material = {"paper": item.prompt, "requirement": requirement, "code": code}
                return await graded(helpers["judge"], self.task, material, self.words)

        found = await asyncio.gather(*(judged(requirement) for requirement, _ in item.gold))
        missing = next((one for one in found if one.word is None), None)
        if missing is not None:
            return no_verdict(missing)
        met = [one.word == "met" for one in found]
        score = sum(weight for (_, weight), is_met in zip(item.gold, met, strict=True) if is_met)
        return Verdict(
            score=min(1.0, score),
            reason=f"{sum(met)} of {len(met)} requirements",
            parts={"leaves": sum(met) / len(met)},
        )


def _leaves(node: Mapping[str, Any], share: float) -> Iterator[Leaf]:
    below = [child for child in node.get("sub_tasks") or () if _asks_for_code(child)]
    if not below:
        if _asks_for_code(node):
            yield Leaf(str(node["requirements"]), share)
        return
    whole = sum(float(child["weight"]) for child in below)
    for child in below:
        yield from _leaves(child, share * float(child["weight"]) / whole)


def _asks_for_code(node: Mapping[str, Any]) -> bool:
    below = node.get("sub_tasks") or ()
    return (
        any(map(_asks_for_code, below)) if below else node.get("task_category") == _CODE and float(node["weight"]) > 0
    )
