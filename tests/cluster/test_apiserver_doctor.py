"""`abruzzi doctor` beside a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster.apiserver import ApiServer, needs_apiserver

from abruzzi_operators.kubernetes.checks import checks
from abruzzi_operators.kubernetes.resources import (
    CLUSTER_QUEUES,
    LOCAL_QUEUES,
    PYTORCH_JOBS,
    RAY_JOBS,
    RESOURCE_FLAVORS,
    WORKLOADS,
)


@needs_apiserver
def test_doctor_names_the_cluster_and_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiServer(tmp_path / "state") as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
        monkeypatch.setenv("ABRUZZI_EXECUTOR", "kubernetes")
        server.serve(WORKLOADS, LOCAL_QUEUES, CLUSTER_QUEUES, RESOURCE_FLAVORS, RAY_JOBS)
        cluster, *lacks = checks()
        assert cluster.ok
        assert "Kubernetes v1.34.4" in cluster.finding
        assert "runs Job, RayJob" in cluster.finding
        assert [(check.ok, check.needed) for check in lacks] == [(False, False)]
        assert "over 2 nodes can't run here" in lacks[0].finding
        server.serve(PYTORCH_JOBS)
        assert [check.ok for check in checks()] == [True]


def test_doctor_says_why_a_cluster_that_is_wanted_is_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.setenv("ABRUZZI_EXECUTOR", "kubernetes")
    [check] = checks()
    assert (check.ok, check.needed) == (False, True)
    assert "missing" in check.finding
    assert "KUBECONFIG" in check.remedy


def test_doctor_is_silent_where_nobody_asked_for_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "ABRUZZI_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)
    assert list(checks()) == []
