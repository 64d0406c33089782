"""The runner: what is finished is kept, nothing is asked twice, and nothing is scored 0 because of infrastructure."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evals_target import JudgedSums, Sums, Target, response

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, ItemStatus, SuiteConfig, SuiteSummary
from abruzzi.store import DirectoryStore
from abruzzi_jobs.chat.failures import CallRejected, EndpointUnavailable
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.evals.runner.report import suites_markdown
from abruzzi_jobs.evals.runner.run import Asked, run_suite, summarize

Rows = list[dict[str, Any]]


def run(store: Path, target: Target, suite: Sums | None = None, **roles: Any) -> Asked:
    return run_in(DirectoryStore(store), target, suite, **roles)


def run_in(store: DirectoryStore, target: Target, suite: Sums | None = None, **roles: Any) -> Asked:
    suite = suite or Sums(Sums.defaults)
    return asyncio.run(run_suite(suite, {"target": target, **roles}, store=store, prefix="out/", ahead=4))


def outcome(asked: Asked) -> tuple[SuiteSummary, Rows]:
    rows: Rows = []
    return summarize(asked, foreign=None, take=rows.append, score=lambda item, score: None), rows


def test_answers_are_scored_and_counted_with_intervals(tmp_path: Path) -> None:
    wrong = Target(lambda prompt, times: "five" if prompt.startswith(("1 ", "2 ")) else None)
    summary, rows = outcome(run(tmp_path, wrong))
    assert summary.score is not None
    assert (summary.items, summary.score.value, summary.missing) == (10, 0.8, 0)
    assert summary.score.low is not None
    assert summary.score.low < 0.8 < (summary.score.high or 0)
    assert {name: figure.value for name, figure in summary.subtasks.items()} == {"even": 0.8, "odd": 0.8}
    assert (summary.prompt_tokens, summary.completion_tokens) == (70, 30)
    assert summary.subtask_tokens == {"even": 7, "odd": 7}
    assert [row["fate"] for row in rows] == ["right", "wrong", "wrong", *["right"] * 7]
    assert rows[1]["messages"][-1] == {"role": "assistant", "content": "five"}


def test_what_a_suite_left_out_stands_in_its_summary_and_its_report(tmp_path: Path) -> None:
    suite = Sums(Sums.defaults)
    suite.left_out = ("products (no table)",)
    summary, _ = outcome(run(tmp_path, Target(), suite))
    assert summary.left_out == ("products (no table)",)
    told = suites_markdown([summary], {"model": "m"}).splitlines()
    assert "sums@1: left out, as it cannot be asked here: products (no table)." in told


def test_a_target_that_goes_down_half_way_costs_what_was_under_way_and_nothing_else(tmp_path: Path) -> None:
    down = EndpointUnavailable("own", "no answer")
    with pytest.raises(EndpointUnavailable):
        run(tmp_path, Target(lambda prompt, times: down if prompt.startswith("6 ") else None))
    back = Target()
    summary, rows = outcome(run(tmp_path, back))
    assert set(back.asked) == {f"{n} + {n} =" for n in range(6, 10)}
    assert (summary.missing, summary.score and summary.score.value) == (0, 1.0)
    assert [row["item"] for row in rows] == [f"sum-{n}" for n in range(10)]


def test_what_is_finished_is_asked_no_second_time(tmp_path: Path) -> None:
    run(tmp_path, Target())
    again = Target()
    summary, _ = outcome(run(tmp_path, again))
    assert not again.asked
    assert summary.items == 10


def test_an_item_that_infrastructure_failed_has_no_score_and_is_asked_again(tmp_path: Path) -> None:
    def flaky(fails: int) -> Callable[[str, int], Any]:
        return lambda prompt, times: (
            CallRejected("unavailable", "nobody there") if prompt.startswith("3 ") and times < fails else None
        )

    once = Target(flaky(1))
    assert outcome(run(tmp_path / "once", once))[0].missing == 0
    assert (once.asked["3 + 3 ="], once.asked["4 + 4 ="]) == (2, 1)
    for_long = Target(flaky(2))
    summary, rows = outcome(run(tmp_path / "long", for_long))
    assert (summary.missing, summary.statuses[ItemStatus.INFRASTRUCTURE]) == (1, 1)
    assert summary.score is not None
    assert (summary.score.value, summary.score.items) == (1.0, 9)
    assert (rows[3]["score"], rows[3]["fate"]) == (None, "infrastructure")
    healed = Target()
    summary, rows = outcome(run(tmp_path / "long", healed))
    assert dict(healed.asked) == {"3 + 3 =": 1}
    assert (summary.missing, rows[3]["score"]) == (0, 1.0)


def test_where_nothing_can_be_scored_the_suite_is_tried_again_instead_of_scored_zero(tmp_path: Path) -> None:
    asked = run(tmp_path, Target(lambda prompt, times: CallRejected("timeout", "too slow")))
    with pytest.raises(AbruzziError) as told:
        outcome(asked)
    assert (told.value.code, told.value.status) == ("no_scores", 503)


def test_a_scorer_that_breaks_is_infrastructure(tmp_path: Path) -> None:
    class Broken(Sums):
        async def score(self, item: Item, *rest: Any) -> Any:
            if item.id == "sum-2":
                raise OSError(28, "No space left on device")
            return await super().score(item, *rest)

    summary, rows = outcome(run(tmp_path, Target(), Broken(Sums.defaults)))
    assert (summary.missing, summary.score and summary.score.value) == (1, 1.0)
    assert "No space left" in rows[2]["reason"]


def test_a_judge_that_talks_nonsense_is_no_verdict(tmp_path: Path) -> None:
    judge = Target(lambda prompt, times: "yes" if prompt == "Is 4 right?" else "🍌" * 30)
    summary, rows = outcome(run(tmp_path, Target(), JudgedSums(Sums.defaults), judge=judge))
    assert summary.statuses == {ItemStatus.OK: 1, ItemStatus.GRADER_ERROR: 9}
    assert (summary.missing, summary.score and summary.score.value) == (9, 1.0)
    assert rows[0]["reason"].startswith("the judge said '🍌")


def test_an_answer_of_ten_megabytes_neither_breaks_the_others_nor_a_page(tmp_path: Path) -> None:
    summary, rows = outcome(run(tmp_path, Target(lambda p, t: "x" * 10_000_000 if p.startswith("5 ") else None)))
    assert summary.score is not None
    assert (summary.score.value, summary.missing) == (0.9, 0)
    assert len(json.dumps(rows[5])) < 300_000
    too_long = Target(lambda p, t: CallRejected("too_long", "longer than 8,388,608 bytes") if p[0] == "5" else None)
    summary, rows = outcome(run(tmp_path / "refused", too_long))
    assert (rows[5]["status"], rows[5]["score"], summary.missing) == ("target_error", None, 1)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "1\u200b8", "‮18", "１８", "a\u0301" * 5000, "</script>"])
def test_unicode_tricks_are_kept_as_they_are_and_score_nothing(tmp_path: Path, text: str) -> None:
    summary, rows = outcome(run(tmp_path, Target(lambda p, t: text if p.startswith("9 ") else None)))
    assert summary.score is not None
    assert summary.score.value == 0.9
    assert rows[9]["messages"][-1]["content"] == text.encode("utf-8", "replace").decode()


def test_a_cut_answer_is_told_apart_and_scored_as_far_as_it_goes(tmp_path: Path) -> None:
    cut = Target(
        lambda p, t: response("4", "length") if p.startswith("2 ") else response("…", "length") if p[0] == "3" else None
    )
    summary, rows = outcome(run(tmp_path, cut))
    assert (summary.truncation_rate, summary.statuses[ItemStatus.TRUNCATED]) == (0.2, 2)
    assert [rows[2]["score"], rows[3]["score"]] == [1.0, 0.0]


def test_several_answers_give_average_and_pass_at_k(tmp_path: Path) -> None:
    suite = Sums(SuiteConfig(samples=4).over(Sums.defaults))
    summary, rows = outcome(run(tmp_path, Target(lambda p, times: None if times == 0 else "?"), suite))
    assert summary.score is not None
    assert (summary.score.value, summary.answers, len({row["id"] for row in rows})) == (0.25, 40, 40)
    assert {k: figure.value for k, figure in summary.pass_at.items()} == {1: 0.25, 2: 0.5, 4: 1.0}


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steady, rows = outcome(run(tmp_path / "steady", Target()))
    jumps = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    jumped, same = outcome(run(tmp_path / "jumping", Target()))
    assert (jumped, same) == (steady, rows)


def test_items_of_one_id_are_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    class Twice(Sums):
        def items(self) -> Any:
            yield from super().items()
            yield Item(id="sum-3", prompt="3 + 3 =", gold="6")

    target = Target()
    with pytest.raises(AbruzziError) as told:
        run(tmp_path, target, Twice(Sums.defaults))
    assert "items 4 and 11 have the same id 'sum-3'" in told.value.message
    assert not target.asked


def test_a_suite_without_items_is_refused(tmp_path: Path) -> None:
    class Empty(Sums):
        number = 0

    with pytest.raises(AbruzziError) as told:
        run(tmp_path, Target(), Empty(Sums.defaults))
    assert told.value.code == "bad_data"


def test_other_settings_and_another_target_are_asked_anew(tmp_path: Path) -> None:
    run(tmp_path, Target())
    warmer = Target()
    run(tmp_path, warmer, Sums(SuiteConfig(temperature=0.7).over(Sums.defaults)))
    assert len(warmer.asked) == 10


def test_a_damaged_part_is_scored_again(tmp_path: Path) -> None:
    run(tmp_path, Target())
    (part,) = tmp_path.rglob("part-*.jsonl.zst")
    part.write_bytes(part.read_bytes()[:-9])
    again = Target()
    summary, _ = outcome(run(tmp_path, again))
    assert len(again.asked) == 10
    assert summary.missing == 0


def test_a_store_that_is_away_costs_no_answer(tmp_path: Path) -> None:
    class Away(DirectoryStore):
        def get(self, key: str) -> bytes:
            raise AbruzziError("store_away", f"The object store does not answer, at {key!r}.", status=503)

    run(tmp_path, Target())
    with pytest.raises(AbruzziError) as told:
        run_in(Away(tmp_path), Target())
    assert told.value.code == "store_away"
    again = Target()
    run(tmp_path, again)
    assert not again.asked


def test_a_write_whose_answer_was_lost_is_the_own_one_and_another_attempts_is_not(tmp_path: Path) -> None:
    class Lost(DirectoryStore):
        def put_if_absent(self, key: str, content: bytes | Path) -> bool:
            super().put_if_absent(key, content)
            return False

    class Anothers(Lost):
        def put_if_absent(self, key: str, content: bytes | Path) -> bool:
            return super().put_if_absent(key, b"another attempt's")

    summary, _ = outcome(run_in(Lost(tmp_path / "lost"), Target()))
    assert summary.score is not None
    assert (summary.score.value, summary.missing) == (1.0, 0)
    with pytest.raises(AbruzziError) as told:
        run_in(Anothers(tmp_path / "anothers"), Target())
    assert told.value.code == "conflict"


def test_cut_answers_that_nobody_could_score_count_neither_above_nor_below(tmp_path: Path) -> None:
    class Broken(Sums):
        async def score(self, item: Item, *rest: Any) -> Any:
            if item.id != "sum-2":
                raise OSError(28, "No space left on device")
            return await super().score(item, *rest)

    summary, _ = outcome(run(tmp_path, Target(lambda prompt, times: response("4", "length")), Broken(Sums.defaults)))
    assert (summary.statuses, summary.truncation_rate) == ({ItemStatus.TRUNCATED: 1, ItemStatus.INFRASTRUCTURE: 9}, 1.0)


def test_what_another_role_refuses_is_not_the_targets_error(tmp_path: Path) -> None:
    class Played(Sums):
        asks = ("user",)

        async def play(self, item: Item, ask: Any, helpers: Any) -> Any:
            await helpers["user"].complete(ChatRequest(messages=self.messages(item)))
            return await super().play(item, ask, helpers)

    def refuses(prompt: str, times: int) -> Any:
        return CallRejected("refused", "I would rather not") if prompt.startswith("3 ") else None

    suite = Played(Sums.defaults)
    _, rows = outcome(run(tmp_path / "user", Target(), suite, user=Target(refuses)))
    assert [rows[3]["status"], rows[4]["status"]] == ["infrastructure", "ok"]
    _, rows = outcome(run(tmp_path / "target", Target(refuses), suite, user=Target()))
    assert [rows[3]["status"], rows[4]["status"]] == ["target_error", "ok"]


def test_two_evaluations_of_one_checkpoint_at_once_do_not_meet(tmp_path: Path) -> None:
    store, targets = DirectoryStore(tmp_path), (Target(), Target(lambda p, t: "?"))

    async def both() -> list[Asked]:
        suite = Sums(Sums.defaults)
        runs = [
            run_suite(suite, {"target": t}, store=store, prefix=f"runs/{n}/", identity="sha256:1", ahead=4)
            for n, t in enumerate(targets)
        ]
        return list(await asyncio.gather(*runs))

    first, second = asyncio.run(both())
    assert [outcome(asked)[0].score.value for asked in (first, second)] == [1.0, 0.0]
