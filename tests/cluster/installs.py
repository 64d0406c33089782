"""Kueue, Kubeflow Training, KubeRay, JobSet and Trainer from their own manifests, in images that hold their own binaries.

A manifest is rendered from the module that Go downloads (kustomize), cached, and changed in three places only: images are never pulled; CPU requests
shrink, because the machine has two cores for the stages too; and an operator gets the arguments that we recommend (docs/how-to/run-on-kubernetes.md).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster.binaries import JOBSET, KUBERAY, KUEUE, TRAINER, TRAINING_OPERATOR, Module, Toolbox, module_folder
from cluster.components import wait_until
from cluster.errors import ClusterError
from cluster.images import import_image, imported, operator_image
from cluster.kubectl import Kubectl
from cluster.layout import CACHE, Layout
from cluster.pod_processes import kill_pod

CPU_REQUEST = "20m"
READY_SECONDS = 240.0


@dataclass(frozen=True)
class Operator:
    """`probe` is an object whose dry-run creation passes through the operator's webhooks, when it has any."""

    name: str
    module: Module
    folders: tuple[str, ...]
    binary: str
    namespace: str
    deployment: str
    crd: str
    """One of its CRDs: where that is served, the operator counts as installed."""
    probe: Mapping[str, Any] | None = None
    api_service: str = ""
    """The API that it serves itself, through the apiserver's aggregation."""
    needs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    target_namespace: str = ""
    """Set where several folders are put together and the overlay that would name the namespace is not used."""


_POD = {"spec": {"containers": [{"name": "pytorch", "image": "none"}]}}
_MASTER = {"replicas": 1, "restartPolicy": "Never", "template": _POD}
OPERATORS = {
    operator.name: operator
    for operator in (
        Operator(
            "training-operator",
            TRAINING_OPERATOR,
            ("manifests/overlays/standalone",),
            "training-operator",
            "kubeflow",
            "training-operator",
            "pytorchjobs.kubeflow.org",
            {
                "apiVersion": "kubeflow.org/v1",
                "kind": "PyTorchJob",
                "metadata": {"name": "probe", "namespace": "default"},
                "spec": {"runPolicy": {"suspend": True}, "pytorchReplicaSpecs": {"Master": _MASTER}},
            },
            arguments=("--kube-api-qps=200", "--kube-api-burst=400"),
        ),
        Operator(
            "kuberay", KUBERAY, ("config/default",), "kuberay-operator", "default", "kuberay-operator", "rayjobs.ray.io"
        ),
        Operator(
            "jobset",
            JOBSET,
            ("config/default",),
            "jobset",
            "jobset-system",
            "jobset-controller-manager",
            "jobsets.jobset.x-k8s.io",
            {
                "apiVersion": "jobset.x-k8s.io/v1alpha2",
                "kind": "JobSet",
                "metadata": {"name": "probe", "namespace": "default"},
                "spec": {"suspend": True, "replicatedJobs": [{"name": "a", "template": {"spec": {"template": _POD}}}]},
            },
        ),
        Operator(
            "trainer",
            TRAINER,
            # Its overlay also fetches JobSet from the internet, so the folders that the overlay names are put together here.
            ("manifests/base/crds", "manifests/base/manager", "manifests/base/rbac", "manifests/base/webhook"),
            "trainer",
            "kubeflow-system",
            "kubeflow-trainer-controller-manager",
            "trainjobs.trainer.kubeflow.org",
            {
                "apiVersion": "trainer.kubeflow.org/v1alpha1",
                "kind": "TrainingRuntime",
                "metadata": {"name": "probe", "namespace": "default"},
                "spec": {
                    "template": {
                        "spec": {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": _POD}}}]}
                    }
                },
            },
            needs=("jobset",),
            target_namespace="kubeflow-system",
        ),
        # The last: its webhooks see every pod, and until it answers nothing else could be created.
        Operator(
            "kueue",
            KUEUE,
            ("config/default",),
            "kueue",
            "kueue-system",
            "kueue-controller-manager",
            "workloads.kueue.x-k8s.io",
            {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "probe"}},
            api_service="v1beta2.visibility.kueue.x-k8s.io",
        ),
    )
}


def chosen(names: Iterable[str]) -> list[Operator]:
    """With what they need, in the order of installation. Raises for an unknown name."""
    wanted = set(names)
    if unknown := wanted - OPERATORS.keys():
        raise ClusterError(f"no operator is called {', '.join(sorted(unknown))}; there are {', '.join(OPERATORS)}")
    while more := {need for name in wanted for need in OPERATORS[name].needs} - wanted:
        wanted |= more
    return [operator for name, operator in OPERATORS.items() if name in wanted]


def install(kubectl: Kubectl, layout: Layout, tools: Toolbox, names: Iterable[str]) -> None:
    """Applies and waits until deployments are available and webhooks answer. What is there already is left alone."""
    there = served_crds(kubectl)
    absent = [operator for operator in chosen(names) if operator.crd not in there]
    with ThreadPoolExecutor(2) as pool:
        prepared = list(pool.map(lambda operator: _prepare(kubectl, layout, tools, operator), absent))
    for objects in prepared:
        kubectl.create_all(objects)
    for operator in absent:
        wait_available(kubectl, operator)


