"""Whose turn it is on a machine: never more than it has, nobody passed over, and a sentence with numbers for who waits."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from abruzzi_operators.executors.turns import Claim, free_for, next_in, wait_reason


def claim(number: int, cpus: float = 1.0, *, holds: bool = False, project: str = "ours") -> Claim:
    return Claim(f"run-work-{number}", f"stage {number}", project, cpus, float(number), holds)


@given(
    st.lists(st.tuples(st.sampled_from([0.25, 0.5, 1.0, 2.0, 5.0]), st.integers(0, 5)), max_size=12),
    st.sampled_from([1.0, 2.0, 4.0]),
)
def test_whatever_comes_and_ends_no_more_runs_than_fits_and_all_run_in_their_order(
    asked: list[tuple[float, int]], cpus: float
) -> None:
    """Each asks for so much and runs for so many rounds; one comes a round."""
    alive: dict[str, Claim] = {}
    left: dict[str, int] = {}
    started: list[str] = []
    coming = [(claim(number, needs), rounds) for number, (needs, rounds) in enumerate(asked)]
    for round_number in range(200):
        if round_number < len(coming):
            new, rounds = coming[round_number]
            alive[new.attempt_id], left[new.attempt_id] = new, rounds
        for given_turn in next_in(list(alive.values()), cpus):
            alive[given_turn.attempt_id] = replace(given_turn, holds=True)
            started.append(given_turn.attempt_id)
        held = [c for c in alive.values() if c.holds]
        assert sum(c.cpus for c in held) <= cpus + 1e-6 or len(held) == 1, held
        for holder in held:
            left[holder.attempt_id] -= 1
            if left[holder.attempt_id] < 0:
                del alive[holder.attempt_id]
    assert not alive, "each has had its turn"
    assert started == [c.attempt_id for c, _ in coming], "in the order in which they came"


def test_a_large_one_runs_alone_and_those_behind_it_wait() -> None:
    large, small = claim(1, 8.0), claim(2)
    assert next_in([claim(0, holds=True), large, small], 2.0) == []
    assert next_in([large, small], 2.0) == [large]
    assert next_in([replace(large, holds=True), small], 2.0) == []


def test_who_waits_is_told_for_whom_and_how_many_are_ahead() -> None:
    holders = [
        claim(1, holds=True),
        claim(2, holds=True, project="theirs"),
        claim(3, 0.5, holds=True, project="theirs"),
    ]
    first, second = claim(4), claim(5)
    assert wait_reason(first, [*holders, first, second], 2.5) == (
        "It waits for processors: 2.5 of 2.5 are in use by stage 1 and 2 stages of other projects. It asks for 1."
    )
    assert wait_reason(second, [*holders, first, second], 2.5).endswith("It asks for 1, and 1 is ahead of it.")
    many = [claim(n, 0.5, holds=True) for n in range(6)]
    assert "in use by stage 0, stage 1, stage 2 and 3 others." in wait_reason(first, [*many, first], 3.0)


def test_a_stage_that_would_ask_anew_has_what_others_neither_hold_nor_wait_for() -> None:
    held, waits, later = claim(1, holds=True), claim(2, 2.0), claim(3)
    assert free_for(waits, [held, waits, later], 4.0) == 3.0, "whoever came later is behind it"
    assert free_for(later, [held, waits, later], 4.0) == 1.0
    assert free_for(held, [held, waits, later], 4.0) == 1.0, "it would ask behind all that wait"
    assert free_for(held, [held], 4.0) == 4.0
