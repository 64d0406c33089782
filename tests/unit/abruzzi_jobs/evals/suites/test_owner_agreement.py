"""Our scores are the owners' own checkers', item by item, on the same outputs. (bench/eval_agreement.py asks about all of them.)"""

from __future__ import annotations

import random

import pytest
from owner_harnesses import humaneval, mathematics, turns


@pytest.mark.parametrize(
    ("compare", "outputs"),
    [
        pytest.param(lambda: humaneval(2), 8, id="humaneval"),
        pytest.param(lambda: turns(6, random.Random(1)), 24, id="bfcl-turns"),
        pytest.param(lambda: mathematics(40), 4 * (1 + 1 + 1 + 8), id="mmath"),
    ],
)
def test_a_suite_scores_as_its_owner_does(compare, outputs):
    rows = compare()
    assert [row for row in rows if row["ours"] != row["owner"]] == []
    assert len(rows) == outputs
    assert {row["owner"] for row in rows} == {True, False}
