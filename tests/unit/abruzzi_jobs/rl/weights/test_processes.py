"""Trainer and engines in processes of their own, and one of them killed at any bucket (reference/rl.md 8, invariant 7)."""

import pytest
from weights_lab import SECONDS, heard, meeting_place, members, replica, sums, trainer, weights

from abruzzi_jobs.rl.weights.plan import Parameter, make_plan

PLAN = {"deadline": SECONDS, "shares": 1}
BUCKETS = len(make_plan([Parameter.of(n, t, 0) for n, t in weights(2).items()], 4096).buckets)


def tell(pipes, word):
    for pipe in pipes:
        pipe.send(word)


@pytest.mark.parametrize(("transport", "shares"), [("in place", 2), ("ring", 1), ("ring", 2), ("gloo", 1), ("gloo", 2)])
def test_all_engines_serve_each_version_with_equal_checksums(transport, shares):
    targets = [*[trainer] * shares, replica, replica]
    with members(targets, transport, PLAN | {"shares": shares}) as pipes:
        for version in (1, 2, 3):
            tell(pipes, version)
            reports = [heard(pipe) for pipe in pipes]
            assert [r[1] for r in reports] == [""] * len(targets)
            for report in reports[shares:]:
                assert report[3:] == (version, sums(weights(version)))
                assert report[0].plan_cached == (version > 1)


def after_a_kill(transport, killed, at):
    """Faults of the survivors, once version 1 is served and `killed` dies at a bucket of version 2: (rank, what failed, seconds, what is served)."""
    plan = PLAN | {"kill": killed, "at": at, "pieces": True}
    with members([trainer, replica, replica], transport, plan) as pipes:
        tell(pipes, 1)
        assert [heard(pipe)[1] for pipe in pipes] == ["", "", ""]
        tell(pipes, 2)
        with pytest.raises(EOFError):
            heard(pipes[killed])
        return [(rank, *heard(pipe)[1:]) for rank, pipe in enumerate(pipes) if rank != killed]


def is_old_version_with_an_error(survivor, killed):
    rank, failure, seconds, *served = survivor
    says = "The weights were not updated" in failure and f"rank {killed}" in failure and seconds < SECONDS / 2
    return says and (rank == 0 or served == [1, sums(weights(1))])


@pytest.mark.parametrize(
    ("transport", "killed", "at"),
    [("in place", 0, 0), ("in place", 2, 3), ("ring", 0, 0), ("ring", 2, BUCKETS - 1), ("gloo", 2, 1), ("gloo", 0, 2)],
)
def test_a_member_killed_at_a_bucket_leaves_the_old_version_everywhere(transport, killed, at):
    for survivor in after_a_kill(transport, killed, at):
        assert is_old_version_with_an_error(survivor, killed), survivor


@pytest.mark.prove
@pytest.mark.parametrize("transport", ["in place", "ring", "gloo"])
@pytest.mark.parametrize("killed", [0, 2])
def test_a_member_killed_at_any_bucket_leaves_the_old_version_everywhere(transport, killed):
    for at in range(BUCKETS):
        for survivor in after_a_kill(transport, killed, at):
            assert is_old_version_with_an_error(survivor, killed), (at, survivor)


@pytest.mark.parametrize("transport", ["in place", "ring"])
def test_a_bit_that_flips_on_the_way_is_found_by_all_readers_and_the_old_version_stays(transport):
    with members([trainer, replica, replica], transport, PLAN | {"flip": True}) as pipes:
        tell(pipes, 1)
        assert [heard(pipe)[1] for pipe in pipes] == ["", "", ""]
        tell(pipes, 2)
        assert "checksums of 1 of 17 parameters differ, first embed.weight" in heard(pipes[0])[1]
        for pipe in pipes[1:]:
            _, failure, _, *served = heard(pipe)
            assert "embed.weight" in failure
            assert served == [1, sums(weights(1))]


def test_a_reader_that_cannot_map_the_trainers_memory_reads_from_a_ring_beside_one_that_can():
    with members([trainer, trainer, replica, replica], "in place", PLAN | {"shares": 2, "unreached": 3}) as pipes:
        for version in (1, 2):
            tell(pipes, version)
            for report in [heard(pipe) for pipe in pipes][2:]:
                assert report[3:] == (version, sums(weights(version)))


def test_a_member_that_hangs_is_named_to_all_at_the_deadline():
    plan = PLAN | {"hang": 2, "at": 3, "pieces": True}
    with members([trainer, replica, replica], "in place", plan) as pipes:
        tell(pipes, 2)
        _, first, _ = heard(pipes[0])
        _, second, _, *served = heard(pipes[1])
    for failure in (first, second):
        assert "rank 2, reload of bucket 3: not done after" in failure
    assert served == [0, sums(weights(0))]


def test_after_a_failure_the_survivors_form_a_new_group_and_update():
    plan = PLAN | {"kill": 2, "at": 1, "pieces": True}
    with members([trainer, replica, replica], "in place", plan) as pipes, meeting_place(2) as addresses:
        tell(pipes, 1)
        assert [heard(pipe)[1] for pipe in pipes] == ["", "", ""]
        tell(pipes, 2)
        assert all("not updated" in heard(pipe)[1] for pipe in pipes[:2])
        tell(pipes[:2], addresses)
        tell(pipes[:2], 2)
        again, served = heard(pipes[0]), heard(pipes[1])
    assert again[1] == ""
    assert served[3:] == (2, sums(weights(2)))
