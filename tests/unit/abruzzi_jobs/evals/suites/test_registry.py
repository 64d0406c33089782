"""Every suite that brings its items can be asked: the runner looks through all of them first and refuses what is malformed or there twice."""

from __future__ import annotations

import pytest

from abruzzi_jobs.evals.runner.items import look_through
from abruzzi_jobs.evals.suites.registry import SHIPPED, open_suite

ITEMS = {
    "aime2024@1": 30, "aime2025@1": 15, "bfcl-turns@3": 800, "bfcl@3": 3641, "cnmo2024@1": 18, "demo@1": 60, "humaneval@1": 164, "ifbench@1": 294,
    "math500@1": 311, "needle@1": 150, "scicode@1": 14, "tau2@1": 278,
}  # fmt: skip


@pytest.mark.parametrize("reference", [reference for reference in SHIPPED if reference != "gym@1"])
def test_a_shipped_suite_has_its_items_each_under_an_id_of_its_own(reference: str) -> None:
    assert look_through(open_suite(reference)).number == ITEMS[reference]
