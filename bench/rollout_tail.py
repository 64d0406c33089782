"""The tail of rollouts: an iteration's time with a barrier, with partial rollout, with APRIL's over-sampling, and where what is late is thrown away.

    python bench/rollout_tail.py [--out FILE] [--iterations 150] [--seeds 5] [--no-real] [--real-iterations 60]

Lengths are lognormal with the 99th percentile at ten times the median (reference/rl.md 5). The real scheduler runs all arms, with as many sequences at once in
each. Simulated engine: a decode step takes a + b·n for n sequences, b/a of three kinds (`decode_step_doubles_at`: sequences that take twice as long as one); what is resumed
is computed anew (prefill), as the weights have changed. Arms differ in two numbers only: how many groups beyond the iteration's need are under way, and
whether what is cut is kept. The lower bound is that of an engine which is always full. Simulated figures do not depend on the machine's load.

`real`: the same arms with the embedded engine, a tiny model and wall time, an iteration of each in turn; that figure does. Weights are new in each
iteration (their loading is not counted), so what is resumed is computed anew there, too.

Targets: a barrier's step takes at least 1.5 times as long as partial rollout's; the mean length of what is trained on is within 2 % of what was asked for.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from interleaved import machine, report

from abruzzi.contracts.rollout import Status
from abruzzi.contracts.training import ModelConfig as ModelTable
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.rollout.concurrency import ConcurrencyPolicy
from abruzzi_jobs.rl.rollout.events import (
    Begin,
    Command,
    Complete,
    Draw,
    Drop,
    End,
    Ended,
    Event,
    Offered,
    Pause,
    Play,
    Stood,
    Stop,
)
from abruzzi_jobs.rl.rollout.scheduler import Scheduler, SchedulerPolicy

MEDIAN_TOKENS = 400
SIGMA = math.log(10) / statistics.NormalDist().inv_cdf(0.99)
"""Of the logarithm of the length: p99 = 10 × median."""
MOST_OVER_MEDIAN = 100
PROMPT_TOKENS = 200
REAL_MEDIAN_TOKENS, REAL_MOST_OVER_MEDIAN, REAL_PROMPT_TOKENS = 16, 30, 16
WARM_UP = 10
"""Iterations until as much stands at the end of one as at its beginning."""


@dataclass(frozen=True)
class Arm:
    ahead: float
    keeps: bool = True


ARMS = {
    "barrier": Arm(0.0),
    "partial": Arm(0.5),
    "april": Arm(1.0),
    "discard": Arm(0.5, keeps=False),
}
"""`april`: twice as many groups as needed are under way, the rest is recycled (APRIL's over-provision, terminate, recycle). `discard`: half as many more than
needed, and what is not whole is thrown away (over-sampling alone)."""


class Clock(Protocol):
    """An engine as far as time goes: `start` with the tokens so far and those to come; `advance` to the next end."""

    now: float

    def start(self, member: str, *, so_far: int, left: int) -> None: ...

    def advance(self) -> list[str]: ...

    def stop(self) -> dict[str, int]:
        """All that run, with the tokens that they have had since their start."""
        ...

    def renew(self) -> None:
        """The weights have changed."""
        ...


class SimulatedEngine:
    def __init__(self, *, double_at: int, prefill_tokens_per_step: int) -> None:
        self.now = 0.0
        """In decode steps of a single sequence."""
        self.sequence_steps = 0.0
        self.steps = 0.0
        self._slope, self._prefill = 1 / double_at, prefill_tokens_per_step
        self._done = 0
        self._begun: dict[str, int] = {}
        """Step of the beginning."""
        self._ends: list[tuple[int, str]] = []
        """A heap: step of the end."""

    def renew(self) -> None: ...

    def start(self, member: str, *, so_far: int, left: int) -> None:
        self.now += (PROMPT_TOKENS + so_far) / self._prefill
        self._begun[member] = self._done
        heapq.heappush(self._ends, (self._done + left, member))

    def advance(self) -> list[str]:
        until = self._ends[0][0]
        steps, at_once = until - self._done, len(self._ends)
        self.now += steps * (1 + self._slope * at_once)
        self.steps += steps
        self.sequence_steps += steps * at_once
        self._done = until
        ended = []
        while self._ends and self._ends[0][0] == until:
            ended.append(heapq.heappop(self._ends)[1])
            del self._begun[ended[-1]]
        return ended

    def stop(self) -> dict[str, int]:
        had = {member: self._done - begun for member, begun in self._begun.items()}
        self._begun.clear()
        self._ends.clear()
        return had


class EmbeddedEngine:
    """A tiny model, wall time. Requests end by their length alone."""

    def __init__(self, *, at_once: int, most_tokens: int) -> None:
        table = ModelTable.model_validate({"preset": "nano", "max_position": REAL_PROMPT_TOKENS + most_tokens + 8})
        model = KimiK2(ModelConfig.from_dict(table.model_dump()), seed=0)
        self._engine = TorchEngine(model, max_running=at_once)
        self._drawn: dict[str, list[int]] = {}
        self._version = 0
        self.now = 0.0

    def renew(self) -> None:
        """The same weights as a new version, so that no cache is good any more; not counted."""
        self._version += 1
        self._engine.pause("abort")
        self._engine.begin_update(self._version)
        state = {name: tensor.clone() for name, tensor in self._engine.model.state_dict().items()}
        self._engine.load_bucket(state.items())
        self._engine.finish_update(self._version)
        self._engine.resume()

    def start(self, member: str, *, so_far: int, left: int) -> None:
        tokens = tuple(range(2, 2 + REAL_PROMPT_TOKENS)) + tuple(self._drawn.get(member, ()))
        began = time.perf_counter()
        self._engine.submit(
            Request(
                id=member,
                tokens=tokens,
                max_tokens=left,
                temperature=1.0,
                seed=zlib.crc32(member.encode()),
                stop_tokens=frozenset(),
                group=member.split("/")[0],
            )
        )
        self.now += time.perf_counter() - began

    def advance(self) -> list[str]:
        began = time.perf_counter()
        while not (ended := self._engine.step()):
            pass
        self.now += time.perf_counter() - began
        for one in ended:
            self._drawn.pop(one.request_id, None)
        return [one.request_id for one in ended]

    def stop(self) -> dict[str, int]:
        began = time.perf_counter()
        stopped = self._engine.pause("abort")
        self._engine.resume()
        self.now += time.perf_counter() - began
        for one in stopped:
            self._drawn.setdefault(one.request_id, []).extend(one.segment.tokens)
        return {one.request_id: len(one.segment.tokens) for one in stopped}


@dataclass
class Rolling:
    """One arm, iteration by iteration."""

    arm: Arm
    engine: Clock
    seed: int
    groups: int
    members: int
    at_once: int
    asked: dict[str, int] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    versions: dict[str, set[int]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    resumed_tokens: int = 0
    dropped: int = 0
    median: int = MEDIAN_TOKENS
    most: int = MEDIAN_TOKENS * MOST_OVER_MEDIAN

    def __post_init__(self) -> None:
        self.had: dict[str, int] = {}
        self.drawn = 0
        self.events: list[Event] = []
        self.running: dict[str, int] = {}
        self.scheduler = self._scheduler()

    def _scheduler(self) -> Scheduler:
        concurrency = ConcurrencyPolicy(start=self.at_once, most=self.at_once)
        return Scheduler(
            SchedulerPolicy(
                groups=self.groups,
                members=self.members,
                ahead=self.arm.ahead,
                max_span=10_000,
                lease_s=math.inf,
                deadline_s=math.inf,
                pause_grace_s=math.inf,
                concurrency=concurrency,
            )
        )

    def iterate(self, version: int) -> None:
        self.engine.renew()
        began = self.engine.now
        if not self.arm.keeps:
            self.scheduler, self.had = self._scheduler(), {}
        self.version = version
        self.events = [Begin(version)]
        while (complete := self._handle()) is None:
            self.events += [Ended(name, self.running.pop(name), Status.OK) for name in self.engine.advance()]
        for group in complete.groups:
            self.trained += [f"{group}/{index}" for index in range(self.members)]
        if not self.arm.keeps:
            self.scheduler.decide(Stop(), 0.0)
        self.seconds.append(self.engine.now - began)

    def _handle(self) -> Complete | None:
        while self.events:
            for command in self.scheduler.decide(self.events.pop(0), 0.0):
                if isinstance(command, Complete):
                    return command
                self._do(command)
        return None

    def _do(self, command: Command) -> None:
        match command:
            case Draw():
                names = tuple(f"g{self.drawn + number}" for number in range(command.count))
                self.drawn += command.count
                self.events.append(Offered(names))
            case Play():
                name = command.member
                if name not in self.asked:
                    self.asked[name] = length_of(self.seed, name, self.median, self.most)
                had = self.had.get(name, 0)
                self.resumed_tokens += had
                self.versions.setdefault(name, set()).add(self.version)
                self.running[name] = command.dispatch
                self.engine.start(name, so_far=had, left=self.asked[name] - had)
            case Pause():
                for name, tokens in self.engine.stop().items():
                    self.had[name] = self.had.get(name, 0) + tokens
                    self.events.append(Stood(name, self.running.pop(name)))
            case Drop():
                self.dropped += 1
            case End():
                self.had.pop(command.member, None)

    def figures(self) -> dict[str, Any]:
        asked = statistics.fmean(self.asked.values())
        trained = statistics.fmean(self.asked[name] for name in self.trained)
        settled = self.seconds[WARM_UP:]
        spans = [len(self.versions[name]) for name in self.trained]
        tokens = sum(self.asked[name] for name in self.trained)
        return {
            "step_mean": statistics.fmean(settled),
            "step_median": statistics.median(settled),
            "step_p99": statistics.quantiles(settled, n=100)[98] if len(settled) > 1 else settled[0],
            "trained_tokens_mean": trained,
            "asked_tokens_mean": asked,
            "length_bias": trained / asked - 1,
            "trained_trajectories": len(self.trained),
            "asked_trajectories": len(self.asked),
            "computed_anew_per_trained_token": self.resumed_tokens / tokens,
            "versions_mean": statistics.fmean(spans),
            "versions_max": max(spans),
            "several_versions_fraction": sum(span > 1 for span in spans) / len(spans),
        }


def length_of(seed: int, name: str, median: int, most: int) -> int:
    """The same in every arm: of the group's number and the member's."""
    drawn = random.Random(f"{seed} {name}").lognormvariate(math.log(median), SIGMA)
    return max(1, min(most, round(drawn)))


def simulated(
    *, seeds: int, iterations: int, double_at: int, prefill: int, groups: int, members: int
) -> dict[str, Any]:
    at_once = groups * members
    arms: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        for name, arm in ARMS.items():
            engine = SimulatedEngine(double_at=double_at, prefill_tokens_per_step=prefill)
            rolling = Rolling(arm, engine, seed, groups, members, at_once)
            for version in range(iterations):
                rolling.iterate(version)
            full = (1 + at_once / double_at) / at_once
            tokens = sum(rolling.asked[member] for member in rolling.trained)
            bound = tokens * full / len(rolling.seconds)
            found = rolling.figures()
            found["slots_idle_fraction"] = 1 - engine.sequence_steps / (engine.steps * at_once)
            found["step_over_lower_bound"] = found["step_mean"] / bound
            arms[name].append(found)
    return {
        "groups": groups,
        "members": members,
        "sequences_at_once": at_once,
        "decode_step_doubles_at": double_at,
        "prefill_tokens_per_single_step": prefill,
        "iterations": iterations,
        "seeds": seeds,
        "arms": _summary(arms),
    }


def real(*, rounds: int, iterations: int, groups: int, members: int) -> dict[str, Any]:
    """All arms, an iteration of each in turn."""
    at_once = groups * members
    most = REAL_MEDIAN_TOKENS * REAL_MOST_OVER_MEDIAN
    arms: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    for seed in range(rounds):
        rolling = {
            name: Rolling(
                arm,
                EmbeddedEngine(at_once=at_once, most_tokens=most),
                seed,
                groups,
                members,
                at_once,
                median=REAL_MEDIAN_TOKENS,
                most=most,
            )
            for name, arm in ARMS.items()
        }
        for version in range(iterations):
            for one in rolling.values():
                one.iterate(version)
        for name, one in rolling.items():
            arms[name].append(one.figures())
    summary = _summary(arms)
    return {"groups": groups, "members": members, "iterations": iterations, "rounds": rounds, "arms": summary}


def _summary(arms: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Medians over seeds, and the figures that are claimed for each of them."""
    summary: dict[str, dict[str, Any]] = {
        name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in arms.items()
    }
    for name, runs in arms.items():
        ratios = [whole["step_mean"] / one["step_mean"] for whole, one in zip(arms["barrier"], runs, strict=True)]
        summary[name]["barrier_over_this"] = statistics.median(ratios)
        summary[name]["barrier_over_this_each_seed"] = ratios
        summary[name]["length_bias_each_seed"] = [one["length_bias"] for one in runs]
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--real", action=argparse.BooleanOptionalAction, default=True, help="With the embedded engine, too."
    )
    parser.add_argument("--real-iterations", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    grounds = {
        "wide engine": {"double_at": 256, "prefill": 200},
        "narrow engine": {"double_at": 32, "prefill": 20},
        "engine without any width": {"double_at": 1, "prefill": 4},
    }
    result: dict[str, Any] = {
        "what": "Time of an iteration's rollouts with long tails; trained against requested lengths.",
        "machine": machine(threads=options.threads),
        "lengths": {
            "median": MEDIAN_TOKENS,
            "p99_over_median": 10,
            "most_over_median": MOST_OVER_MEDIAN,
            "prompt": PROMPT_TOKENS,
        },
        "simulated": {
            name: simulated(seeds=options.seeds, iterations=options.iterations, groups=32, members=8, **ground)
            for name, ground in grounds.items()
        },
    }
    if options.real:
        torch.set_num_threads(options.threads)
        result["real"] = real(rounds=options.seeds, iterations=options.real_iterations, groups=8, members=4)
    claimed = [result["simulated"]["wide engine"], *([result["real"]] if options.real else [])]
    result["target"] = "barrier over partial >= 1.5 and |length bias| < 0.02, each where decoding has width"
    result["met"] = all(
        one["arms"]["partial"]["barrier_over_this"] >= 1.5 and abs(one["arms"]["partial"]["length_bias"]) < 0.02
        for one in claimed
    )
    report(result, out=options.out)
    if not result["met"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
