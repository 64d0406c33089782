"""What a cluster serves, asked at connect: in two or three calls, from its discovery document and its CRDs' schemas, never from version strings.

What a stage needs and the cluster lacks is a sentence before anything is created, instead of the apiserver's 404 or 422 afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from abruzzi.contracts.states import StageKind
from abruzzi.plan.placement import INDEXED_JOB
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import Denied, NotFound, Unreachable
from abruzzi_operators.kubernetes.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    CLUSTER_QUEUES,
    CRDS,
    JOB_SETS,
    JOBS,
    LOCAL_QUEUES,
    NODES,
    PODS,
    PYTORCH_JOBS,
    RAY_CLUSTERS,
    RAY_JOBS,
    RESOURCE_FLAVORS,
    RUNS,
    SANDBOXES,
    TOPOLOGIES,
    TRAIN_JOBS,
    TRAINING_RUNTIMES,
    WORKLOADS,
    Object,
    Resource,
)

logger = logging.getLogger(__name__)

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
SPOKEN: Mapping[str, tuple[str, ...]] = {
    "kueue.x-k8s.io": ("v1beta2", "v1beta1"),
    "agents.x-k8s.io": ("v1beta1", "v1alpha1"),
}
"""Versions of a group that we can write, best first; for all other groups, the one of resources.py."""
OPTIONAL = (
    JOBS, PYTORCH_JOBS, TRAIN_JOBS, TRAINING_RUNTIMES, JOB_SETS, RAY_JOBS, RAY_CLUSTERS, SANDBOXES, WORKLOADS, LOCAL_QUEUES,
    CLUSTER_QUEUES, RESOURCE_FLAVORS, TOPOLOGIES, ADMISSION_POLICIES, ADMISSION_POLICY_BINDINGS, RUNS,
)  # fmt: skip
BRINGS = {
    "kubeflow.org": "the Kubeflow training-operator 1.9",
    "trainer.kubeflow.org": "Kubeflow Trainer 2.1 or newer",
    "jobset.x-k8s.io": "JobSet",
    "ray.io": "the KubeRay operator 1.5 or newer",
    "agents.x-k8s.io": "agent-sandbox",
    "kueue.x-k8s.io": "Kueue 0.16 or newer",
    "admissionregistration.k8s.io": "Kubernetes 1.30 or newer",
    "abruzzi.io": "Abruzzi's own CRD (the Helm chart)",
}
BROUGHT = (PYTORCH_JOBS, TRAIN_JOBS, RAY_JOBS, WORKLOADS)
"""What a controller follows of what other people's operators bring. A role that is older than one of them must not keep what needs none of it."""
PodOverrides = Literal["runtimePatches", "podTemplateOverrides"]
"""How a TrainJob changes its pods: Trainer 2.2 renamed the one to the other."""


@dataclass(frozen=True, slots=True)
class Cluster:
    version: str
    """Of Kubernetes, for people: no decision rests on it."""
    served: Mapping[str, Resource]
    """By full name, in the best version that both sides speak."""
    other_versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What is served in versions only that we do not speak."""
    pod_overrides: PodOverrides | None = None
    """None: no TrainJob, or one that we can't use."""
    train_job_problem: str = ""
    denied: Mapping[str, str] = field(default_factory=dict)
    """What is served but may not be read here, by full name: the apiserver's sentence."""

    def serves(self, *resources: Resource) -> bool:
        return all(resource.full_name in self.served for resource in resources)

    def find(self, resource: Resource) -> Resource:
        """The same resource in the version to use here. Raises KeyError for one that `serves` denies."""
        return self.served[resource.full_name]

    @property
    def workload_kinds(self) -> frozenset[str]:
        """Kinds that an attempt can become here: of Job, PyTorchJob, TrainJob and RayJob."""
        kinds = {resource.kind for resource in (JOBS, PYTORCH_JOBS, RAY_JOBS) if self.serves(resource)}
        return frozenset(kinds | ({TRAIN_JOBS.kind} if not self.lacks_train_job() else set()))

    @property
    def has_queues(self) -> bool:
        return self.serves(WORKLOADS, LOCAL_QUEUES, CLUSTER_QUEUES, RESOURCE_FLAVORS)

    @property
    def has_fence(self) -> bool:
        """Whether the apiserver itself can refuse what a controller creates too late."""
        return self.serves(ADMISSION_POLICIES, ADMISSION_POLICY_BINDINGS)

    def lacks(self, *resources: Resource) -> str:
        """Which of these are missing or denied and what brings them, as the end of a sentence; empty: none."""
        missing = [resource for resource in resources if not self.serves(resource)]
        if not missing:
            return ""
        told = []
        if absent := [resource for resource in missing if resource.full_name not in self.denied]:
            parts = [f"{resource.kind} ({resource.api_version}{self._but(resource)})" for resource in absent]
            remedies = list(dict.fromkeys(BRINGS[resource.group] for resource in absent if resource.group in BRINGS))
            told.append(f"the cluster does not serve {_words(parts)}; install {_words(remedies)}")
        if denied := [self.denied[resource.full_name].rstrip(".") for resource in missing if resource not in absent]:
            told.append(f"{_words(denied)}; give the controller this right (the Helm chart's role has it)")
        return "; and ".join(told)

    def lacks_train_job(self) -> str:
        return self.lacks(TRAIN_JOBS, TRAINING_RUNTIMES, JOB_SETS) or self.train_job_problem

    def cannot_run(self, kind: StageKind, *, nodes: int = 1, framework: str = "", is_queued: bool = True) -> str | None:
        """A sentence, or None when a stage of that kind can run here.

        `nodes`: how many its ranks fill; `framework`: what the stage's resources name; `is_queued`: its pool has a quota, so Kueue admits it.
        """
        reasons = [self.lacks(ADMISSION_POLICIES, ADMISSION_POLICY_BINDINGS)]
        if is_queued:
            reasons.append(self.lacks(WORKLOADS, LOCAL_QUEUES, CLUSTER_QUEUES, RESOURCE_FLAVORS))
        if framework == "ray":
            reasons.append(self.lacks(RAY_JOBS))
        elif nodes == 1 or framework == INDEXED_JOB:
            reasons.append(self.lacks(JOBS))
        elif not self.serves(PYTORCH_JOBS):
            no_train_job = self.lacks_train_job()
            reasons.append(f"{self.lacks(PYTORCH_JOBS)}, or else: {no_train_job}" if no_train_job else "")
        told = [reason for reason in reasons if reason]
        if not told:
            return None
        what = (
            f"A {kind.value} stage"
            + (f" over {nodes} nodes" if nodes > 1 else "")
            + (" on Ray" if framework == "ray" else "")
        )
        return f"{what} can't run here: {'; and '.join(told)}."

    def refusals(self) -> dict[str, str]:
        """For `abruzzi doctor`: each way to run a stage that this cluster can't do, with the sentence why."""
        ways = {kind.value: self.cannot_run(kind) for kind in StageKind}
        ways["pretrain over several nodes"] = self.cannot_run(StageKind.PRETRAIN, nodes=2)
        ways["tokenize on Ray"] = self.cannot_run(StageKind.TOKENIZE, framework="ray")
        return {way: sentence for way, sentence in ways.items() if sentence}

    def _but(self, resource: Resource) -> str:
        versions = self.other_versions.get(resource.full_name)
        return f", only {_words(versions)}" if versions else ""


