"""The stage evaluate with suites, as the platform runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from evals_lab import context_of, run_stage, stage_of, start_process
from instruct_lab import model

from abruzzi.contracts.errors import AbruzziError
from abruzzi.store import list_manifests
from abruzzi_jobs.data.row_shards import read_rows


def says_name(asked: str) -> str:
    """A function of the right name that does nothing, except the first one of the set, which it knows."""
    if "has_close_elements" in asked:
        body = "    return any(abs(a - b) < threshold for i, a in enumerate(numbers) for b in numbers[i + 1:])"
    else:
        body = "    return None"
    signature = re.search(r"^def .*$", asked, re.MULTILINE)
    assert signature is not None
    return f"```python\nfrom typing import *\n{signature[0]}\n{body}\n```"


def test_answers_scores_and_summaries_are_written_and_read_by_gates(tmp_path: Path) -> None:
    with model(says_name) as target:
        out, manifest = run_stage(tmp_path, stage_of(target["endpoint"], humaneval={"max_items": 2, "samples": 2}))
    rows = list(read_rows(out, "answers"))
    assert [(row["item"], row["fate"]) for row in rows] == [
        ("HumanEval/0", "right"), ("HumanEval/0", "right"), ("HumanEval/1", "wrong"), ("HumanEval/1", "wrong"),
    ]  # fmt: skip
    assert json.loads((out / "scores.json").read_text()) == {"humaneval@1": {"HumanEval/0": 1.0, "HumanEval/1": 0.0}}
    assert manifest.meta["humaneval.score"] == manifest.meta["score"] == 0.5
    assert manifest.meta["pass_at_2"] == 0.5
    assert manifest.meta["suites"][0]["items"] == 2
    assert manifest.meta["target"]["model"] == "model-1"
    assert "humaneval@1" in (out / "report.md").read_text()
    assert json.loads((out / "calls.json").read_text())["roles"]["target"]["calls"] == 4


def test_after_kill_9_finished_answers_are_not_asked_for_again(tmp_path: Path) -> None:
    asked_all, go_on = threading.Event(), threading.Event()

    def slow(asked: str) -> str:
        if "separate_paren_groups" in asked and not go_on.is_set():
            asked_all.set()
            go_on.wait(240)
        return says_name(asked)

    with model(slow) as target:
        config = stage_of({**target["endpoint"], "concurrency": 1}, humaneval={"max_items": 3})
        process = start_process(tmp_path, config)
        try:
            assert asked_all.wait(240), (tmp_path / "output.log").read_text()
            kept = tmp_path / "store" / "projects"
            for _ in range(2400):  # its first answer is in the store within a second or so
                if list(kept.rglob("calls/*.jsonl.zst")):
                    break
                try:
                    code = process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
                pytest.fail(f"the stage ended with {code}: {(tmp_path / 'output.log').read_text()}")
            else:
                pytest.fail(f"no answer in the store after 240 s: {(tmp_path / 'output.log').read_text()}")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(240)
            go_on.set()
        out, _ = run_stage(tmp_path, config, attempt=2)
    assert [row["fate"] for row in read_rows(out, "answers")] == ["right", "wrong", "wrong"]
    assert sum("has_close_elements" in asked for asked in target["asked"]) == 1


def test_a_target_that_is_down_ends_the_stage_to_be_tried_again(tmp_path: Path) -> None:
    down = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "none", "max_tries": 1}
    with pytest.raises(AbruzziError) as told:
        run_stage(tmp_path, stage_of(down, humaneval={"max_items": 2}))
    assert (told.value.code, told.value.status) == ("endpoint_unavailable", 503)
    context = context_of(tmp_path, stage_of(down, humaneval={"max_items": 2}))
    assert not list(list_manifests(context.store, context.spec.output_prefix))


@pytest.mark.parametrize(("suites", "hint"), [({"humanevil": {}}, "humaneval"), ({"humaneval@9": {}}, "humaneval@1")])
def test_an_unknown_suite_is_told_with_the_nearest(tmp_path: Path, suites: dict[str, Any], hint: str) -> None:
    with pytest.raises(AbruzziError) as told:
        run_stage(tmp_path, stage_of({"kind": "standin"}, **suites))
    assert hint in (told.value.hint or "")
