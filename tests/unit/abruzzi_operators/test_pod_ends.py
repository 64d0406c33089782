"""How pods end and why they wait, from the apiserver's own words."""

from __future__ import annotations

from typing import Any

import pytest

from abruzzi.engine.view import Phase
from abruzzi_operators.executors.assess import Facts, assess
from abruzzi_operators.executors.pending import waits_for
from abruzzi_operators.executors.pod_ends import PodEnd, combine, pod_end, pod_index
from abruzzi_operators.launcher.outcome import RankExit, summary, to_message

WORKLOAD = {"metadata": {"name": "w", "uid": "u", "labels": {}, "annotations": {"abruzzi.io/nodes": "2"}}}


def pod(
    state: dict[str, Any] | None = None, *, phase: str = "Running", index: int = 0, **status: Any
) -> dict[str, Any]:
    role = {"training.kubeflow.org/replica-type": "worker" if index else "master"}
    labels = {**role, "training.kubeflow.org/replica-index": str(max(0, index - 1))}
    containers = [{"name": "pytorch", "state": state}] if state else []
    return {
        "metadata": {"name": f"p-{index}", "uid": f"uid-{index}", "labels": labels},
        "spec": {"nodeName": "gpu-007"},
        "status": {"phase": phase, "containerStatuses": containers, **status},
    }


def said(*exits: RankExit) -> str:
    return to_message(summary(exits, started_at=0.0, ended_at=1.0, stop_requested=False))


@pytest.mark.parametrize(
    ("terminated", "code", "out_of_memory"),
    [
        ({"exitCode": 0, "reason": "Completed"}, 0, False),
        ({"exitCode": 137, "reason": "Error"}, 137, False),
        ({"exitCode": 137, "reason": "OOMKilled"}, 137, True),
        ({"exitCode": 65, "reason": "Error", "message": said(RankExit(0, 65))}, 65, False),
        ({"exitCode": 137, "reason": "Error", "message": said(RankExit(0, 137, 9, out_of_memory=True))}, 137, True),
        ({"exitCode": 128, "reason": "StartError", "message": 'exec: "nonsense": not found'}, 64, False),
    ],
)
def test_a_containers_end_is_told_by_the_launcher_else_by_the_kubelet(
    terminated: dict[str, Any], code: int, out_of_memory: bool
) -> None:
    end = pod_end(pod({"terminated": terminated}, phase="Failed" if code else "Succeeded"))
    assert end is not None
    over = combine([end])
    assert (over.exit_code, over.out_of_memory, over.node) == (code, out_of_memory, "gpu-007")


def test_an_evicted_pod_has_no_code_and_its_sentence_is_the_kubelets() -> None:
    evicted = pod(phase="Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage.")
    end = pod_end(evicted)
    assert end is not None
    over = combine([end])
    assert over.exit_code is None
    assert "Evicted: The node was low on resource" in str(over.reason)


def test_the_kubelets_made_up_137_of_a_container_that_never_ran_is_no_code() -> None:
    unseen = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "could not be located", "startedAt": None}
    end = pod_end(pod({"terminated": unseen}, phase="Failed"))
    assert end is not None
    assert (end.exits, end.has_run) == ((), False)
    stopped = assess(Facts(None, (), {0: end}, was_stopped=True)).seen
    assert stopped is not None
    assert (stopped.phase, stopped.exit_code) == (Phase.EXITED, 143)


@pytest.mark.parametrize(
    ("reason", "node_lost"),
    [("DeletionByTaintManager", True), ("DeletionByPodGC", True), ("PreemptionByScheduler", False)],
)
def test_a_pod_that_its_node_took_along_is_told_from_one_that_somebody_deleted(reason: str, node_lost: bool) -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": f"{reason} says so"}
    end = pod_end(pod({"running": {}}, conditions=[condition]), deleted=True)
    assert end is not None
    assert (end.node_lost, end.exits) == (node_lost, ())
    assert f"{reason} says so" in str(end.reason)


def test_success_needs_every_pods_word() -> None:
    fine = PodEnd(0, (RankExit(0, 0),), "a")
    assert combine([fine, PodEnd(1, (RankExit(1, 0),), "b")]).exit_code == 0
    blind = combine([fine, PodEnd(1, (), "b", "Pod p-1 was deleted.")])
    assert (blind.exit_code, blind.reason, blind.node, blind.failed_rank) == (
        None,
        "Pod p-1 was deleted.",
        "b",
        None,
    )
    failed = combine([fine, PodEnd(1, (RankExit(1, 64),), "b")])
    assert (failed.exit_code, failed.node, failed.failed_rank) == (64, "b", 1)


@pytest.mark.parametrize("index", [0, 1, 7])
def test_the_index_of_a_pod_is_its_nodes_rank(index: int) -> None:
    assert pod_index(pod(index=index)) == index


@pytest.mark.parametrize(
    ("pods", "sentence"),
    [
        (
            [pod({"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}}, phase="Pending")],
            "The image can't be pulled (ErrImagePull): manifest unknown",
        ),
        (
            [pod({"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}, phase="Pending")],
            "The container can't be made (CreateContainerConfigError): no secret",
        ),
        (
            [pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/9 nodes: 9 taints"}])],
            "No node takes pod p-0: 0/9 nodes: 9 taints",
        ),
        ([pod({"running": {}}), pod(phase="Pending", index=1)], "1 of its 2 pods run; the others are being started."),
    ],
)  # fmt: skip
def test_what_a_pod_waits_for_is_said_in_the_clusters_words(pods: list[dict[str, Any]], sentence: str) -> None:
    wait = waits_for(WORKLOAD, pods, expected=2, queue_message=None, pending_seconds=0.0)
    assert wait is not None
    assert wait.reason == sentence


def test_a_workload_that_is_done_is_believed_when_its_pods_are_gone_already() -> None:
    done = {**WORKLOAD, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    seen = assess(Facts(done, (), {})).seen
    assert seen is not None
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, 0)
    condition = {"type": "Failed", "status": "True", "message": "Job has reached the specified backoff limit"}
    seen = assess(Facts({**WORKLOAD, "status": {"conditions": [condition]}}, (), {})).seen
    assert seen is not None
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, None)
    assert "backoff limit" in str(seen.reason)


def test_without_workload_and_pods_only_the_apiserver_can_tell() -> None:
    assert assess(Facts(None, (), {})).seen is None


def test_a_pod_whose_container_has_ended_is_not_stopped_but_those_beside_it_are() -> None:
    """The kubelet tells a container's end before the pod's. A pod that is deleted in between leaves nobody who knows its exit code."""
    failed, working = pod({"terminated": {"exitCode": 64, "reason": "Error"}}), pod({"running": {}}, index=1)
    end = pod_end(failed)
    assert end is not None
    alone = {**WORKLOAD, "metadata": {**WORKLOAD["metadata"], "annotations": {"abruzzi.io/nodes": "1"}}}
    found = assess(Facts(alone, (failed,), {0: end}))
    assert found.seen is not None
    assert (found.seen.phase, found.seen.ended_ranks, found.halt) == (Phase.RUNNING, {0}, False)
    beside = assess(Facts(WORKLOAD, (failed, working), {0: end}))
    assert beside.seen is not None
    assert (beside.seen.phase, beside.halt) == (Phase.RUNNING, True)
