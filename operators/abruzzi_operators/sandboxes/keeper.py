"""Keeps a few sandbox pods ready, gives them away, and destroys them. What it has made it also ends: a pod of its label that it does not know is a leak
(of a process before this one, or of a call whose answer was lost) and goes."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sandbox import SandboxIn
from abruzzi.kit.settings import SandboxPods
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import ApiError, NotFound
from abruzzi_operators.kubernetes.execs import Execs
from abruzzi_operators.kubernetes.resources import PODS, Object
from abruzzi_operators.sandboxes.pod import FIRST_USER, LABEL_KEEPER, USERS, probe, sandbox_pod, taken_away

logger = logging.getLogger(__name__)
ENDED = ("Succeeded", "Failed")
_NO_IMAGE = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds."""

    start: float = 240.0
    """For a pod to run: an image may have to be pulled first."""
    pull: float = 1200.0
    """For a pod from an image that a stage has named, which is gigabytes on a node that does not have it."""
    network: float = 15.0
    """For a NetworkPolicy to hold: firewalls learn of a new pod a little later than its node. Where a pod has reached something after that, the next ones
    have to reach nothing for as long."""
    silent: float = 3.0
    """For which a pod that has a network has to reach nothing: a packet that is lost is sent again after 1 s, when one look at it is over."""
    poll: float = 0.2
    look: float = 30.0
    """Between two looks for leaks."""
    again: float = 5.0
    """After a pod that could not be made."""
    take: float = 240.0
    """Of who asks for one."""
    word: float = 3.0
    """For the cluster to say that a pod is gone, whose program was told to have ended."""