async def discover(api: Api) -> Cluster:
    """Raises Denied, Unreachable. Cheap enough to ask again when something is missing: somebody may just have installed it."""
    version = await api.get_path("/version")
    document = await api.get_path("/apis", accept=AGGREGATED)
    if document.get("kind") != "APIGroupDiscoveryList":
        raise Unreachable(
            f"get /apis: the apiserver ({version.get('gitVersion', 'of unknown version')}) has no aggregated discovery; Kubernetes 1.30 or newer is needed.",
            reason="TooOld",
        )
    versions = _versions(document)
    served = {resource.full_name: resource for resource in (PODS, NODES)}
    others: dict[str, tuple[str, ...]] = {}
    for resource in OPTIONAL:
        found = versions.get(resource.full_name, ())
        spoken = SPOKEN.get(resource.group, (resource.version,))
        best = next((version for version in spoken if version in found), None)
        if best:
            served[resource.full_name] = resource.at(best)
        elif found:
            others[resource.full_name] = found
    overrides, problem = await _train_job(api, served.get(TRAIN_JOBS.full_name))
    return Cluster(version.get("gitVersion", ""), served, others, overrides, problem)


async def discover_for(api: Api, namespace: str, *, followed: Collection[str]) -> Cluster:
    """What a controller of that namespace can use: without kinds that its role may not list there, unless it follows them already.

    A role that may not list a kind may not create it either; what a wider role left of it, the fence keeps from running. Raises as `discover`.
    """
    cluster = await discover(api)
    denied: dict[str, str] = {}
    for resource in BROUGHT:
        if cluster.serves(resource) and resource.full_name not in followed:
            try:
                await api.page(cluster.find(resource), namespace=namespace, limit=1)
            except Denied as error:
                if error.http_status != 403:  # 401: who we are is not known at the moment
                    raise
                logger.warning("%s: none are made or followed: %s", resource.full_name, error.message)
                denied[resource.full_name] = error.message
    served = {name: resource for name, resource in cluster.served.items() if name not in denied}
    return replace(cluster, served=served, denied=denied)


def _versions(document: Object) -> dict[str, tuple[str, ...]]:
    """Full name → versions. An aggregated API whose server is away is listed as stale, and counts."""
    found: dict[str, tuple[str, ...]] = {}
    for group in document.get("items") or []:
        for version in group.get("versions") or []:
            for resource in version.get("resources") or []:
                name = f"{resource['resource']}.{group['metadata']['name']}"
                found[name] = (*found.get(name, ()), version["version"])
    return found


async def _train_job(api: Api, resource: Resource | None) -> tuple[PodOverrides | None, str]:
    """How it takes changes to its pods, or why we can't know."""
    if resource is None:
        return None, ""
    try:
        crd = await api.get(CRDS, resource.full_name)
    except Denied as error:
        return None, f"TrainJob is served, but its CRD may not be read ({error.message})"
    except NotFound:
        return None, "TrainJob is served, but not by a CRD, so its shape can't be known"
    fields = _spec_fields(crd, resource.version)
    if "runtimePatches" in fields:
        return "runtimePatches", ""
    if "podTemplateOverrides" in fields:
        return "podTemplateOverrides", ""
    return None, f"TrainJob has neither runtimePatches nor podTemplateOverrides; install {BRINGS[resource.group]}"


def _spec_fields(crd: Object, version: str) -> Iterable[str]:
    schema: Mapping[str, Any] = next(
        (each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if each["name"] == version), {}
    )
    return ((schema.get("properties") or {}).get("spec") or {}).get("properties") or {}


def _words(parts: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
