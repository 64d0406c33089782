"""What telemetry costs training: seconds of `log()` in a real training loop, and tokens/s with telemetry on against off.

    python bench/telemetry.py [--out FILE] [--rounds 7] [--threads 2]

"On" is the real thing: a platform (`abruzzi up`: PostgreSQL, API, controller) on this very machine takes the points, heartbeats and all, of
an attempt that it has started; "off" is the same loop with a reporter that does nothing. Blocks of steps take turns in one process.
A block takes several times the three seconds after which the reporter sends, so that what an "on" block has logged is also sent and stored within it.
Processor time is stated beside tokens/s, because it stays true on a busy machine.
Targets: log() p99 at most 20 µs; less than 1 % of tokens/s (the median of the paired blocks, its 95 % interval beside it).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from interleaved import machine, report
from training_lab import NANO, Lab, merged

from abruzzi.client import Client
from abruzzi.client.stage import Reporter, StageContext
from abruzzi.client.stage.delivery import Delivery
from abruzzi.contracts.recipe import PretrainStage
from abruzzi.store import open_store
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.train.pretraining import Pretraining
from abruzzi_operators.supervisor.embedded import EmbeddedPlatform

WAITING = """
version = 1
name = "telemetry-bench"
[[stage]]
id = "wait"
kind = "container"
[stage.container]
command = ["sleep", "3600"]
"""
LOG_P99_US = 20.0
SLOWER_BY = 0.01
QUIET = {"every": None, "every_steps": None}
ENDLESS: dict[str, Any] = {"tokens": 10**10, "decay_fraction": 0.0}
LOG_MODEL = {
    "checkpoint": QUIET,
    "schedule": ENDLESS,
    "telemetry": {"spectral_every_steps": 0, "held_out_every_steps": 0},
}
"""The smallest model: the most log() calls a second."""
RATE_MODEL = merged(
    LOG_MODEL,
    {
        "model": {
            "preset": "tiny", "hidden_size": 128, "num_layers": 4, "num_heads": 4, "q_lora_rank": 64,
            "kv_lora_rank": 48, "intermediate_size": 384, "moe_intermediate_size": 64, "max_position": 256,
        },
        "batch": {"sequences": 8, "sequence_length": 256, "micro_sequences": None},
    },
)  # fmt: skip
"""As in recipes/tiny.toml."""


class Timed:
    """A reporter whose log() is timed."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.heartbeat = reporter.heartbeat
        self.nanoseconds: list[int] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        began = time.perf_counter_ns()
        self._reporter.log(metrics, step)
        self.nanoseconds.append(time.perf_counter_ns() - began)


class Processes:
    """The platform's: supervisor, API, controller, PostgreSQL."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def cpu_seconds(self) -> float:
        total = 0.0
        for process in [self._root, *self._root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total


class Off:
    def log(self, metrics: dict[str, float], step: int) -> None: ...

    def heartbeat(self, *_: object, **__: object) -> None: ...


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--block-steps", type=int, default=100)
    parser.add_argument("--log-steps", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="telemetry-") as folder:
        root = Path(folder)
        platform = EmbeddedPlatform(root / "home")
        platform.start()
        try:
            result = measure(root, platform, options)
        finally:
            platform.stop()
    result["targets"] = {"log_p99_us": LOG_P99_US, "slower_by": SLOWER_BY}
    result["ok"] = result["log_p99_us"] <= LOG_P99_US and result["slower_by"] < SLOWER_BY
    report({**result, "machine": machine(threads=options.threads)}, out=options.out)
    return 0 if result["ok"] else 1


def interval_of_median(values: list[float]) -> list[float]:
    """95 %, by resampling with a fixed seed."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(4000))
    return [medians[100], medians[-101]]


def measure(root: Path, platform: EmbeddedPlatform, options: argparse.Namespace) -> dict[str, Any]:
    reporter = reporter_of_a_real_attempt(root, platform)
    timed = Timed(reporter)
    loop = training(root / "log", LOG_MODEL, timed)
    for _ in range(options.log_steps):
        loop._one_step()
    latencies = sorted(timed.nanoseconds)
    loop = training(root / "rate", RATE_MODEL, reporter)
    loop.step = options.log_steps  # so that no point is a second one of its step
    rates: dict[str, list[float]] = {"on": [], "off": []}
    costs: dict[str, list[float]] = {"thread": [], "platform_on": [], "platform_off": []}
    server = Processes(platform.pid)
    for _ in range(3):
        loop._one_step()
    for number in range(options.rounds):
        for name in ("on", "off") if number % 2 else ("off", "on"):
            loop.reporter = reporter if name == "on" else Off()  # type: ignore[assignment]
            thread, server_seconds = reporter.thread_seconds, server.cpu_seconds()
            began, tokens = time.perf_counter(), loop.tokens
            for _ in range(options.block_steps):
                loop._one_step()
            seconds = time.perf_counter() - began
            rates[name].append((loop.tokens - tokens) / seconds)
            costs[f"platform_{name}"].append((server.cpu_seconds() - server_seconds) / seconds)
            if name == "on":
                costs["thread"].append((reporter.thread_seconds - thread) / seconds)
    ratios = [on / off for on, off in zip(rates["on"], rates["off"], strict=True)]
    reporter.close()
    return {
        "log_p50_us": latencies[len(latencies) // 2] / 1e3,
        "log_p99_us": latencies[len(latencies) * 99 // 100] / 1e3,
        "log_max_us": latencies[-1] / 1e3,
        "log_calls": len(latencies),
        "tokens_per_second_on": statistics.median(rates["on"]),
        "tokens_per_second_off": statistics.median(rates["off"]),
        "slower_by": 1 - statistics.median(ratios),
        "slower_by_interval": interval_of_median([1 - ratio for ratio in ratios]),
        "slower_by_each_round": [1 - ratio for ratio in ratios],
        "reporter_thread_share_of_a_core": statistics.median(costs["thread"]),
        "platform_share_of_a_core_on": statistics.median(costs["platform_on"]),
        "platform_share_of_a_core_off": statistics.median(costs["platform_off"]),
        "points_sent": reporter.points_sent,
        "points_dropped": reporter.points_dropped,
        "points_in_spool": reporter.points_spooled,
    }


def reporter_of_a_real_attempt(root: Path, platform: EmbeddedPlatform) -> Reporter:
    with Client(platform.url, platform.token) as client:
        run_id = client.runs.submit(WAITING).id
        deadline = time.monotonic() + 60
        while not (attempts := client.runs.get(run_id).detail[0].attempts):
            if time.monotonic() > deadline:
                raise SystemExit("the platform started no attempt within a minute")
            time.sleep(0.1)
    folder = root / "home" / "attempts" / attempts[0].id
    while not (folder / "token").exists():
        time.sleep(0.1)
    token = (folder / "token").read_text().strip()
    rank_dir = root / "rank"
    rank_dir.mkdir()
    return Reporter(
        rank=0, rank_dir=rank_dir, delivery=Delivery(attempt_id=attempts[0].id, url=platform.url, token=token)
    )


def training(root: Path, changes: dict[str, Any], reporter: Any) -> Pretraining:
    root.mkdir()
    lab = Lab(root)
    spec = lab.spec(changes)
    attempt = root / "attempt"
    attempt.mkdir()
    context = StageContext(spec, 0, 1, attempt, open_store(spec.store))
    stage = PretrainStage.model_validate(merged(NANO, changes))
    return Pretraining(context, reporter, stage, Ranks(rank=0, world_size=1, device=torch.device("cpu")))


if __name__ == "__main__":
    sys.exit(main())
