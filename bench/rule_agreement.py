"""Whether our rules of IFEval and IFBench say what their owners' own code says of the same answers, prompt by prompt.

    python bench/rule_agreement.py --nltk-data FOLDER [--each 40] [--out FILE]

IFBench's 294 prompts with the answers that its package has of a model; then each of its 58 rules, and each of IFEval's 25 (in lm-eval), over such answers
changed in thirty ways. The folder holds NLTK's tokenizers/punkt_tab, corpora/stopwords and taggers/averaged_perceptron_tagger_eng (nltk.download, where there
is a network): with it nothing is ours on the owners' side.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from interleaved import machine, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from owner_rules import Followed, owners
from rule_answers import Asked, exchanged, of_ifeval, real

from abruzzi_jobs.evals.scorers import ifbench_rules, ifeval_rules
from abruzzi_jobs.evals.scorers.instructions import followed

Owner = Callable[..., Followed | None]
_SHOWN = 40


def compared(rules: Any, owner: Owner, asked: Iterable[Asked]) -> dict[str, Any]:
    """`verdicts`: of a rule of a prompt, strictly and loosely."""
    differ: list[dict[str, Any]] = []
    counts, by_rule = Counter[str](), Counter[str]()
    for one in asked:
        counts["prompts"] += 1
        ours, theirs = followed(rules, one.names, one.params, one.answer), owner(*one[1:])
        if theirs is None:
            counts["owner_raises"] += 1
            continue
        counts["right_by_owner"] += all(theirs[0])
        counts["prompts_that_agree"] += (ours.strict, ours.loose) == theirs
        for place, name in enumerate(one.names):
            pairs = {"strict": (ours.strict, theirs[0]), "loose": (ours.loose, theirs[1])}
            counts["verdicts"] += 2
            for reading, (mine, other) in pairs.items():
                if mine[place] != other[place]:
                    by_rule[name] += 1
                    differ.append({"key": one.key, "rule": name, "reading": reading, "owner": other[place]})
    agree = counts["verdicts"] - len(differ)
    return {**counts, "agree": agree, "differ_by_rule": dict(by_rule.most_common()), "differ": differ[:_SHOWN]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nltk-data", type=Path, required=True)
    parser.add_argument("--each", type=int, default=40, help="answers a rule")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with owners(given.nltk_data.resolve()) as their:
        result = {
            "figure": "our rules against the owners' code on the same answers",
            "ifbench, a model's answers": compared(ifbench_rules.RULES, their.ifbench, real()),
            "ifbench, each rule over changed answers": compared(
                ifbench_rules.RULES, their.ifbench, exchanged(random.Random(0), given.each)
            ),
            "ifeval (lm-eval), each rule over changed answers": compared(
                ifeval_rules.RULES, their.ifeval, of_ifeval(random.Random(1), given.each)
            ),
            "machine": machine(threads=1),
        }
    report(result, out=given.out)


if __name__ == "__main__":
    main()
