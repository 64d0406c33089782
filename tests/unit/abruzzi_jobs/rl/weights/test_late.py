"""A replica that joins late takes the weights from those who have them, and nobody else notices (paper 3.3.3)."""

import pytest
from weights_lab import SECONDS, Parameters, heard, keeper, meeting_place, members, newcomer, sums, weights

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.weights.group import WeightUpdateFailed
from abruzzi_jobs.rl.weights.late import PullServer, pull
from abruzzi_jobs.rl.weights.registered import Registered


@pytest.mark.parametrize("shares", [1, 2])
def test_a_newcomer_gets_the_registered_version_from_all_who_have_a_share(shares):
    with members([*[keeper] * shares, newcomer], {"shares": shares}) as pipes:
        for pipe in pipes[:shares]:
            assert heard(pipe) == "listening"
        pipes[-1].send("go")
        report, version, found = heard(pipes[-1])
    assert (version, found) == (3, sums(weights(3)))
    assert report.loaded


def test_a_newcomer_that_dies_on_the_way_disturbs_nobody_and_the_next_one_gets_its_weights():
    plan = {"shares": 1, "kill": 1, "at": 2}
    with members([keeper, newcomer, newcomer], plan) as pipes:
        assert heard(pipes[0]) == "listening"
        pipes[1].send("go")
        with pytest.raises(EOFError):
            heard(pipes[1])
        pipes[2].send("go")
        _, version, found = heard(pipes[2])
    assert (version, found) == (3, sums(weights(3)))


def test_an_engine_serves_while_a_newcomer_pulls_from_its_trainer():
    """The engine answers between any two loads of the newcomer; nothing is asked of it."""
    served = []

    class Newcomer(Parameters):
        def load_bucket(self, tensors):
            served.append((engine.version, engine.sums() == sums(weights(1))))
            super().load_bucket(tensors)

    engine, replaced = Parameters(weights(1), version=1), Newcomer(weights(0))
    registered = Registered(1, weights(1), copy=True)
    with meeting_place(1) as (address,), PullServer(address, lambda: registered, deadline_seconds=SECONDS):
        report = pull([address], replaced, bucket_bytes=4096, deadline_seconds=SECONDS)
    assert report.buckets > 2
    assert served
    assert set(served) == {(1, True)}
    assert engine.loads == 0
    assert replaced.sums() == engine.sums()


def test_over_tcp_a_newcomer_pulls_by_gloo():
    registered, sink = Registered(2, weights(2), copy=True), Parameters(weights(0))
    with PullServer("127.0.0.1:0", lambda: registered, token="t", deadline_seconds=SECONDS) as server:
        report = pull([server.address], sink, token="t", deadline_seconds=SECONDS)
    assert report.transport == "gloo"
    assert (sink.version, sink.sums()) == (2, sums(weights(2)))


def test_without_the_token_or_a_copy_or_anybody_there_the_newcomer_is_told():
    sink = Parameters(weights(0))
    borrowed = Registered(2, weights(2), copy=False)
    with meeting_place(2) as (address, nowhere):
        with PullServer(address, lambda: borrowed, token="right", deadline_seconds=SECONDS):
            with pytest.raises(AbruzziError, match="is the token the same"):
                pull([address], sink, token="wrong", deadline_seconds=SECONDS)
            with pytest.raises(AbruzziError, match="no copy of its own"):
                pull([address], sink, token="right", deadline_seconds=SECONDS)
        with pytest.raises(AbruzziError, match="No weights from"):
            pull([nowhere], sink, deadline_seconds=SECONDS)
    assert sink.version == 0


def test_a_newcomer_that_has_a_newer_version_refuses_the_older():
    registered, sink = Registered(2, weights(2), copy=True), Parameters(weights(5), version=5)
    with (
        meeting_place(1) as (address,),
        PullServer(address, lambda: registered, deadline_seconds=SECONDS),
        pytest.raises(WeightUpdateFailed, match="version 2 is older than 5"),
    ):
        pull([address], sink, deadline_seconds=SECONDS)
    assert sink.version == 5