def restart(kubectl: Kubectl) -> None:
    """Kills those that are there; the kubelet starts them anew. Returns when they work again."""
    there = served_crds(kubectl)
    found = [operator for operator in OPERATORS.values() if operator.crd in there]
    restarts = {operator.name: _restarts(kubectl, operator) for operator in found}
    for operator in found:
        kill_pod(f"{operator.deployment}-")
    for operator in found:
        wait_until(
            f"{operator.name} has started again",
            lambda operator=operator: _restarts(kubectl, operator) > restarts[operator.name],
            seconds=READY_SECONDS,
        )
        wait_available(kubectl, operator)


def _restarts(kubectl: Kubectl, operator: Operator) -> int:
    """Of its containers that are ready."""
    pods = kubectl.json("get", "pods", "-n", operator.namespace)["items"]
    own = [pod for pod in pods if pod["metadata"]["name"].startswith(f"{operator.deployment}-")]
    containers = [each for pod in own for each in pod["status"].get("containerStatuses", ())]
    return sum(each["restartCount"] for each in containers if each["ready"])


def served_crds(kubectl: Kubectl) -> set[str]:
    words = kubectl("get", "customresourcedefinitions", "-o", "name").split()
    return {word.partition("/")[2] for word in words}


def wait_available(kubectl: Kubectl, operator: Operator) -> None:
    deployment, namespace = f"deployment/{operator.deployment}", operator.namespace
    try:
        kubectl.wait(deployment, "condition=Available", namespace=namespace, seconds=READY_SECONDS)
    except ClusterError as error:
        log = kubectl.try_run("logs", deployment, "-n", namespace, "--tail=30")
        events = kubectl.try_run("get", "events", "-n", namespace, "--sort-by=.lastTimestamp")
        raise ClusterError(f"{error}\n{events.stdout}\nIts log:\n{log.stdout}{log.stderr}") from error
    if operator.api_service:
        kubectl.wait(f"apiservice/{operator.api_service}", "condition=Available", seconds=READY_SECONDS)
    if not operator.probe:
        return
    probe, said = yaml.safe_dump(dict(operator.probe)), ""

    def answers() -> bool:
        nonlocal said
        result = kubectl.try_run("create", "--dry-run=server", "-f", "-", input_text=probe)
        said = result.stderr
        return result.returncode == 0

    wait_until(f"the webhooks of {operator.name} answer", answers, seconds=READY_SECONDS, last_words=lambda: said)


def _prepare(kubectl: Kubectl, layout: Layout, tools: Toolbox, operator: Operator) -> list[dict[str, Any]]:
    objects = tuned(manifest(kubectl, operator), operator.arguments)
    here = imported(layout)
    for name in {container["image"] for container in _containers(objects)}:
        if name not in here:
            import_image(layout, operator_image(name, tools.path(operator.binary)))
    return objects


def manifest(kubectl: Kubectl, operator: Operator) -> list[dict[str, Any]]:
    """The operator's own objects, rendered once per version into the cache (as JSON, which is read fifty times faster than YAML)."""
    cached = CACHE / "cluster-manifests" / f"{operator.name}-{operator.module.version}.json"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        objects = [each for each in yaml.load_all(_render(kubectl, operator), Loader=_Loader) if each]
        unfinished = cached.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(objects))
        unfinished.replace(cached)
    return json.loads(cached.read_text())


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it: the CRDs are megabytes."""


def _render(kubectl: Kubectl, operator: Operator) -> str:
    module = module_folder(operator.module)
    folders = [module / folder for folder in operator.folders]
    if not operator.target_namespace:
        return kubectl("kustomize", str(folders[0]))
    namespace = operator.target_namespace
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        kustomization = {
            "resources": [
                "namespace.yaml",
                *(os.path.relpath(folder, os.path.realpath(scratch)) for folder in folders),
            ],
            "namespace": namespace,
            "secretGenerator": [
                {
                    "name": "kubeflow-trainer-webhook-cert",
                    "namespace": namespace,
                    "options": {"disableNameSuffixHash": True},
                }
            ],
            "images": [
                {"name": "ghcr.io/kubeflow/trainer/trainer-controller-manager", "newTag": operator.module.version}
            ],
        }
        Path(scratch, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        Path(scratch, "namespace.yaml").write_text(
            yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        )
        return kubectl("kustomize", scratch)


def tuned(objects: list[dict[str, Any]], arguments: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Images are never pulled; CPU requests shrink and CPU limits go (KubeRay's 100m makes its leader election time out beside a busy test)."""
    for container in _containers(objects):
        container["imagePullPolicy"] = "IfNotPresent"
        if arguments:
            container["args"] = [*container.get("args", ()), *arguments]
        resources = container.get("resources", {})
        if "cpu" in resources.get("requests", {}):
            resources["requests"]["cpu"] = CPU_REQUEST
        resources.get("limits", {}).pop("cpu", None)
    return objects


def _containers(objects: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in objects:
        if each["kind"] == "Deployment":
            yield from each["spec"]["template"]["spec"]["containers"]
