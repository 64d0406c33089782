"""Attempts as workloads of a cluster: Job, PyTorchJob, TrainJob or RayJob, one object an attempt, one pod a node.

The cluster is the truth, watches make it cheap to know. Rules that safety rests on:
  - GONE only after the apiserver itself has answered 404 and no pod lives; UNKNOWN while the caches do not follow;
  - a removal raises the fence before it deletes, so that no create that comes late can pass, no pod's either (executors/fence.py);
  - a stop deletes the workload (its operator makes no pod anew) and gives its pods the grace; their exit codes come from the watch.
Writes to the apiserver for an attempt of one pod: Secret, workload, fence, and the deletion of both: five. (Two more for one of several pods in
a namespace that keeps pods apart: their NetworkPolicy and its deletion.)
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import StageSpec, workload_name
from abruzzi.engine.ports import SpecConflict
from abruzzi.engine.view import Phase, Seen
from abruzzi.store.sessions import SESSION_SECONDS, expires_at
from abruzzi_operators.executors.assess import Facts, assess, expected_pods, is_terminating
from abruzzi_operators.executors.ending import Ending, Told
from abruzzi_operators.executors.fence import Fence, refused, was_removed
from abruzzi_operators.executors.ledger import Ledger, Queued, ranks_of_a_pod
from abruzzi_operators.executors.news import News
from abruzzi_operators.executors.node_words import NodeWords, nothing_known
from abruzzi_operators.executors.peers import peer_policy
from abruzzi_operators.executors.pod_ends import is_over, pod_index
from abruzzi_operators.executors.pod_logs import KeepLog, PodLogs
from abruzzi_operators.executors.ray_job import is_ray
from abruzzi_operators.executors.refusals import Refusals
from abruzzi_operators.executors.room import Room
from abruzzi_operators.executors.secret import MakeCredentials, encoded, read, secret
from abruzzi_operators.kubernetes import projections
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.discovery import Cluster, discover_for
from abruzzi_operators.kubernetes.errors import AlreadyExists, ApiError, Denied, Invalid, NotFound, NotServed
from abruzzi_operators.kubernetes.reflector import Key, Reflector, Tuning
from abruzzi_operators.kubernetes.resources import (
    JOBS,
    NETWORK_POLICIES,
    PODS,
    PYTORCH_JOBS,
    RAY_JOBS,
    SECRETS,
    TRAIN_JOBS,
    TRAINING_RUNTIMES,
    WORKLOADS,
    Object,
    Resource,
)
from abruzzi_operators.renderers import Placement, WorkloadKind, choose_kind, render
from abruzzi_operators.renderers.names import (
    ANNOTATION_DIGEST,
    ANNOTATION_STACKS,
    OWN_LABELS,
    SELECTOR,
    attempt_labels,
)
from abruzzi_operators.renderers.pod import SECRET_CREDENTIALS, SECRET_SPEC
from abruzzi_operators.renderers.render import framework_of
from abruzzi_operators.renderers.trainjob import training_runtime

logger = logging.getLogger(__name__)

REMOVE_SECONDS = 20.0
"""How long `remove` waits for pods to end; the engine asks again after that."""
PEER_GRACE_SECONDS = 10.0
"""For the pods of an attempt whose other pods have failed."""
CONFIRM_SECONDS = 15.0
"""How long an object that we made may be missing from the watch before the apiserver is asked about it."""
DISCOVER_SECONDS = 30.0
SYNC_SECONDS = 5.0
"""How long a call waits for the first lists. They go on without it, and the engine asks again."""
POLL_SECONDS = 0.1
KEPT_REMOVALS = 10_000
"""Attempts that are known to be gone without asking again."""

RESOURCES: dict[WorkloadKind, Resource] = {
    WorkloadKind.JOB: JOBS,
    WorkloadKind.PYTORCH_JOB: PYTORCH_JOBS,
    WorkloadKind.TRAIN_JOB: TRAIN_JOBS,
    WorkloadKind.RAY_JOB: RAY_JOBS,
}

Place = Callable[[StageSpec, Sequence[str]], Awaitable[Placement]]
"""Where an attempt runs; the nodes are those to avoid. Raises AbruzziError for a pool that there is not, or whose quota it can never fit."""
IssueToken = Callable[[StageSpec], Awaitable[str]]
Take = Callable[[Reflector[Object], Collection[Key]], None]


class KubernetesExecutor:
    """Implements abruzzi.engine.ports.Executor. `async with` it, or let the first call start its watches and `close` it."""

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        place: Place,
        issue_token: IssueToken,
        make_credentials: MakeCredentials,
        keep_log: KeepLog,
        peer_policies: bool = False,
        words: NodeWords = nothing_known,
        room: Room = Room(),
        now: Callable[[], float] = time.time,
        tuning: Tuning | None = None,
    ) -> None:
        self._api, self._namespace = api, namespace
        self._place, self._issue_token, self._make_credentials = place, issue_token, make_credentials
        self._words, self._room, self._now, self._tuning = words, room, now, tuning
        self._peer_policies = peer_policies
        """Whether the namespace keeps pods apart, so that those of one attempt need a policy to meet (peers.py)."""
        self._lacks_peers = peer_policies
        self._logs = PodLogs(api, namespace, keep_log, now=now)
        self._expires: dict[str, float] = {}
        """Unix seconds at which an attempt's credentials end; infinite where it has none."""
        self._ledger = Ledger()
        self._refusals = Refusals(api, namespace, self._ledger, tuning=tuning)
        self._news = News(self._ledger, self._news_of, can_see=lambda: self._problem() is None, now=now)
        self._fence = Fence(api, namespace, now=now)
        self._ending = Ending(api, namespace, words, now=now)
        self._made: dict[str, tuple[Resource, Object, float]] = {}
        """What we created or found by asking, until a watch has it: (resource, object, when)."""
        self._removed: OrderedDict[str, None] = OrderedDict()
        """Attempts of which the apiserver told this process that nothing is left, the newest last."""
        self._unknown_since: float | None = None
        self._stopped: set[str] = set()
        self._halted: set[str] = set()
        self._pending_since: dict[str, float] = {}
        self._reflectors: dict[str, Reflector[Object]] = {}
        self._unread: dict[str, Take] = {}
        """Of reflectors whose first list is not in the ledger yet."""
        self._stack: AsyncExitStack | None = None
        self._starting = asyncio.Lock()
        self._cluster: Cluster | None = None
        self._discovered_at = -math.inf
        self._runtime_applied = False

    async def __aenter__(self) -> KubernetesExecutor:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Idempotent. Raises ApiError while the first lists are not complete."""
        async with self._starting:
            if self._stack is None:
                self._stack = AsyncExitStack()
                await self._stack.enter_async_context(self._fence.reflector)
                await self._stack.enter_async_context(self._refusals)
                await self._follow(PODS, projections.pod, SELECTOR, self._ledger.take_pods)
            unserved = any(isinstance(reflector.problem, NotServed) for reflector in self._reflectors.values())
            if self._cluster is None or self._cluster.denied or unserved:
                await self._discover()
        await self._fence.reflector.synced(seconds=SYNC_SECONDS)
        for name, reflector in list(self._reflectors.items()):
            await reflector.synced(seconds=SYNC_SECONDS)
            if take := self._unread.pop(name, None):
                take(reflector, list(reflector.entries))  # at once: nobody may look at a ledger that is still empty
        await self._adopt_peers()

    async def close(self) -> None:
        if self._stack is not None:
            await self._stack.aclose()
            self._stack = None

    # Executor

    async def create(self, spec: StageSpec, *, excluded_nodes: Sequence[str] = ()) -> None:
        await self.start()
        attempt_id = spec.attempt_id
        if self._fence.is_removed(attempt_id):
            return
        found = self._cached(attempt_id)  # what no cache has yet, the creation itself finds
        if found is None:
            placement = await self._place(spec, excluded_nodes)
            kind = await self._choose(spec, placement)
            await self._ensure_secret(spec)
            await self._ensure_peers(spec, placement)
            found = await self._create_workload(spec, placement, kind)
        if found is None:
            return  # the fence refused it
        digest = (found[1]["metadata"].get("annotations") or {}).get(ANNOTATION_DIGEST)
        if digest != spec.digest():
            raise SpecConflict(f"Attempt {attempt_id} exists with spec {digest}, not {spec.digest()}.")

    async def observe(self, attempt_ids: Sequence[str]) -> Mapping[str, Seen]:
        try:
            await self.start()
        except ApiError as error:
            return dict.fromkeys(attempt_ids, self._unknown(error))
        if self._problem() is None:
            self._unknown_since = None
        found = await asyncio.gather(*(self._look(attempt_id) for attempt_id in attempt_ids))
        return {each: self._news.note(each, seen) for each, seen in zip(attempt_ids, found, strict=True)}

    async def stop(self, attempt_id: str, *, grace_seconds: float) -> None:
        """A running pod gets SIGTERM, and SIGKILL after the grace; an earlier end stays."""
        await self.start()
        if (await self._look(attempt_id)).phase not in (Phase.PENDING, Phase.RUNNING):
            return
        self._stopped.add(attempt_id)
        await self._delete_workload(attempt_id, foreground=True)
        await self._ending.delete_pods(self._ledger.living_pods(attempt_id), grace_seconds=grace_seconds)

    async def dump_stacks(self, attempt_id: str, rank: int) -> None:
        """Asks the launcher through an annotation on the pod. The stacks come with the rank's log."""
        await self.start()
        found = await self._find(attempt_id)
        if found is None:
            return
        ranks = ranks_of_a_pod(found[1])
        for pod in self._ledger.living_pods(attempt_id):
            if pod_index(pod) == rank // ranks:
                asked = {"metadata": {"annotations": {ANNOTATION_STACKS: f"{rank} {int(self._now())}"}}}
                with suppress(NotFound):
                    await self._api.patch(PODS, pod["metadata"]["name"], asked, namespace=self._namespace)

    async def remove(self, attempt_id: str) -> None:
        await self.start()
        if self._is_all_gone(attempt_id):
            return  # the engine asks once more where it sees nothing: for what was never created
        await self._fence.remove(attempt_id, anew=self._ledger.workload(attempt_id) is not None)
        with suppress(NotFound):
            await self._api.delete(SECRETS, workload_name(attempt_id), namespace=self._namespace)
        found = self._cached(attempt_id)
        if self._peer_policies and (found is None or expected_pods(found[1]) > 1):
            with suppress(NotFound):
                await self._api.delete(NETWORK_POLICIES, workload_name(attempt_id), namespace=self._namespace)
        await self._logs.collect_last(pod for pod in self._ledger.pods(attempt_id) if not self._ending.is_lost(pod))
        makes_no_more = self._has_ended(attempt_id)
        await self._delete_workload(attempt_id, foreground=False)
        await self._until_gone(attempt_id, makes_no_more)
        self._forget(attempt_id)
        self._removed[attempt_id] = None
        while len(self._removed) > KEPT_REMOVALS:
            self._removed.popitem(last=False)

    async def _until_gone(self, attempt_id: str, makes_no_more: bool) -> None:
        """Deletes pods until the apiserver has no workload and no pod of it that lives. Raises AbruzziError `attempt_lives`.

        `makes_no_more`: no pod can be there that the watch has not brought.
        """
        deadline, told, unseen = time.monotonic() + REMOVE_SECONDS, Told(), list[Object]()
        while True:
            living = self._ledger.living_pods(attempt_id)
            await self._ending.delete_pods([*living, *unseen], grace_seconds=1.0, told=told)
            if not living and await self._ask(attempt_id) is None:
                unseen = [] if makes_no_more else await self._ending.living_pods(attempt_id)
                if not unseen:
                    return
            if time.monotonic() > deadline:
                raise AbruzziError(
                    "attempt_lives",
                    f"Attempt {attempt_id} still has pods {REMOVE_SECONDS:.0f} s after it was told to end.",
                    hint="Is the kubelet of their node alive? `kubectl get pods -o wide` shows where they are.",
                    status=500,
                )
            await asyncio.sleep(POLL_SECONDS)

    def _has_ended(self, attempt_id: str) -> bool:
        """All the pods that its operator makes are there, and none of them runs any more."""
        found, pods = self._cached(attempt_id), self._ledger.pods(attempt_id)
        return found is not None and not is_ray(found[1]) and sum(map(is_over, pods)) >= expected_pods(found[1])

    def _is_all_gone(self, attempt_id: str) -> bool:
        """Removed by this process, and no watch has brought it back since (a restored etcd may)."""
        known = self._ledger.workload(attempt_id) is not None or bool(self._ledger.living_pods(attempt_id))
        return attempt_id in self._removed and not known and attempt_id not in self._made

    async def list_attempts(self) -> Sequence[str]:
        await self.start()
        self._check_following()
        return sorted(self._ledger.attempts() | set(self._made))

    # Beside the engine

    async def changed(self) -> set[str]:
        """Attempts about which `observe` would say something else than it last did. Waits for one; raises ApiError before the first lists."""
        await self.start()
        return await self._news.wait()

    def _news_of(self, attempt_id: str) -> Seen | None:
        if self._fence.is_removed(attempt_id):
            return None
        found = assess(self._facts(attempt_id))
        if found.halt and attempt_id not in self._halted:
            return Seen(Phase.UNKNOWN)  # a look stops the pods that are left
        if self._news.is_blind and (found.seen is None or found.seen.phase is not Phase.EXITED):
            return Seen(Phase.UNKNOWN)
        return found.seen or Seen(Phase.GONE)

    async def collect_logs(self) -> None:
        """Of pods without our launcher."""
        await self.start()
        await self._logs.collect_all(self._ledger.all_pods())

    async def queue(self) -> list[Queued]:
        """What waits in Kueue's queues, or was admitted. Raises ApiError while it cannot be known."""
        await self.start()
        reflector = self._reflectors.get(WORKLOADS.full_name)
        if reflector is not None and reflector.problem is not None:
            raise reflector.problem
        return self._ledger.queue()

    def served_kinds(self) -> list[str]:
        """Kinds of workloads that this cluster has; empty before it was asked."""
        return [
            kind.value for kind in WorkloadKind if self._cluster is not None and kind in self._cluster.workload_kinds
        ]

    def placed(self) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
        """{node: {attempt: its ranks there}}, as far as the watches have told."""
        return self._ledger.placed()

    def look_at(self, attempt_ids: Collection[str]) -> None:
        """Something is known of their nodes that was not: whoever waits for what has changed is told."""
        self._ledger.mark(attempt_ids)

    async def renew_credentials(self) -> None:
        """Those that end within the last third of their life. The kubelet brings the new ones into the pod within a minute or two."""
        await self.start()
        for attempt_id in self._ledger.attempts():
            if attempt_id not in self._expires:
                await self._read_expiry(attempt_id)
            if self._expires.get(attempt_id, math.inf) - self._now() < SESSION_SECONDS / 3:
                await self._renew(attempt_id)

    async def _read_expiry(self, attempt_id: str) -> None:
        with suppress(NotFound):
            thing = await self._api.get(SECRETS, workload_name(attempt_id), namespace=self._namespace)
            credentials = read(thing, SECRET_CREDENTIALS)
            ends = expires_at(credentials) if credentials else None
            self._expires[attempt_id] = ends.timestamp() if ends else math.inf

    async def _renew(self, attempt_id: str) -> None:
        with suppress(NotFound):
            thing = await self._api.get(SECRETS, workload_name(attempt_id), namespace=self._namespace)
            spec = StageSpec.model_validate_json(read(thing, SECRET_SPEC) or "")
            credentials = await self._make_credentials(spec)
            assert credentials is not None
            patch = {"data": {SECRET_CREDENTIALS: encoded(credentials)}}
            await self._api.patch(SECRETS, workload_name(attempt_id), patch, namespace=self._namespace)
            ends = expires_at(credentials)
            self._expires[attempt_id] = ends.timestamp() if ends else math.inf
            logger.info("attempt %s: its store credentials were renewed", attempt_id)

    # Creating

    async def _create_workload(
        self, spec: StageSpec, placement: Placement, kind: WorkloadKind
    ) -> tuple[Resource, Object] | None:
        resource = RESOURCES[kind]
        if kind is WorkloadKind.TRAIN_JOB:
            await self._ensure_runtime()
        body = render(spec, placement, kind, overrides=self._known().pod_overrides or "podTemplateOverrides")
        try:
            made = await self._api.create(resource, body)
        except AlreadyExists:
            made = await self._api.get(resource, body["metadata"]["name"], namespace=self._namespace)
        except (Denied, Invalid) as error:
            if refused(error):
                return None
            if isinstance(error, Invalid):
                raise AbruzziError(
                    "invalid_workload", f"The cluster can't take this {kind}: {error.message}", status=422
                ) from error
            raise
        self._made[spec.attempt_id] = (resource, made, self._now())
        return resource, made

    async def _ensure_secret(self, spec: StageSpec) -> None:
        """Before the workload, so that a crash between the two is healed by creating again. A token is issued only where there is none yet."""
        with suppress(NotFound):
            await self._api.get(SECRETS, workload_name(spec.attempt_id), namespace=self._namespace)
            return
        token, credentials = await self._issue_token(spec), await self._make_credentials(spec)
        with suppress(AlreadyExists):
            await self._api.create(SECRETS, secret(spec, self._namespace, token=token, credentials=credentials))

    async def _ensure_peers(self, spec: StageSpec, placement: Placement) -> None:
        """Before the workload, as its Secret: its pods may look for each other as soon as they are there."""
        if self._peer_policies and placement.nodes(spec.world_size) > 1:
            await self._create_peers(spec.attempt_id, attempt_labels(spec))

    async def _create_peers(self, attempt_id: str, labels: Mapping[str, str]) -> None:
        with suppress(AlreadyExists):
            await self._api.create(NETWORK_POLICIES, peer_policy(attempt_id, labels, self._namespace))

    async def _adopt_peers(self) -> None:
        """Attempts that are older than the policies of the namespace. Once: whoever creates one makes its policy first."""
        for attempt_id in self._ledger.attempts() if self._lacks_peers else ():
            found = self._ledger.workload(attempt_id)
            if found is not None and expected_pods(found[1]) > 1 and not self._fence.is_removed(attempt_id):
                labels = found[1]["metadata"]["labels"]
                await self._create_peers(attempt_id, {name: labels[name] for name in OWN_LABELS if name in labels})
        self._lacks_peers = False

    async def _choose(self, spec: StageSpec, placement: Placement) -> WorkloadKind:
        """Raises AbruzziError `kind_not_served` with what is missing and what brings it."""
        nodes, framework, is_queued = placement.nodes(spec.world_size), framework_of(spec), bool(placement.queue)
        refusal = self._known().cannot_run(spec.kind, nodes=nodes, framework=framework, is_queued=is_queued)
        if refusal is not None:
            await self._discover()  # somebody may just have installed it
            refusal = self._known().cannot_run(spec.kind, nodes=nodes, framework=framework, is_queued=is_queued)
        if refusal is not None:
            raise AbruzziError("kind_not_served", refusal, status=422)
        return choose_kind(spec, placement, {kind for kind in WorkloadKind if kind in self._known().workload_kinds})

    def _known(self) -> Cluster:
        assert self._cluster is not None
        return self._cluster

    async def _discover(self) -> None:
        """Follow every kind that the cluster serves. Kinds come when somebody installs their operator."""
        if self._now() - self._discovered_at < DISCOVER_SECONDS:
            return
        self._cluster = cluster = await discover_for(self._api, self._namespace, followed=self._reflectors)
        kinds = [resource for kind, resource in RESOURCES.items() if kind in cluster.workload_kinds]
        for resource in kinds:
            if resource.full_name not in self._reflectors:
                await self._follow(resource, projections.workload, SELECTOR, self._ledger.take_workloads)
        if cluster.serves(WORKLOADS) and WORKLOADS.full_name not in self._reflectors:
            await self._follow(cluster.find(WORKLOADS), projections.workload, "", self._ledger.take_queue)
        self._discovered_at = self._now()

    async def _ensure_runtime(self) -> None:
        """What every TrainJob of the namespace refers to."""
        if not self._runtime_applied:
            await self._api.apply(TRAINING_RUNTIMES, training_runtime(self._namespace))
            self._runtime_applied = True

    async def _follow(
        self,
        resource: Resource,
        project: Callable[[Object], Object],
        selector: str,
        take: Take,
    ) -> None:
        assert self._stack is not None
        reflector: Reflector[Object] = Reflector(
            self._api,
            resource,
            project=project,
            namespace=self._namespace,
            label_selector=selector,
            tuning=self._tuning,
        )
        self._reflectors[resource.full_name] = reflector
        self._unread[resource.full_name] = take
        await self._stack.enter_async_context(reflector)
        subscription = reflector.subscribe()

        async def keep() -> None:
            while True:
                take(reflector, await subscription.changed())

        task = asyncio.create_task(keep(), name=f"ledger of {resource.full_name}")
        self._stack.callback(task.cancel)

    # Looking

    async def _look(self, attempt_id: str) -> Seen:
        facts = self._facts(attempt_id)
        if self._fence.is_removed(attempt_id) and not facts.living and facts.workload is None:
            if self._is_all_gone(attempt_id) and self._problem(attempt_id) is None:
                return Seen(Phase.GONE, observed_at=facts.now)
            seen = await self._gone_or(attempt_id)
            return replace(seen, reason=was_removed(attempt_id, self._namespace)) if seen.phase is Phase.GONE else seen
        if self._unconfirmed_for(attempt_id) > CONFIRM_SECONDS and not facts.living:
            return await self._gone_or(attempt_id)
        found = assess(facts)
        if found.is_blind and attempt_id not in self._halted:
            with suppress(ApiError):  # the watch of pods may be ahead of that of RayJobs, which halting takes away
                newest = await self._ask(attempt_id)
                found = assess(facts if newest is None else replace(facts, workload=newest[1]))
        if found.seen is None:
            return await self._gone_or(attempt_id)
        if found.seen.phase is not Phase.EXITED and (problem := self._problem(attempt_id)) is not None:
            return self._unknown(problem, node=found.seen.node)
        if found.halt and attempt_id not in self._halted:
            try:
                await self._halt(attempt_id)
                self._halted.add(attempt_id)
            except ApiError as error:
                logger.warning("attempt %s: %s The next look tries again.", attempt_id, error.message)
        return found.seen

    def _unknown(self, error: ApiError, *, node: str | None = None) -> Seen:
        now = self._now()
        self._unknown_since = now if self._unknown_since is None else self._unknown_since
        return Seen(Phase.UNKNOWN, reason=error.message, node=node, unknown_since=self._unknown_since, observed_at=now)

    def _facts(self, attempt_id: str) -> Facts:
        if self._ledger.workload(attempt_id) is not None:
            self._made.pop(attempt_id, None)
        found = self._cached(attempt_id)
        workload = found[1] if found is not None else None
        now = self._now()
        living = self._ledger.living_pods(attempt_id)
        queued = self._ledger.queued(workload) if workload is not None else None
        reserved_at = queued.reserved_at if queued is not None else None
        return Facts(
            workload=workload,
            living=living,
            ends=self._ledger.ends(attempt_id),
            was_stopped=attempt_id in self._stopped,
            words=self._words,
            queue_message=queued.message if queued is not None and not living else None,
            refusal=self._refusals.word(workload),
            reserved_at=datetime.fromisoformat(reserved_at).timestamp() if reserved_at is not None else None,
            room=self._room(attempt_id, workload, self._ledger),
            pending_seconds=now - self._pending_since.setdefault(attempt_id, now) if living else 0.0,
            now=now,
        )

    async def _gone_or(self, attempt_id: str) -> Seen:
        """What only the apiserver knows: whether it exists at all."""
        now = self._now()
        try:
            found = await self._ask(attempt_id)
        except ApiError as error:
            return self._unknown(error)
        if found is None:
            return Seen(Phase.GONE, observed_at=now)
        self._made[attempt_id] = (*found, now)
        seen = assess(self._facts(attempt_id)).seen
        return seen if seen is not None else Seen(Phase.UNKNOWN, observed_at=now)

    async def _find(self, attempt_id: str) -> tuple[Resource, Object] | None:
        """From a cache, or by asking."""
        return self._cached(attempt_id) or await self._ask(attempt_id)

    def _cached(self, attempt_id: str) -> tuple[Resource, Object] | None:
        made = self._made.get(attempt_id)
        return self._ledger.workload(attempt_id) or (made[:2] if made is not None else None)

    async def _ask(self, attempt_id: str) -> tuple[Resource, Object] | None:
        """None: the apiserver has no workload of that name, of any kind that it serves. Raises ApiError."""
        for resource in RESOURCES.values():
            if resource.full_name in self._reflectors:
                with suppress(NotFound):
                    thing = await self._api.get(resource, workload_name(attempt_id), namespace=self._namespace)
                    return resource, thing
        self._ledger.drop_workload(attempt_id)
        self._made.pop(attempt_id, None)
        return None

    def _unconfirmed_for(self, attempt_id: str) -> float:
        """Seconds since we made it, while no watch has it."""
        made = self._made.get(attempt_id)
        return self._now() - made[2] if made is not None and self._ledger.workload(attempt_id) is None else 0.0

    def _problem(self, attempt_id: str = "") -> ApiError | None:
        """Why the caches of workloads and pods do not follow, if they don't. A kind that is served no more matters to those of that kind alone. (Kueue's
        only holds sentences.)"""
        own, *_ = self._cached(attempt_id) or (None,)
        problems = [(r.resource, r.problem) for r in self._reflectors.values() if r.resource.kind != WORKLOADS.kind]
        return next((p for kind, p in problems if p and (not isinstance(p, NotServed) or kind == own)), None)

    def _check_following(self) -> None:
        if (problem := self._problem()) is not None:
            raise problem

    # Ending

    async def _halt(self, attempt_id: str) -> None:
        """The pods that are left after others failed. Where a pod's object is gone its operator would make it anew, as KubeRay does with every pod
        that has ended: the workload goes too."""
        logger.info("attempt %s: a pod has failed; stopping the others", attempt_id)
        found = self._cached(attempt_id)
        if self._ledger.lost_pods(attempt_id) or (found is not None and is_ray(found[1])):
            await self._delete_workload(attempt_id, foreground=True)
        await self._ending.delete_pods(self._ledger.unfinished_pods(attempt_id), grace_seconds=PEER_GRACE_SECONDS)

    async def _delete_workload(self, attempt_id: str, *, foreground: bool) -> None:
        found = await self._find(attempt_id)
        if found is None or (foreground and is_terminating(found[1])):
            return
        await self._ending.delete_workload(*found, foreground=foreground)

    def _forget(self, attempt_id: str) -> None:
        self._ledger.forget(attempt_id)
        self._made.pop(attempt_id, None)
        self._pending_since.pop(attempt_id, None)
        self._news.forget(attempt_id)
        self._expires.pop(attempt_id, None)
        self._stopped.discard(attempt_id)
        self._halted.discard(attempt_id)
