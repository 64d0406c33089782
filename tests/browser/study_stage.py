"""A stage for the browser tests that compares arms as recipes/studies/heads.toml does, of trainings that nobody has made."""

from __future__ import annotations

import sys

from abruzzi.client.stage import StageContext
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.evals.comparison.__main__ import drawn
from abruzzi_jobs.evals.comparison.claims import judged
from abruzzi_jobs.evals.comparison.findings import findings
from abruzzi_jobs.evals.comparison.losses import compare_losses
from abruzzi_jobs.evals.comparison.trainings import Training


def main() -> int:
    trainings = [
        Training(
            arm=arm, seed=str(seed), tokens=64_000 << budget, flops=1.5e11 * (1 << budget), optimizer_flops=2e10,
            loss=(4.8 - 0.3 * budget + 0.02 * seed) * (0.991 + 0.001 * seed if arm == "double" else 1), parameters=900_000, active_parameters=300_000,
        )
        for arm in ("equal", "double")
        for budget in range(2)
        for seed in range(3)
    ]  # fmt: skip
    finding = findings()["heads"]
    comparison = compare_losses({"equal": "4 heads", "double": "8 heads"}, trainings)
    told = finding.model_dump(mode="json", include={"section", "finding", "conditions"})
    comparison |= {"title": finding.title, "published": "", "study": told, "claims": judged(finding, comparison)}
    context = StageContext.from_env()
    files = {f"comparison.{ending}": context.scratch / f"comparison.{ending}" for ending in ("json", "md", "svg")}
    for ending, words in drawn(comparison).items():
        files[f"comparison.{ending}"].write_text(words, encoding="utf-8")
    context.commit(ArtifactKind.FILES, "files", files, meta={"comparison": finding.title})
    return 0


if __name__ == "__main__":
    sys.exit(main())
