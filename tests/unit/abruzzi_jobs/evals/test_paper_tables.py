from pathlib import Path

import pytest

from abruzzi.contracts.evaluation import Figure, ItemStatus, SuiteSettings, SuiteSummary
from abruzzi.contracts.paper_tables import TABLES, paper_table
from abruzzi.contracts.toml import load_recipe
from abruzzi_jobs.evals.paper.tables import beside_the_paper
from abruzzi_jobs.evals.suites.registry import suite_class, suite_paths

RECIPES = Path(__file__).parents[4] / "recipes" / "evals"


def summary(suite, value, **subtasks):
    return SuiteSummary(
        suite=suite, settings=SuiteSettings(), items=30, answers=30, statuses={ItemStatus.OK: 30}, missing=0, truncation_rate=0.0,
        score=Figure(value=value, low=value - 0.1, high=value + 0.1, items=30),
        subtasks={name: Figure(value=v, items=10) for name, v in subtasks.items()},
    )  # fmt: skip


def row_of(lines, benchmark):
    return [
        cell.strip()
        for cell in next(line for line in lines if line.startswith(f"| {benchmark} |")).strip("|").split("|")
    ]


def test_the_tables_are_the_papers():
    instruct, base = (paper_table(name) for name in TABLES)
    assert (len(instruct.row), len(base.row)) == (44, 23)
    values = {row.benchmark: row.values for row in (*base.row, *instruct.row)}
    assert values["AIME 2024"]["K2"] == 69.6
    assert values["AIME 2024"]["V3-0324"] == "59.4*"
    assert "GPT-4.1" not in values["SWE-V agentic multi"]
    assert values["EvalPlus (mean of HumanEval, MBPP, and both +)"]["K2"] == 80.33


def test_every_suite_that_a_row_names_is_there():
    known = {reference.partition("@")[0] for reference in suite_paths()}
    assert {suite for name in TABLES for row in paper_table(name).row for suite in row.suites} <= known


def test_our_column_stands_beside_the_papers_and_what_is_missing_stays_empty():
    lines = beside_the_paper("instruct", [summary("aime2025@1", 0.4)], whole=True)
    assert row_of(lines, "AIME 2025")[:4] == ["AIME 2025", "Avg@64", "40.0 [30.0, 50.0] (n = 30)", "49.5"]
    assert row_of(lines, "OJBench")[2:4] == ["", "27.1"]
    assert row_of(lines, "SWE-V agentic multi")[4] == ""
    assert "AIME 2025: 15 of the 30 problems." in lines


def test_a_row_may_be_a_part_of_a_suite():
    lines = beside_the_paper("instruct", [summary("tau2@1", 0.5, airline=0.6)])
    assert row_of(lines, "tau2 airline")[2] == "60.0 (n = 10)"
    assert row_of(lines, "tau2 retail")[2] == ""


def test_suites_that_the_paper_does_not_have_give_no_table():
    assert beside_the_paper("base", [summary("humaneval@1", 0.5)]) == []


@pytest.mark.parametrize(("name", "stages"), [("k2-instruct", ["shipped", "mounted"]), ("k2-base", ["mounted"])])
def test_the_presets_ask_as_the_paper_tells(name, stages):
    recipe = load_recipe((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    assert [stage.id for stage in recipe.stage] == stages
    asked = {reference: config for stage in recipe.stage for reference, config in stage.suites.items()}
    for reference, config in asked.items():
        suite_class(reference)
        assert config.max_tokens in (None, 16_384 if reference == "swe-verified-agentless" else 8192)
    rows = {suite: row for row in paper_table(name.removeprefix("k2-")).row for suite in row.suites[:1]}
    for suite, row in rows.items():
        assert row.samples in (None, asked[suite].samples), suite
        assert row.shots in (None, asked[suite].shots), suite