class Keeper:
    """`places`: what no sandbox may reach. Run `run` beside; `take` and `destroy` from anywhere in the same loop."""

    def __init__(
        self, api: Api, execs: Execs, settings: SandboxPods, *, namespace: str, name: str, places: Sequence[tuple[str, int]],
        owner: Object | None = None, patience: Patience = Patience(), clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._api, self._execs, self._settings, self._places = api, execs, settings, tuple(places)
        self._namespace, self._name, self._owner = namespace, name, owner
        self._patience, self._clock = patience, clock
        self._ready: deque[tuple[str, float]] = deque()
        """(pod, when it was made), the oldest first."""
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._taken: dict[str, str] = {}
        """Pod: the attempt that has it."""
        self._held: Counter[str] = Counter()
        """Pods that an attempt has or is about to get."""
        self._doomed: set[str] = set()
        self._waiting = 0
        self._news = asyncio.Condition()
        self._fault = ""
        self._open = False
        """The last pod whose network was judged could reach something."""
        self._not_before = 0.0

    @property
    def fault(self) -> str:
        """Why the newest pod could not be made; empty when it could."""
        return self._fault

    @property
    def ready(self) -> int:
        return len(self._ready)

    @property
    def taken(self) -> int:
        return len(self._taken)

    async def run(self) -> None:
        """Until it is cancelled; then all that it has made is destroyed."""
        look_at = 0.0
        try:
            while True:
                if self._clock() >= look_at:
                    await self._look()
                    look_at = self._clock() + self._patience.look
                self._retire()
                self._fill()
                await self._end_doomed()
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0), self._news:
                        await self._news.wait()
        finally:
            for task in self._starting.values():
                task.cancel()
            self._doomed |= {*self._starting, *self._taken, *(name for name, _ in self._ready)}
            await self._end_doomed()

    async def take(self, attempt: str, wanted: SandboxIn = SandboxIn()) -> str:
        """The name of a pod that is the attempt's until `destroy`. Raises AbruzziError `no_sandbox` when none comes in time, or none can be made,
        `image_refused`."""
        if not wanted.image:
            return await self._taken_by(attempt, self._next)
        if not self._settings.allows(wanted.image):
            raise AbruzziError(
                "image_refused", f"Image {wanted.image} is none that stages may name (sandboxes.pods.images of the chart).", status=403
            )  # fmt: skip
        name = await self._taken_by(attempt, self._room)
        try:
            await self._make(name, wanted)
        except BaseException:
            await asyncio.shield(self.destroy(name))
            raise
        return name

    async def _taken_by(self, attempt: str, one: Callable[[], Awaitable[str]]) -> str:
        may_have = False
        try:
            async with asyncio.timeout(self._patience.take), self._news:
                while self._held[attempt] >= self._settings.per_attempt:
                    await self._news.wait()
                self._held[attempt] += 1
                may_have = True
                try:
                    name = await one()
                except BaseException:
                    self._give_back(attempt)
                    self._news.notify_all()
                    raise
                self._taken[name] = attempt
                return name
        except TimeoutError:
            if may_have:
                why = self._fault or f"{len(self._taken)} of {self._settings.most} sandboxes are in use"
            else:
                most = self._settings.per_attempt
                why = f"{attempt} has {most} of the {most} that an attempt may have (sandboxes.pods.per_attempt of the chart)"
            raise AbruzziError(
                "no_sandbox", f"None came within {self._patience.take:.0f} s: {why}", status=503
            ) from None

    async def _next(self) -> str:
        self._waiting += 1
        try:
            self._news.notify_all()
            while not self._ready:
                if self._fault and not self._starting:
                    raise AbruzziError("no_sandbox", self._fault, status=503)
                await self._news.wait()
            self._news.notify_all()
            return self._ready.popleft()[0]
        finally:
            self._waiting -= 1

    async def _room(self) -> str:
        """A name for one that is yet to be made. Those that are ready make room for it."""
        while len(self._ready) + len(self._starting) + len(self._taken) >= self._settings.most:
            if self._ready:
                self._doomed.add(self._ready.popleft()[0])
            else:
                await self._news.wait()
        self._news.notify_all()
        return _new_name()

    async def destroy(self, name: str) -> None:
        if (attempt := self._taken.pop(name, None)) is not None:
            self._give_back(attempt)
        self._doomed.add(name)
        async with self._news:
            self._news.notify_all()

    def _give_back(self, attempt: str) -> None:
        self._held[attempt] -= 1
        if not self._held[attempt]:
            del self._held[attempt]

    async def why_gone(self, name: str, broken: str = "") -> str:
        """Of a taken pod whose program has not ended well: why, where it was the cluster that ended it; empty where it was the program, as far as anybody
        can see. `broken`: how the connection to it ended, where it was no end of the program."""
        end = self._clock() + self._patience.word
        while True:
            try:
                pod = await self._api.get(PODS, name, namespace=self._namespace)
            except NotFound:
                return "somebody deleted it"
            except ApiError as error:
                return broken or error.message
            if why := taken_away(pod):
                return why
            if pod["status"].get("phase") in ENDED:
                return ""
            if self._clock() > end:
                return broken
            await asyncio.sleep(self._patience.poll)

    def _fill(self) -> None:
        if self._clock() < self._not_before:
            return
        there = len(self._ready) + len(self._starting)
        wanted = max(self._settings.ready, self._waiting) - there
        for _ in range(min(wanted, self._settings.most - there - len(self._taken))):
            name = _new_name()
            task = asyncio.create_task(self._start(name), name=name)
            self._starting[name] = task

    async def _start(self, name: str) -> None:
        born, why = self._clock(), ""
        try:
            await self._make(name)
        except AbruzziError as error:
            why = error.message
        except asyncio.CancelledError:
            return
        async with self._news:
            self._starting.pop(name, None)
            if why:
                logger.warning("sandbox %s: %s", name, why)
                self._doomed.add(name)
                self._not_before = self._clock() + self._patience.again
            else:
                self._ready.append((name, born))
            self._fault = why
            self._news.notify_all()

    async def _make(self, name: str, wanted: SandboxIn = SandboxIn()) -> None:
        """Raises AbruzziError with the reason."""
        user = FIRST_USER + secrets.randbelow(USERS)
        pod = sandbox_pod(
            self._settings, name=name, namespace=self._namespace, keeper=self._name, user=user, owner=self._owner, wanted=wanted
        )  # fmt: skip
        await self._api.create(PODS, pod)
        end = self._clock() + (self._patience.pull if wanted.image else self._patience.start)
        while (state := await self._api.get(PODS, name, namespace=self._namespace))["status"].get("phase") != "Running":
            never = state["status"]["phase"] in ENDED or (wanted.image and _has_no_image(state))
            if never or self._clock() > end:
                raise AbruzziError("no_sandbox", f"A sandbox pod does not run: {_why(state)}", status=503)
            await asyncio.sleep(self._patience.poll)
        await self._judge_network(name, wanted.image or self._settings.image)

    async def _judge_network(self, name: str, image: str) -> None:
        """Raises AbruzziError where the pod can reach something. That it cannot is only believed when it lasts: a network that fails for a moment, as
        bridges do when another pod comes or goes, looks like one that is shut."""
        end, silent_since = self._clock() + self._patience.network, None
        while True:
            # Silence lasts from one look's beginning to another's: a look that a busy node draws out is one look.
            now = self._clock()
            reached, has_network = await self._reached(name, image)
            if not reached and not has_network:
                return
            if reached:
                silent_since = None
                if self._clock() > end:
                    self._open = True
                    raise AbruzziError(
                        "no_sandbox",
                        f"A sandbox pod reaches {', '.join(reached)}: no untrusted program is run there. The cluster's network has to enforce "
                        "NetworkPolicy, or the runtime class has to have no network.",
                        status=503,
                    )
            else:
                silent_since = now if silent_since is None else silent_since
                if now - silent_since >= (self._patience.network if self._open else self._patience.silent):
                    self._open = False
                    return
            await asyncio.sleep(self._patience.poll)

    async def _reached(self, name: str, image: str) -> tuple[list[str], bool]:
        """What it has reached, and whether it has a network."""
        said = b""
        async with self._execs.open(self._namespace, name, probe(self._places)) as stream:
            while data := await stream.receive():
                said += data
        try:
            answer = json.loads(said)
            return [str(place) for place in answer["reached"]], bool(answer["network"])
        except (ValueError, TypeError, KeyError) as error:
            told = stream.said or said.decode("utf-8", "replace") or "nothing"
            raise AbruzziError("no_sandbox", f"python3 in image {image} said: {told}", status=503) from error

    async def _look(self) -> None:
        """For pods that are nobody's, and ready ones that have ended."""
        try:
            found = await self._api.list(PODS, namespace=self._namespace, label_selector=f"{LABEL_KEEPER}={self._name}")
        except ApiError as error:
            logger.warning("%s", error.message)
            return
        alive = {pod["metadata"]["name"] for pod in found if pod.get("status", {}).get("phase") not in ENDED}
        self._ready = deque(each for each in self._ready if each[0] in alive)
        ours = {*self._starting, *self._taken, *(name for name, _ in self._ready)}
        self._doomed |= {pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]} - ours

    def _retire(self) -> None:
        oldest = self._clock() - self._settings.lifetime_seconds / 2
        while self._ready and self._ready[0][1] < oldest:
            self._doomed.add(self._ready.popleft()[0])

    async def _end_doomed(self) -> None:
        async def end(name: str) -> None:
            try:
                await self._api.delete(PODS, name, namespace=self._namespace)
            except NotFound:
                pass
            except ApiError as error:  # it stays doomed
                logger.warning("%s", error.message)
                return
            self._doomed.discard(name)

        await asyncio.gather(*(end(name) for name in tuple(self._doomed)))


def _new_name() -> str:
    return f"sandbox-{secrets.token_hex(6)}"


def _states(pod: Object) -> list[Object]:
    """Of its containers, where they have a reason."""
    status = pod["status"]
    there = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return [state for each in there for state in each.get("state", {}).values() if state.get("reason")]


def _has_no_image(pod: Object) -> bool:
    return any(state["reason"] in _NO_IMAGE for state in _states(pod))


def _why(pod: Object) -> str:
    """In the cluster's words."""
    status = pod["status"]
    waiting = [f"{state['reason']}: {state.get('message', '')}".rstrip(": ") for state in _states(pod)]
    unmet = [c["message"] for c in status.get("conditions") or () if c.get("status") == "False" and c.get("message")]
    return "; ".join([*waiting, *unmet]) or status.get("message") or f"it is {status.get('phase')}"
