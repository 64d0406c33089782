"""What goes wrong while a corpus is rephrased: endpoints that are down, slow or talk garbage, answers that are cut, a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from chat_server import GARBAGE, SLOW, Behaviour, chat_server, failed, said
from rephrase_lab import STANDIN, Lab, described, small_corpus

from abruzzi.client.stage.exits import Preempted
from abruzzi.contracts.stage import ENV_ATTEMPT_DIR, ENV_SPEC
from abruzzi_jobs.chat.failures import BudgetReached, EndpointFailed, EndpointUnavailable
from abruzzi_jobs.data.row_shards import read_rows

EASY = {"max_rejected": 1.0, "fidelity": {"min_novelty": 0.0}, "decontamination": {"against": ["cloze"]}}
WAIT_SECONDS = 240.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpus(tmp_path_factory.mktemp("lab") / "corpus", max_bytes=6000)


def at(url: str, *, max_tries: int = 2, timeout: float = 60.0, **config: object) -> dict:
    endpoint = {"kind": "openai", "base_url": url, "model": "m", "max_tries": max_tries, "timeout": timeout}
    return {"roles": {"rephraser": "far"}, "endpoint": {"far": endpoint}, "rephrase": {**EASY, **config}}


LASTING = {
    "down": (failed("503 Service Unavailable"), EndpointUnavailable, "Answers so far are kept"),
    "garbage": (GARBAGE, EndpointFailed, "abruzzi endpoints check"),
}


@pytest.mark.parametrize("fault", LASTING)
async def test_an_endpoint_that_never_answers_ends_the_stage_with_a_remedy(
    tmp_path: Path, corpus: Path, fault: str
) -> None:
    behaviour, error, remedy = LASTING[fault]
    lab = Lab(tmp_path, corpus)
    async with chat_server(behaviour) as server:
        with pytest.raises(error, match=remedy):
            await lab.run_async(at(server.url, max_tries=1))
    assert lab.manifests == []


async def test_slow_and_broken_answers_are_asked_for_again_and_what_they_say_is_checked(
    tmp_path: Path, corpus: Path
) -> None:
    async with chat_server(SLOW, failed("500 Internal Server Error"), said("It snows in Kathmandu.")) as server:
        out = await Lab(tmp_path, corpus).run_async(at(server.url, max_tries=20, timeout=2.0, retries=0))
    rows = list(read_rows(out, "rewrites"))
    assert rows
    assert all(row["fate"] != "kept" and row["generator"] == "real-1" for row in rows)
    assert described(out)["train_documents"] == len(rows), "the sources stay"


async def test_a_cut_answer_is_asked_for_again_then_rejected_as_truncated(tmp_path: Path, corpus: Path) -> None:
    body = said("Half a").body.replace(b'"finish_reason": "stop"', b'"finish_reason": "length"')
    async with chat_server(Behaviour(body)) as server:
        out = await Lab(tmp_path, corpus).run_async(at(server.url, retries=1, document_retries=5))
    rows = list(read_rows(out, "rewrites"))
    assert {row["fate"] for row in rows} == {"truncated"}
    assert {row["chunks"][0]["tries"] for row in rows} == {2}


async def test_empty_answers_and_refused_questions_are_counted_by_their_reason(tmp_path: Path, corpus: Path) -> None:
    async with chat_server(said("   "), failed("400 Bad Request", "too long"), said("  ")) as server:
        out = await Lab(tmp_path, corpus).run_async(at(server.url, retries=0))
    fates = [row["fate"] for row in read_rows(out, "rewrites")]
    assert fates.count("no_answer") == 1
    assert set(fates) == {"empty", "no_answer"}


def test_a_budget_that_is_used_up_ends_the_stage_and_answers_are_kept(tmp_path: Path, corpus: Path) -> None:
    lab, config = Lab(tmp_path, corpus), {**EASY, "part_tokens": 32}
    with pytest.raises(BudgetReached, match="of its 1 calls"):
        lab.run({**STANDIN, "roles": {"rephraser": {"endpoint": "rules", "budget_calls": 1}}, "rephrase": config})
    out = lab.run({**STANDIN, "rephrase": config}, attempt=2)
    whole = Lab(tmp_path / "whole", corpus).run({**STANDIN, "rephrase": config})
    calls = [described(o, "calls.json")["roles"]["rephraser"]["calls"] for o in (out, whole)]
    assert calls[0] == calls[1], "no question that was answered is asked again"


def test_what_a_budget_was_enough_for_is_committed_and_the_rest_stays_as_it_was(tmp_path: Path, corpus: Path) -> None:
    lab, config = Lab(tmp_path, corpus), {**EASY, "keep_raw": "rejected"}
    one_at_a_time = {"rules": {"kind": "standin", "concurrency": 1}}
    few = {"rephraser": {"endpoint": "rules", "budget_calls": 1}}
    out = lab.run({**STANDIN, "endpoint": one_at_a_time, "roles": few, "rephrase": config})
    told, rows = described(out)["rephrase"], list(read_rows(out, "rewrites"))
    assert 1 <= len(rows) <= 4, "those that were under way"
    assert told["budget"].startswith("Role 'rephraser' has used")
    assert told["documents"]["unasked"] > 0
    assert described(out)["train_documents"] == len(rows) + told["documents"]["unasked"]
    assert lab.manifests[-1].meta["rephrase"]["budget"] == told["budget"]
    whole = lab.run({**STANDIN, "rephrase": config}, attempt=2)
    assert "budget" not in described(whole)["rephrase"]
    assert described(whole)["rephrase"]["documents"]["rewritten"] > len(rows)


def test_a_stage_that_is_told_to_stop_ends_as_preempted_and_goes_on_later(tmp_path: Path, corpus: Path) -> None:
    lab = Lab(tmp_path, corpus)
    context = lab.context({**STANDIN, "rephrase": EASY})
    context.stop_requested.set()
    with pytest.raises(Preempted):
        lab.go(context)
    assert lab.manifests == []


def digests(out: Path) -> dict[str, bytes]:
    """Of everything but the calls, which tell when they were made."""
    return {p.name: p.read_bytes() for p in out.iterdir() if not p.name.startswith("calls")}


def test_kill_9_in_the_middle_and_the_next_attempt_makes_the_same_bytes(tmp_path: Path, corpus: Path) -> None:
    stage = {**STANDIN, "seed": 3, "rephrase": {**EASY, "rewrites_per_document": 2}}
    slow = {**stage, "endpoint": {"rules": {"kind": "standin", "requests_per_minute": 120}}}
    lab = Lab(tmp_path / "killed", corpus)
    context = lab.context(slow)
    environment = {
        **os.environ, ENV_SPEC: str(context.attempt_dir / "spec.json"), ENV_ATTEMPT_DIR: str(context.attempt_dir),
    }  # fmt: skip
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "abruzzi_jobs.entrypoints.main"], env=environment, stdout=log, stderr=log
    )
    try:
        until = time.monotonic() + WAIT_SECONDS
        segments = Path(lab.store.root) / context.spec.output_prefix / "calls"
        while not list(segments.glob("*.zst")):
            assert process.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < until, Path(log.name).read_text()
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        log.close()
    assert process.returncode == -signal.SIGKILL
    resumed = lab.run(stage, attempt=2)
    undisturbed = Lab(tmp_path / "whole", corpus).run(stage)
    assert digests(resumed) == digests(undisturbed)
    calls = [described(out, "calls.json")["roles"]["rephraser"]["calls"] for out in (resumed, undisturbed)]
    assert calls[0] == calls[1], "no question that was answered is asked again"


def test_parts_share_the_retries_of_their_document(tmp_path: Path, corpus: Path) -> None:
    faults = {"rules": {"kind": "standin", "faults": {"change_number": 1.0}}}
    config = {**EASY, "retries": 5, "document_retries": 2}
    out = Lab(tmp_path, corpus).run({**STANDIN, "endpoint": faults, "rephrase": config})
    tries = [sum(c["tries"] - 1 for c in row["chunks"]) for row in read_rows(out, "rewrites")]
    assert max(tries) == 2
