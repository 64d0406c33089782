"""The command of a container stage: reports by arm and seed in, `comparison.json`, `comparison.md` and `comparison.svg` out.

command = ["python", "-m", "abruzzi_jobs.evals.comparison", "--arm", "raw", "raw text, 10 epochs", "23.76", …]
"""

from __future__ import annotations

import argparse
import json
import sys

from abruzzi.client.stage import Reporter, StageContext, exit_code_of
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.evals.comparison.arms import compare
from abruzzi_jobs.evals.comparison.picture import svg
from abruzzi_jobs.evals.comparison.reading import read_arms
from abruzzi_jobs.evals.comparison.table import markdown


def run(context: StageContext, reporter: Reporter, arguments: argparse.Namespace) -> str:
    """The table, after the files are committed. Raises AbruzziError bad_data for arms that cannot be compared."""
    named = [(key, label, None if figure == "-" else float(figure)) for key, label, figure in arguments.arm]
    reporter.heartbeat(0, "compare", message="reading reports")
    comparison = compare(read_arms(context, named))
    words = {"title": arguments.title, "published": arguments.published}
    out = fresh_folder(context.scratch / "comparison")
    table = markdown(comparison, **words)
    body = json.dumps(comparison, indent=1, ensure_ascii=False) + "\n"
    for name, text in (("json", body), ("md", table), ("svg", svg(comparison, **words))):
        (out / f"comparison.{name}").write_text(text, encoding="utf-8")
    facts = {
        f"{key}/{m}": round(arm[m]["value"], 4) for key, arm in comparison["arms"].items() for m in comparison["items"]
    }
    reporter.log({f"comparison/{name}": value for name, value in facts.items()}, step=0)
    context.commit(ArtifactKind.FILES, "files", files_of(out), meta=facts)
    return table


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="abruzzi_jobs.evals.comparison", description=__doc__)
    parser.add_argument("--title", default="Arms compared")
    parser.add_argument("--published", default="published", help="whose figures stand beside ours")
    parser.add_argument(
        "--arm", nargs=3, action="append", required=True, metavar=("KEY", "LABEL", "FIGURE"),
        help="inputs KEY.<seed>, KEY.dataset, KEY.corpus; what the table calls it; the published figure in per cent, or -",
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
