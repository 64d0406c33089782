"""The stage evaluate as the indices of a job: each asks its share of a suite's items, index 0 merges them, each exactly once."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from evals_lab import PREFIX, context_of, run_rank, run_stage, stage_of, start_process
from instruct_lab import model

from abruzzi.contracts.errors import AbruzziError
from abruzzi.store import list_manifests
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.data.text_shards import zstd_lines
from abruzzi_jobs.evals.runner.run import Share
from abruzzi_jobs.evals.suites.registry import open_suite

ITEMS = 7


def guess(asked: str) -> str:
    """Right for some: the length of the question decides."""
    return f"Answer: {len(asked) % 10}"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """What does not depend on the clock."""
    return [
        {key: row[key] for key in row if key not in ("seconds", "call_ids")} for row in read_rows(folder, "answers")
    ]


def until(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    for _ in range(2400):
        if ready():
            return
        try:
            code = process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"ended with {code}: {log.read_text()}")
    pytest.fail(f"not ready after 240 s: {log.read_text()}")


def test_three_indices_give_the_rows_and_scores_of_one_and_ask_each_item_once(tmp_path: Path) -> None:
    suites = {"demo": {"max_items": ITEMS, "samples": 2}, "aime2024": {"max_items": 2, "samples": 1}}
    with model(guess) as target:
        alone, single = run_stage(tmp_path / "alone", stage_of(target["endpoint"], **suites))
        asked_alone, before = Counter(target["asked"]), len(target["asked"])
        config = stage_of(target["endpoint"], indices=3, **suites)
        for rank in (2, 1):
            context = run_rank(tmp_path / "shared", config, rank=rank)
            assert not list(list_manifests(context.store, PREFIX)), "only index 0 combines and commits"
        together, merged = run_stage(tmp_path / "shared", config)
        assert Counter(target["asked"][before:]) == asked_alone
    assert rows_of(together) == rows_of(alone)
    assert (together / "scores.json").read_bytes() == (alone / "scores.json").read_bytes()
    timeless = [{k: v for k, v in suite.items() if k != "seconds"} for suite in merged.meta["suites"]]
    assert timeless == [{k: v for k, v in suite.items() if k != "seconds"} for suite in single.meta["suites"]]
    calls = json.loads((together / "calls.json").read_text())
    assert calls["roles"]["target"]["calls"] == 2 * ITEMS + 2, "calls of all indices are in the artifact"
    left = [key for key in context.store.list(PREFIX) if "/answers/" in key or "/calls/" in key]
    assert left == [], "what was only for a next attempt is gone"


def test_the_death_of_an_index_costs_its_unfinished_items_alone(tmp_path: Path) -> None:
    reached, go_on = threading.Event(), threading.Event()
    seen: list[str] = []

    def slow(asked: str) -> str:
        if asked not in seen:
            seen.append(asked)
        # Index 0 has asked its four items; the third of index 1 hangs.
        if len(seen) == 4 + 3 and not go_on.is_set():
            reached.set()
            go_on.wait(240)
        return guess(asked)

    log = tmp_path / "output.log"
    with model(slow) as target:
        config = stage_of({**target["endpoint"], "concurrency": 1}, indices=2, demo={"max_items": ITEMS})
        store = context_of(tmp_path, config).store

        def kept() -> int:
            """Answers of index 1 in the log of calls."""
            keys = [key for key in store.list(PREFIX) if "/calls/" in f"/{key}" and "-r1-" in key]
            return sum(len(list(zstd_lines(io.BytesIO(store.get(key))))) for key in keys)

        first = start_process(tmp_path, config, rank=0)
        until(first, log, lambda: len(target["asked"]) == 4)
        second = start_process(tmp_path, config, rank=1)
        try:
            until(second, log, reached.is_set)
            until(second, log, lambda: kept() == 2)
            second.send_signal(signal.SIGKILL)  # its node is lost; the controller ends the attempt's other pods
            first.send_signal(signal.SIGTERM)
            assert first.wait(240) == 143, log.read_text()
        finally:
            for process in (first, second):
                process.kill()
                process.wait(240)
            go_on.set()
        run_rank(tmp_path, config, attempt=2, rank=1)
        out, manifest = run_stage(tmp_path, config, attempt=2)
    assert [row["item"] for row in rows_of(out)] == [item.id for item in islice(open_suite("demo").items(), ITEMS)]
    assert manifest.meta["suites"][0]["items"] == ITEMS
    assert sorted(Counter(target["asked"]).values()) == [1] * (ITEMS - 1) + [2], "the one that hung, and no other"


def test_index_0_does_not_take_what_an_earlier_attempt_called_finished(tmp_path: Path) -> None:
    with model(guess) as target:
        config = stage_of(target["endpoint"], indices=2, demo={"max_items": 2})
        run_rank(tmp_path, config, attempt=1, rank=1)
        context = context_of(tmp_path, config, attempt=2)
        finished = [key for key in context.store.list(PREFIX) if key.endswith("/1-of-2/finished")]
        assert [context.store.get(key) for key in finished] == [b"0123456789-evals-1"]
        run_rank(tmp_path, config, attempt=2, rank=1)
        assert [context.store.get(key) for key in finished] == [b"0123456789-evals-2"]
        assert len(target["asked"]) == 1


def test_an_index_whose_answers_are_lost_ends_the_attempt_and_no_score_is_made_of_the_rest(tmp_path: Path) -> None:
    with model(guess) as target:
        config = stage_of(target["endpoint"], indices=2, demo={"max_items": 4})
        context = run_rank(tmp_path, config, rank=1)
        (part,) = [key for key in context.store.list(PREFIX) if "/1-of-2/part-" in key]
        context.store.delete(part)
        with pytest.raises(AbruzziError, match="item 2, of index 1, are not in the store") as told:
            run_stage(tmp_path, config)
        assert told.value.status == 503
        run_rank(tmp_path, config, attempt=2, rank=1)
        assert run_stage(tmp_path, config, attempt=2)[1].meta["suites"][0]["items"] == 4
        assert len(target["asked"]) == 4, "the log of calls knows the answers still"


@pytest.mark.parametrize("items", [0, 1, 5, 6, 7])
def test_shares_part_the_items_whatever_their_number(items: int) -> None:
    sizes = [Share(index=index, count=3).size(items) for index in range(3)]
    assert sum(sizes) == items
    assert max(sizes) - min(sizes) <= 1
