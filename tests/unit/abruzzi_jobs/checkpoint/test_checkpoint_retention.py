"""Retention never takes one of the newest two that verify, whatever the recipe says."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.checkpoint.retention import choose_removals


def manifest(step: int, epoch: int = 1) -> Manifest:
    return Manifest(
        kind=ArtifactKind.CHECKPOINT, name=f"step-{step:08d}", project_id="p", run_id="r", stage_id="s", attempt_id="a",
        epoch=epoch, step=step, created_at=datetime(2026, 1, 1, tzinfo=UTC), files=(),
    )  # fmt: skip


checkpoints = st.dictionaries(
    st.tuples(st.integers(0, 40), st.integers(1, 3)), st.booleans(), max_size=20
)  # (step, epoch): is it whole?


@given(checkpoints, st.integers(1, 5), st.sampled_from([None, 1, 7, 10]))
def test_the_newest_good_ones_and_milestones_stay(
    found: dict[tuple[int, int], bool], keep_last: int, keep_every: int | None
) -> None:
    pairs = [(f"{step}-{epoch}", manifest(step, epoch)) for step, epoch in found]
    removed = choose_removals(
        pairs,
        epoch=3,
        base_step=100,
        keep_last=keep_last,
        keep_every_steps=keep_every,
        verifies=lambda key, m: found[(m.step or 0, m.epoch)],
    )
    gone = {(m.step or 0, m.epoch) for _, m in removed}
    good_steps = sorted({step for (step, _), whole in found.items() if whole}, reverse=True)
    kept_steps = {step for (step, epoch), whole in found.items() if whole and (step, epoch) not in gone}
    assert set(good_steps[: max(2, keep_last)]) <= kept_steps
    assert not any(keep_every and step % keep_every == 0 for step, _ in gone)
    boundary = good_steps[max(2, keep_last) - 1] if len(good_steps) >= max(2, keep_last) else -1
    expected = {
        (step, epoch) for step, epoch in found if step < boundary and not (keep_every and step % keep_every == 0)
    }
    assert expected <= gone


def test_a_copy_of_the_same_step_is_no_second_checkpoint() -> None:
    pairs = [("a", manifest(10, 1)), ("b", manifest(20, 1)), ("c", manifest(20, 2)), ("d", manifest(30, 2))]
    removed = choose_removals(
        pairs, epoch=2, base_step=20, keep_last=2, keep_every_steps=None, verifies=lambda *_: True
    )
    assert [key for key, _ in removed] == ["a"]


def test_a_line_that_was_given_up_goes_once_the_new_one_has_two() -> None:
    given_up = [("a", manifest(30, 1)), ("b", manifest(40, 1))]
    line = [("c", manifest(20, 1)), ("d", manifest(25, 2))]

    def removed(found: list[tuple[str, Manifest]]) -> list[str]:
        chosen = choose_removals(
            found, epoch=2, base_step=20, keep_last=2, keep_every_steps=10, verifies=lambda *_: True
        )
        return [key for key, _ in chosen]

    assert removed(given_up + line[:1]) == []
    assert removed(given_up + line) == ["a", "b"]
