"""Verdicts about nodes: what each rests on, and what it never rests on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi.contracts.node import FaultKind, NodeFault, NodeState, NodeWord
from abruzzi.contracts.states import Cause
from abruzzi.nodes.records import NodeMemory, Quarantine
from abruzzi_operators.nodes.judge import (
    LOST_ALONE_SECONDS,
    LOST_SECONDS,
    NOT_READY_SECONDS,
    QUARANTINE_SECONDS,
    Signals,
    Verdict,
    Witness,
    judge,
)
from abruzzi_operators.nodes.signals import TAINT_DRAIN, TAINT_QUARANTINE, Report

NOW = datetime(2026, 11, 26, tzinfo=UTC)
WELL = Signals(Report(), 3.0, has_attempts=True)
SILENT = replace(WELL, lease_age=LOST_ALONE_SECONDS)
XID = (FaultKind.GPU, "GpuXidError: Xid 79")
DRAIN = NodeWord(reason="a fan", by="admin:ann", at=NOW)


def memory(**fields: object) -> NodeMemory:
    return NodeMemory(**{"name": "n", "state": NodeState.READY, "since": NOW, **fields})  # type: ignore[arg-type]


def verdict(signals: Signals, known: NodeMemory | None = None, *, others: int = 9, holds_off: bool = False) -> Verdict:
    """Among `others` that are well."""
    nodes = {"n": signals, **{f"other-{index}": WELL for index in range(others)}}
    return judge(nodes, {"n": known} if known else {}, NOW, holds_off=holds_off)["n"]


def fault(days_ago: float = 0.0) -> NodeFault:
    return NodeFault(at=NOW - timedelta(days=days_ago), kind=FaultKind.GPU, sentence="Xid 79", weight=1.0)


def test_a_node_that_answers_is_ready_and_known_to_be_well() -> None:
    found = verdict(WELL)
    assert (found.state, found.reason, found.marks, found.fault) == (NodeState.READY, "", frozenset(), None)
    assert found.word.is_well


@pytest.mark.parametrize(
    ("signals", "sentence"),
    [
        (replace(WELL, report=None), "Node n was removed from the cluster."),
        (replace(WELL, report=Report(dead="was taken out of service")), "Node n was taken out of service."),
        (replace(WELL, report=Report("Unknown", "Kubelet stopped posting node status.")), "Kubelet stopped posting"),
        (SILENT, "Its lease is 40 s old"),
        (replace(WELL, lease_age=LOST_SECONDS, witness=Witness(4.0, 1.0, 4.0)), "its ranks have said nothing for 4 s"),
    ],
)
def test_what_is_dead_is_lost_with_a_sentence_and_quarantined_should_it_come_back(
    signals: Signals, sentence: str
) -> None:
    found = verdict(signals)
    assert found.state is NodeState.LOST
    assert sentence in str(found.word.lost)
    assert found.word.is_well is False
    assert found.marks == {TAINT_QUARANTINE}
    assert found.fault is not None
    assert found.fault[0] is FaultKind.LOST


@pytest.mark.parametrize(
    "signals",
    [
        replace(WELL, lease_age=LOST_ALONE_SECONDS - 0.1),
        replace(WELL, lease_age=LOST_SECONDS - 0.1, witness=Witness(100.0, 1.0, 100.0)),
        replace(WELL, lease_age=LOST_SECONDS, witness=Witness(2.9, 1.0, 2.9)),
        replace(WELL, lease_age=LOST_SECONDS, witness=Witness(30.0, 20.0, 30.0)),
        replace(WELL, lease_age=LOST_SECONDS, witness=Witness(30.0, None, 30.0)),
        replace(WELL, lease_age=1000.0, witness=Witness(5.0, None, 9.0)),
        replace(WELL, lease_age=1000.0, witness=Witness(5.0, 3.0, 5.0)),
        replace(WELL, report=Report("Unknown", "Kubelet stopped."), witness=Witness(0.0, 1.0, 9.0)),
        replace(WELL, report=Report("False", "PLEG is not healthy"), not_ready_seconds=NOT_READY_SECONDS - 0.1),
    ],
)
def test_what_is_only_slow_or_still_heard_is_suspected_and_nothing_moves(signals: Signals) -> None:
    found = verdict(signals)
    assert (found.word.lost, found.word.leave, found.fault) == (None, None, None)
    assert found.state in (NodeState.READY, NodeState.SUSPECT)


def test_a_node_without_a_lease_is_judged_by_its_conditions_alone() -> None:
    assert verdict(replace(WELL, lease_age=None)).state is NodeState.READY
    assert verdict(replace(WELL, lease_age=None, report=Report("Unknown"))).state is NodeState.LOST


def test_many_that_are_silent_at_once_are_not_believed_and_one_of_two_is() -> None:
    nodes = {f"n{index}": SILENT if index < 3 else WELL for index in range(10)}
    found = judge(nodes, {}, NOW)
    assert {v.word.lost for v in found.values()} == {None}
    assert "3 of 10 nodes are so at once" in found["n0"].reason
    assert not found["n0"].word.is_well
    assert judge({"a": SILENT, "b": WELL}, {}, NOW)["a"].state is NodeState.LOST
    assert judge({"a": SILENT, "b": SILENT}, {}, NOW)["a"].state is NodeState.SUSPECT
    assert judge({"a": SILENT}, {}, NOW)["a"].state is NodeState.SUSPECT, "there is nowhere else to go"
    unready = replace(WELL, report=Report("False", "no runtime"), not_ready_seconds=60.0)
    assert {v.fault for v in judge(dict.fromkeys("abcde", unready), {}, NOW).values()} == {None}


def test_while_nothing_is_heard_silence_means_nothing_but_a_word_still_counts() -> None:
    assert verdict(SILENT, holds_off=True).word.lost is None
    assert verdict(replace(WELL, report=Report("Unknown")), holds_off=True).word.lost is None
    assert verdict(replace(WELL, report=Report(dead="was shut down")), holds_off=True).word.lost is not None


def test_a_sick_node_is_marked_first_and_left_once_the_mark_is_seen() -> None:
    sick = replace(WELL, report=Report(sick=(XID,)))
    first = verdict(sick)
    assert (first.state, first.marks, first.word.leave) == (NodeState.QUARANTINED, {TAINT_QUARANTINE}, None)
    marked = replace(sick, report=Report(sick=(XID,), marks=frozenset({TAINT_QUARANTINE})))
    leave = verdict(marked).word.leave
    assert leave is not None
    assert (leave.cause, leave.node) == (Cause.NODE, "n")
    assert leave.reason == "Node n has a fault: GpuXidError: Xid 79."


def test_a_kubelet_that_stays_not_ready_is_left_and_its_node_known_not_to_be_well() -> None:
    report = Report("False", "container runtime is down", marks=frozenset({TAINT_QUARANTINE}))
    found = verdict(replace(WELL, report=report, not_ready_seconds=NOT_READY_SECONDS))
    assert found.fault == (FaultKind.NOT_READY, "Its kubelet says NotReady: container runtime is down")
    assert found.word.leave is not None
    assert not found.word.is_well


def test_a_drain_is_marked_first_then_left_and_done_when_nothing_is_there() -> None:
    drained = memory(drain=DRAIN)
    first = verdict(WELL, drained)
    assert (first.state, first.marks, first.word.leave) == (NodeState.DRAINING, {TAINT_DRAIN}, None)
    marked = replace(WELL, report=Report(marks=frozenset({TAINT_DRAIN})))
    leave = verdict(marked, drained).word.leave
    assert leave is not None
    assert (leave.cause, leave.reason) == (Cause.PREEMPTION, "Node n is being drained: a fan.")
    assert verdict(replace(marked, has_attempts=False), drained).state is NodeState.DRAINED
    assert verdict(marked, memory()).marks == frozenset()


def test_a_node_that_is_taken_away_on_purpose_has_no_fault() -> None:
    leaving = replace(WELL, report=Report(leaving="the cluster autoscaler removes it"))
    leave = verdict(leaving).word.leave
    assert leave is not None
    assert leave.cause is Cause.PREEMPTION
    for gone in (
        replace(leaving, report=replace(leaving.report, ready="Unknown")),  # type: ignore[type-var]
        replace(WELL, report=None, has_attempts=False),
    ):
        found = verdict(gone)
        assert (found.state, found.fault, found.quarantine) == (NodeState.LOST, None, None)
    drained = verdict(replace(WELL, report=None), memory(drain=DRAIN))
    assert (drained.state, drained.fault) == (NodeState.LOST, None)


def test_a_quarantine_lasts_some_time_after_its_fault_and_a_lemons_until_it_is_returned() -> None:
    seen_at = NOW - timedelta(seconds=QUARANTINE_SECONDS - 1)
    known = memory(quarantine=Quarantine("Xid 79", seen_at, seen_at), faults=(fault(),))
    assert verdict(WELL, known).state is NodeState.QUARANTINED
    over = Quarantine("Xid 79", seen_at, seen_at - timedelta(seconds=2))
    healed = verdict(WELL, replace(known, quarantine=over))
    assert (healed.state, healed.marks, healed.quarantine) == (NodeState.READY, frozenset(), None)
    lemon = replace(known, quarantine=over, faults=(fault(),) * 3)
    found = verdict(WELL, lemon)
    assert found.state is NodeState.QUARANTINED
    assert "A lemon (score 3.0)" in found.reason
    assert verdict(WELL, replace(lemon, faults=(fault(8),) * 4)).state is NodeState.READY, "it faded"
    assert verdict(WELL, replace(lemon, forgiven_at=NOW, quarantine=None)).state is NodeState.READY


def test_a_cordon_by_others_is_told_and_left_alone() -> None:
    found = verdict(replace(WELL, report=Report(cordoned=True)))
    assert (found.state, found.marks) == (NodeState.READY, frozenset())
    assert "Cordoned by somebody" in found.reason


REPORTS = st.none() | st.builds(
    Report,
    ready=st.sampled_from(["True", "False", "Unknown"]),
    dead=st.none() | st.just("was shut down"),
    leaving=st.none() | st.just("the cloud takes it back"),
    sick=st.sampled_from([(), (XID,)]),
    doubts=st.sampled_from([(), ("little memory is left",)]),
    marks=st.frozensets(st.sampled_from([TAINT_DRAIN, TAINT_QUARANTINE])),
    cordoned=st.booleans(),
)
SECONDS = st.floats(0, 200)
SIGNALS = st.builds(
    Signals,
    REPORTS,
    st.none() | SECONDS,
    SECONDS,
    st.none() | st.builds(Witness, SECONDS, st.none() | SECONDS, st.none() | SECONDS),
    st.booleans(),
)
MEMORY = st.builds(
    NodeMemory,
    st.just("n"),
    st.sampled_from(NodeState),
    st.just(NOW),
    st.lists(st.builds(fault, st.floats(0, 30)), max_size=5).map(tuple),
    st.none()
    | st.builds(Quarantine, st.just("x"), st.just(NOW), SECONDS.map(lambda s: NOW - timedelta(seconds=5 * s))),
    st.none() | st.just(DRAIN),
)


@given(st.dictionaries(st.sampled_from("abcdefgh"), SIGNALS, min_size=1), st.dictionaries(st.sampled_from("abcdefgh"), MEMORY), st.booleans())  # fmt: skip
def test_whatever_is_seen_there_is_one_verdict_a_node_and_it_is_consistent(
    signals: dict[str, Signals], known: dict[str, NodeMemory], deaf: bool
) -> None:
    found = judge(signals, known, NOW, holds_off=deaf)
    assert set(found) == set(signals)
    assert found == judge(signals, known, NOW, holds_off=deaf), "pure"
    for name, one in found.items():
        mine = signals[name]
        assert (one.word.lost is not None) == (one.state is NodeState.LOST)
        assert (TAINT_QUARANTINE in one.marks) == (one.quarantine is not None)
        assert (TAINT_DRAIN in one.marks) == (name in known and known[name].drain is not None)
        assert not (one.word.is_well and (one.word.lost or deaf))
        assert one.fault is None or one.quarantine is not None
        by_word = mine.report is None or mine.report.dead is not None
        if deaf and not by_word:
            assert one.word.lost is None, "silence means nothing now"
        if one.word.leave is not None and mine.report is not None and not mine.report.leaving:
            assert mine.report.marks & one.marks, "it would come back to where it left"
        if one.state not in (NodeState.READY, NodeState.DRAINED) and one.state is not NodeState.DRAINING:
            assert one.reason
    silent = [
        name
        for name, one in found.items()
        if one.word.lost and signals[name].report is not None and signals[name].report.dead is None  # type: ignore[union-attr]
    ]
    assert len(silent) <= max(1, int(0.2 * len(signals)))
