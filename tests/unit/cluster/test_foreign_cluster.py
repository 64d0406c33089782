"""A cluster that somebody already has: chosen by two variables, never by one, and told apart from one whose images are missing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from cluster import foreign
from cluster.errors import ClusterError
from cluster.handle import the_cluster
from cluster.kubectl import Kubectl


class Answering(Kubectl):
    """As a cluster whose pod is in these states, one at each look; then in the last one."""

    def __init__(self, *states: dict[str, Any]) -> None:
        super().__init__(Path("kubectl"), Path("kubeconfig"))
        object.__setattr__(self, "states", list(states))

    def create(self, *objects: dict[str, Any], namespace: str = "") -> str:
        return namespace

    def json(self, *words: str) -> Any:
        states = vars(self)["states"]
        return {"status": states.pop(0) if len(states) > 1 else states[0]}

    def try_run(self, *words: str, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, stdout="Events: none", stderr="")


def waiting(**words: str) -> dict[str, Any]:
    return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": words}}]}


def test_it_is_taken_when_both_variables_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somebody/config")
    monkeypatch.setenv("ABRUZZI_TEST_IMAGE_PREFIX", "registry.example/abruzzi-")
    with the_cluster() as cluster:
        assert (cluster.kubeconfig, cluster.is_local) == (Path("/somebody/config"), False)


def test_a_developers_kubeconfig_alone_is_let_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somebody/config")
    monkeypatch.delenv("ABRUZZI_TEST_IMAGE_PREFIX", raising=False)
    assert foreign.named() is None


def test_a_prefix_alone_is_refused_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("ABRUZZI_TEST_IMAGE_PREFIX", "registry.example/abruzzi-")
    with pytest.raises(ClusterError) as raised:
        foreign.named()
    assert str(raised.value) == (
        "ABRUZZI_TEST_IMAGE_PREFIX names images for a cluster that KUBECONFIG does not name: set both or neither"
    )


TRIED = waiting(reason="ErrImagePull", message="no such host")
PAUSES = waiting(reason="ImagePullBackOff", message="Back-off pulling image")


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ((TRIED, TRIED, PAUSES, TRIED), "ErrImagePull"),
        ((waiting(reason="InvalidImageName", message="no such host"),), "InvalidImageName"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_named_with_the_kubelets_words_and_the_remedy(
    states: tuple[dict[str, Any], ...], reason: str
) -> None:
    kubectl = Answering(*states)
    with pytest.raises(ClusterError) as raised:
        foreign.try_image(kubectl, "registry.example/abruzzi-jobs:1", "test-1")
    said = str(raised.value)
    assert f"cannot pull registry.example/abruzzi-jobs:1 ({reason}: no such host)" in said
    assert "ABRUZZI_TEST_IMAGE_PREFIX" in said


def test_one_that_the_kubelet_can_pull_when_it_tries_again_is_good_enough() -> None:
    kubectl = Answering(TRIED, PAUSES, waiting(reason="ContainerCreating"), {"phase": "Running"})
    foreign.try_image(kubectl, "registry.example/abruzzi-busybox:1", "test-1")
    assert vars(kubectl)["states"] == [{"phase": "Running"}]


def test_one_that_has_not_started_in_time_is_told_with_what_the_cluster_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "PULL_SECONDS", 0.0)
    with pytest.raises(ClusterError) as raised:
        foreign.try_image(
            Answering(waiting(reason="ContainerCreating")), "registry.example/abruzzi-busybox:1", "test-1"
        )
    assert str(raised.value) == (
        "a pod of registry.example/abruzzi-busybox:1 has started: not so after 0 s.\nEvents: none"
    )


def test_stages_there_run_in_their_own_image_without_this_machines_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABRUZZI_POD_TEMPLATE", raising=False)
    assert foreign.pod_template() == {}
