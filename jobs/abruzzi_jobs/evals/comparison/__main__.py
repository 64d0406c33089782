"""The command of a container stage: arms in, `comparison.json`, `comparison.md` and `comparison.svg` out.

command = ["python", "-m", "abruzzi_jobs.evals.comparison", "--study", "rephrasing", "--arm", "raw", "raw text, 10 epochs", "23.76", …]

Inputs that are reports of evaluate stages are compared by the questions answered, checkpoints of pretrain stages by their held-out losses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from abruzzi.client.stage import Reporter, StageContext, exit_code_of
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.evals.comparison.arms import compare
from abruzzi_jobs.evals.comparison.claims import judged
from abruzzi_jobs.evals.comparison.curves import curves_svg
from abruzzi_jobs.evals.comparison.findings import findings
from abruzzi_jobs.evals.comparison.losses import compare_losses
from abruzzi_jobs.evals.comparison.losses_table import losses_markdown
from abruzzi_jobs.evals.comparison.picture import svg
from abruzzi_jobs.evals.comparison.reading import read_arms
from abruzzi_jobs.evals.comparison.table import markdown
from abruzzi_jobs.evals.comparison.trainings import read_trainings


def run(context: StageContext, reporter: Reporter, arguments: argparse.Namespace) -> str:
    """The table, after the files are committed. Raises AbruzziError bad_data for arms that cannot be compared."""
    named = [(key, label, None if figure == "-" else float(figure)) for key, label, figure in arguments.arm]
    by_loss = any(reference.kind is ArtifactKind.CHECKPOINT for reference in context.spec.inputs.values())
    if by_loss:
        reporter.heartbeat(0, "compare", message="reading checkpoints")
        comparison = compare_losses({key: label for key, label, _ in named}, read_trainings(context, [k for k, *_ in named]))  # fmt: skip
        facts = {f"{key}/loss": arm["points"][-1]["value"] for key, arm in comparison["arms"].items()}
    else:
        reporter.heartbeat(0, "compare", message="reading reports")
        comparison = compare(read_arms(context, named))
        arms, measures = comparison["arms"], comparison["items"]
        facts = {f"{key}/{m}": arm[m]["value"] for key, arm in arms.items() for m in measures}
    facts = {name: round(value, 4) for name, value in facts.items()}
    finding = findings()[arguments.study] if arguments.study else None
    comparison |= {"study": None, "claims": []}
    if finding is not None:
        told = finding.model_dump(mode="json", include={"title", "section", "finding", "conditions"})
        comparison |= {"study": {"key": arguments.study, **told}, "claims": judged(finding, comparison)}
    comparison["title"] = arguments.title or (finding.title if finding else "Arms compared")
    comparison["published"] = arguments.published or (finding.published if finding else "published")
    made = drawn(comparison)
    out = fresh_folder(context.scratch / "comparison")
    for name, words in made.items():
        (out / f"comparison.{name}").write_text(words, encoding="utf-8")
    reporter.log({f"comparison/{name}": value for name, value in facts.items()}, step=0)
    context.commit(ArtifactKind.FILES, "files", files_of(out), meta={"comparison": comparison["title"], **facts})
    return made["md"]


def drawn(comparison: Mapping[str, Any]) -> dict[str, str]:
    """{ending: content} of its files."""
    title, published = comparison["title"], comparison["published"]
    if comparison.get("measure") == "loss":
        words, picture = losses_markdown(comparison, title=title), curves_svg(comparison, title=title)
    else:
        words = markdown(comparison, title=title, published=published)
        picture = svg(comparison, title=title, published=published)
    return {"json": json.dumps(comparison, indent=1, ensure_ascii=False) + "\n", "md": words, "svg": picture}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="abruzzi_jobs.evals.comparison", description=__doc__)
    parser.add_argument("--study", choices=sorted(findings()), help="of the paper's: its finding and claims stand beside ours")  # fmt: skip
    parser.add_argument("--title", help="absent: the study's")
    parser.add_argument("--published", help="whose figures stand beside ours; absent: the study's")
    parser.add_argument(
        "--arm", nargs=3, action="append", required=True, metavar=("KEY", "LABEL", "FIGURE"),
        help="inputs KEY.<seed>, KEY.dataset, KEY.corpus, or of checkpoints KEY.<budget>.<seed>; what the table calls it; the published figure in per cent, or -",
    )  # fmt: skip
    return parser.parse_args(words)


def main() -> int:
    context = StageContext.from_env()
    with Reporter.from_context(context) as reporter:
        try:
            sys.stdout.write(run(context, reporter, parse()))
        except AbruzziError as error:
            sys.stdout.write(f"{error}\n")
            return exit_code_of(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
