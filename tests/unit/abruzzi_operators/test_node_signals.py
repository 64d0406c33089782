"""What a Node object says, what we put on it, and since when silence means something."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi.contracts.node import FaultKind
from abruzzi_operators.nodes.listening import PAUSE_SECONDS, REJOIN_SECONDS, Listening
from abruzzi_operators.nodes.marks import ANNOTATION_CORDONED, mark_patch
from abruzzi_operators.nodes.signals import OUR_TAINTS, TAINT_DRAIN, TAINT_QUARANTINE, read_facts, read_report
from abruzzi_operators.nodes.witnesses import Beat, Witnesses


def condition(kind: str, status: str = "True", message: str = "", reason: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "message": message, "reason": reason, "lastTransitionTime": "2026-11-26T00:00:00Z"}  # fmt: skip


def node(*conditions: dict[str, Any], taints: tuple[str, ...] = (), **spec: Any) -> dict[str, Any]:
    found = [condition("Ready"), *conditions] if not any(c["type"] == "Ready" for c in conditions) else list(conditions)
    resources = {"cpu": "192", "memory": "2Ti", "nvidia.com/gpu": "8"}
    return {
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "labels": {"rack": "r1", "other": "x"}},
        "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints], **spec},
        "status": {"conditions": found, "capacity": resources, "allocatable": dict(resources)},
    }


@pytest.mark.parametrize(
    ("kind", "status", "message", "found"),
    [
        ("GpuXidError", "True", "NVRM: Xid (PCI:0000:cb:00): 79, GPU has fallen off the bus", FaultKind.GPU),
        ("SysLogsXIDError", "True", "ErrorCode:95 uncontained ECC error", FaultKind.GPU),
        ("GPUMissing", "True", "7 of 8", FaultKind.GPU),
        ("NVLinkStatusInactive", "True", "link 3", FaultKind.GPU),
        ("AcceleratedHardwareReady", "False", "NvidiaDoubleBitError", FaultKind.GPU),
        ("UnhealthyNvidiaDevicePlugin", "True", "", FaultKind.GPU),
        ("NebiusGPUError", "True", "", FaultKind.GPU),
        ("KernelDeadlock", "True", "task docker blocked", FaultKind.KERNEL),
        ("ReadonlyFilesystem", "True", "remounted", FaultKind.DISK),
        ("NebiusBootDiskIOError", "True", "", FaultKind.DISK),
    ],
)
def test_conditions_of_problem_detectors_speak_against_a_node(
    kind: str, status: str, message: str, found: FaultKind
) -> None:
    report = read_report(node(condition(kind, status, message)))
    assert [fault for fault, _ in report.sick] == [found]
    assert kind in report.sick[0][1]
    opposite = "False" if status == "True" else "True"
    assert read_report(node(condition(kind, opposite, message))).sick == ()
    assert read_report(node(condition(kind, "Unknown", message))).sick == ()


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        ("GpuXidError", "True", "NVRM: Xid (PCI:0000:cb:00): 13, Graphics SM Warp Exception"),
        ("GpuXidError", "True", "NVRM: Xid (PCI:0000:cb:00): 31, pid=1 and NVRM: Xid (PCI:0000:cb:00): 43, pid=1"),
        ("FrequentKubeletRestart", "True", "5 times"),
        ("ContainerRuntimeReady", "False", "restarting"),
        ("MemoryPressure", "True", "little"),
    ],
)
def test_a_programs_own_mistakes_and_pressure_are_doubts_and_no_faults(kind: str, status: str, message: str) -> None:
    report = read_report(node(condition(kind, status, message)))
    assert report.sick == ()
    assert kind in report.doubts[0]


def test_a_hardware_xid_beside_an_applications_is_a_fault() -> None:
    message = "NVRM: Xid (PCI:0000:cb:00): 43, pid=1; NVRM: Xid (PCI:0000:cb:00): 79, gone"
    assert read_report(node(condition("GpuXidError", "True", message))).sick


def test_taints_say_dead_leaving_unreachable_or_doubtful() -> None:
    assert read_report(node(taints=("node.kubernetes.io/out-of-service",))).dead == "was taken out of service"
    assert read_report(node(taints=("karpenter.sh/disrupted",))).leaving == "Karpenter removes it"
    assert read_report(node(taints=("node.kubernetes.io/unreachable",))).ready == "Unknown"
    assert read_report(node(taints=("node.kubernetes.io/disk-pressure",))).doubts == ("little disk is left",)
    ours = read_report(node(taints=(TAINT_DRAIN, "nvidia.com/gpu"), unschedulable=True))
    assert (ours.marks, ours.cordoned, ours.dead, ours.leaving) == ({TAINT_DRAIN}, True, None, None)
    assert read_report({"metadata": {"name": "new"}}).ready == "Unknown"


def test_what_people_are_told_of_a_node() -> None:
    thing = node(condition("GPUMissing", "True", "7 of 8"), taints=(TAINT_QUARANTINE, "nvidia.com/gpu"))
    thing["status"]["allocatable"]["nvidia.com/gpu"] = "7"
    facts = read_facts(thing, ("rack", "block"), gpus_used=4)
    assert (facts.cpus, facts.memory, facts.topology) == (192.0, 2 << 40, {"rack": "r1"})
    assert (facts.gpus.total, facts.gpus.healthy, facts.gpus.used) == (8, 7, 4)
    assert [(c.type, c.is_bad) for c in facts.conditions] == [("Ready", False), ("GPUMissing", True)]
    assert [(t.key, t.is_ours) for t in facts.taints] == [(TAINT_QUARANTINE, True), ("nvidia.com/gpu", False)]
    assert "1 of its 8 GPUs are not offered" in read_report(thing).doubts


def applied(thing: dict[str, Any], patch: dict[str, Any] | None) -> dict[str, Any]:
    if patch is None:
        return thing
    spec = {**thing["spec"], **patch["spec"]}
    annotations = {**thing["metadata"].get("annotations", {}), **patch["metadata"].get("annotations", {})}
    kept = {key: value for key, value in annotations.items() if value is not None}
    return {
        **thing,
        "metadata": {**thing["metadata"], "annotations": kept},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }


MARKS = st.frozensets(st.sampled_from(OUR_TAINTS))


@given(st.lists(MARKS, min_size=1, max_size=5), st.booleans())
def test_however_often_it_is_marked_what_others_put_on_a_node_stays_and_a_return_leaves_it_as_it_was(
    steps: list[frozenset[str]], cordoned: bool
) -> None:
    before = node(taints=("nvidia.com/gpu", "node.kubernetes.io/not-ready"))
    before["spec"] |= {"unschedulable": True} if cordoned else {}
    thing = before
    for marks in [*steps, frozenset[str]()]:
        patch = mark_patch(thing, marks)
        assert patch is None or patch["metadata"]["resourceVersion"] == "7"
        thing = applied(thing, patch)
        assert mark_patch(thing, marks) is None, "nothing is left to do"
        report = read_report(thing)
        assert report.marks == marks
        assert report.cordoned == (cordoned or bool(marks))
    assert thing["spec"] == before["spec"]
    assert not thing["metadata"].get("annotations")


def test_a_cordon_that_somebody_lifted_meanwhile_is_set_again_and_ours_is_known_by_its_annotation() -> None:
    marked = applied(node(), mark_patch(node(), {TAINT_DRAIN}))
    assert marked["metadata"]["annotations"] == {ANNOTATION_CORDONED: "true"}
    del marked["spec"]["unschedulable"]
    patch = mark_patch(marked, {TAINT_DRAIN})
    assert patch is not None
    assert patch["spec"] == {"unschedulable": True}


class Listener:
    """Listens for `node` and `other`, once a second."""

    def __init__(self) -> None:
        self.now, self.count = 0.0, 0
        self.listening = Listening(0.0)

    def second(self, *, hears: bool = True, renews: bool = False, seconds: float = 1.0) -> float | None:
        self.now += seconds
        self.count += renews
        self.listening.look(self.now, hears=hears)
        if hears:
            self.listening.renewals({"node": str(self.count)}, self.now)
        return self.listening.lease_age("node")

    def seconds(self, number: int) -> float | None:
        return [self.second() for _ in range(number)][-1]


def test_at_the_start_nobody_is_old_and_silence_counts_only_after_a_while() -> None:
    listener = Listener()
    assert listener.second() == 0.0
    assert listener.listening.holds_off
    assert listener.seconds(int(REJOIN_SECONDS)) == 0.0
    assert not listener.listening.holds_off
    assert listener.seconds(10) == 10.0
    assert listener.second(renews=True) == 0.0


def test_after_we_were_stopped_ages_begin_anew() -> None:
    listener = Listener()
    listener.seconds(60)
    assert listener.second(seconds=PAUSE_SECONDS + 60) == 0.0
    assert listener.seconds(5) == 5.0


def test_while_the_apiserver_is_away_nobody_ages_and_afterwards_kubelets_have_time_to_come_back() -> None:
    listener = Listener()
    listener.seconds(40)
    for _ in range(60):
        listener.second(hears=False)
        assert listener.listening.holds_off
    assert listener.second() == 0.0
    assert listener.seconds(int(REJOIN_SECONDS)) == 0.0
    assert listener.seconds(7) == 7.0


def test_not_ready_counts_from_when_we_first_saw_it() -> None:
    listener = Listener()
    listener.seconds(40)
    listener.listening.readiness(["node"], listener.now)
    listener.seconds(4)
    listener.listening.readiness(["node"], listener.now)
    assert listener.listening.not_ready_seconds("node") == 4.0
    listener.listening.readiness([], listener.now)
    assert listener.listening.not_ready_seconds("node") == 0.0


def test_a_witness_counts_by_when_its_word_changed_and_only_while_it_can_be_heard() -> None:
    witnesses = Witnesses()
    there = {"a": (0, 1)}
    assert witnesses.of(there, now=0.0, wall=1000.0, heard_since=0.0) is None
    wrong_clock = Beat(at=940.0, step=7, usual_seconds=2.0)
    for second in range(5):
        witnesses.hear({"a": {0: wrong_clock}}, at=float(second))
    found = witnesses.of(there, now=4.0, wall=1004.0, heard_since=0.0)
    assert found is not None
    assert (found.silent_seconds, found.usual_seconds, found.said_seconds_ago) == (4.0, 2.0, 64.0)
    witnesses.hear({"a": {0: wrong_clock, 1: Beat(1005.0, 8, 1.0)}}, at=5.0)
    found = witnesses.of(there, now=6.0, wall=1006.0, heard_since=0.0)
    assert found is not None
    assert (found.silent_seconds, found.usual_seconds, found.said_seconds_ago) == (1.0, 1.0, 1.0)
    away = witnesses.of(there, now=6.0, wall=1006.0, heard_since=None)
    assert away is not None
    assert away.usual_seconds is None, "the API is away: nobody can be heard, nobody is a witness"
    back = witnesses.of(there, now=16.0, wall=1016.0, heard_since=1015.0)
    assert back is not None
    assert back.silent_seconds == 1.0
    witnesses.hear({}, at=30.0)
    paused = witnesses.of(there, now=31.0, wall=1031.0, heard_since=0.0)
    assert paused is not None
    assert paused.silent_seconds == 1.0, "we did not listen before"
