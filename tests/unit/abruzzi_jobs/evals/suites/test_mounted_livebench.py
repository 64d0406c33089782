"""LiveBench's questions by the rules of their tasks. The rows are ours, in their owner's published format."""

from __future__ import annotations

import json

import pytest
from evals_oracle import verdict, wrong

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.evals.scorers import livebench_tasks as tasks
from abruzzi_jobs.evals.suites.mounted.table import table
from abruzzi_jobs.evals.suites.registry import open_suite

TRUTHS = {
    "math_comp": "B", "olympiad": "3,1,2", "AMPS_Hard": "\\frac{1}{2}", "web_of_lies_v2": "yes, no, unknown", "zebra_puzzle": "2, tea, sky blue",
    "spatial": "7", "connections": "a,b,c,d,e,f,g,h", "plot_unscrambling": "He came. He saw it all. He won.", "typos": "The right text.",
    "cta": "Postal Code", "tablejoin": "{'a': 'x', 'b': 'y'}",
}  # fmt: skip
ROWS = [
    {"question_id": task, "category": "c", "task": task, "turns": ["Solve it."], "ground_truth": truth, "livebench_release_date": "2024-11-25"}
    for task, truth in TRUTHS.items()
]  # fmt: skip


def mounted(folder, rows, **options):
    (folder / table()["livebench"].file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_suite("livebench", SuiteConfig(path=str(folder), options=options))


def test_gold_scores_one_and_perturbed_zero_in_each_task(tmp_path):
    suite = mounted(tmp_path, ROWS)
    items = list(suite.items())
    assert len(items) == len(TRUTHS)
    assert wrong(suite, items) == []


@pytest.mark.parametrize(
    ("task", "answer", "score"),
    [
        ("math_comp", "So BBBBB.", 1.0),
        ("math_comp", "<solution>b</solution>", 1.0),
        ("math_comp", "It is \\boxed{\\text{B}}", 1.0),
        ("math_comp", "AAAAA", 0.0),
        ("olympiad", "Answer:\n3, 1, 5", 2 / 3),
        ("olympiad", "\\boxed{3,1,2}", 1.0),
        ("olympiad", "", 0.0),
        ("web_of_lies_v2", "**yes**, then **no** and **unknown**", 1.0),
        ("web_of_lies_v2", "<solution>no, no, unknown</solution>", 0.0),
        ("zebra_puzzle", "<solution>2, tea, red</solution>", 1 / 3),
        ("zebra_puzzle", "\\boxed{2, tea, sky-blue}", 1.0),
        ("spatial", "**seven**", 1.0),
        ("spatial", "seven", 0.0),
        ("connections", "<solution>d,c,b,a,e,f,g,x</solution>", 0.5),
        ("plot_unscrambling", "<PLOT_SUMMARY> He saw it all. He came. He won.", 1 / 3),
        ("plot_unscrambling", "", 0.0),
        ("typos", "<solution>The  right\ntext. More.</solution>", 1.0),
        ("cta", "\\boxed{\\text{postal code}}", 1.0),
        ("cta", "Perhaps postal code", 0.0),
        ("tablejoin", "```python\n{'a': 'x', 'b': 'z', 'c': 'y'}\n```", 0.4),
        ("tablejoin", "{" * 5000, 0.0),
    ],
)
def test_a_task_has_its_owners_measure(task, answer, score):
    assert max(0.0, tasks.SCORERS[task](TRUTHS[task], "", answer)) == pytest.approx(score, abs=0.01)


def test_an_option_of_a_contest_may_be_told_by_its_text():
    question = "$\\textbf{(A) }1\\qquad\\textbf{(B) }17\\qquad\\textbf{(C) }18$"
    assert tasks.contest("B", question, "Thus 17") == 1.0
    assert tasks.contest("B", question, "Thus 18") == 0.0
    assert tasks.contest("073", question, "The answer is 073.") == 1.0


def test_an_answer_to_an_instruction_is_the_mean_of_all_rules_together_and_their_share(tmp_path):
    rules = ["punctuation:no_comma", "detectable_format:title"]
    row = {**ROWS[0], "task": "paraphrase", "ground_truth": None, "instruction_id_list": rules, "kwargs": [{}, {}]}
    suite = mounted(tmp_path, [row])
    (item,) = suite.items()
    assert verdict(suite, item, "<<Title>>\nAll is well").score == 1.0
    assert verdict(suite, item, "All is well").score == 0.25
    assert verdict(suite, item, suite.perturbed_answer(item)).score == 0.0


def test_programs_run_their_tests_and_a_completion_stands_behind_what_was_begun(tmp_path):
    row = {
        **ROWS[0], "task": "coding_completion", "partial_solution": "a, b = map(int, input().split())", "original_json": json.dumps({"starter_code": ""}),
        "public_test_cases": json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}]), "private_test_cases": [{"input": "4 5", "output": "9"}],
    }  # fmt: skip
    suite = mounted(tmp_path, [row])
    (item,) = suite.items()
    assert verdict(suite, item, "```python\nprint(a + b)\n```").score == 1.0
    assert verdict(suite, item, "```python\nprint(3)\n```").parts == {"tests": 0.5}
    packed = {**row, "private_test_cases": json.dumps([{"eJx": 1}])}
    with pytest.raises(AbruzziError, match="unpack them"):
        list(mounted(tmp_path, [packed]).items())


def test_a_release_asks_what_was_there_on_its_day(tmp_path):
    rows = [
        {
            **ROWS[0],
            "question_id": "gone",
            "livebench_release_date": "2024-06-24",
            "livebench_removal_date": "2024-11-25",
        },
        {
            **ROWS[0],
            "question_id": "there",
            "livebench_release_date": "2024-06-24T00:00:00",
            "livebench_removal_date": "",
        },
        {**ROWS[0], "question_id": "later", "livebench_release_date": "2025-04-02"},
        {**ROWS[0], "question_id": "table", "task": "tablereformat"},
    ]
    assert [item.id for item in mounted(tmp_path, rows).items()] == ["there"]
    assert [item.id for item in mounted(tmp_path, rows, release="2024-08-31").items()] == ["gone", "there"]
    with pytest.raises(AbruzziError, match="release is not 'new'"):
        mounted(tmp_path, rows, release="new")
    with pytest.raises(AbruzziError, match="no scorer of the task 'poetry'"):
        list(mounted(tmp_path, [{**ROWS[0], "task": "poetry"}]).items())


def test_questions_from_before_the_release_of_november_have_the_old_zebras_form(tmp_path):
    suite = mounted(tmp_path, [{**ROWS[4], "ground_truth": "tea", "livebench_release_date": "2024-06-24"}])
    (item,) = suite.items()
    assert wrong(suite, [item]) == []
    assert verdict(suite, item, "It is ***Tea***").score == 1.0
