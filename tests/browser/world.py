"""What the browser tests look at: a platform, and runs in every state that a page can show."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from browser.stand_in_recipe import recipe

from abruzzi.client.client import Client
from abruzzi.contracts.resources import RunOut
from abruzzi.contracts.states import RunState, StageState
from abruzzi_operators.supervisor.embedded import EmbeddedPlatform

STEPS = 600
HELD_STEP = 440


@dataclass(frozen=True)
class World:
    """`runs` by what they are: finished, other (another learning rate, no clip), failed, live (held in the middle of pretrain)."""

    platform: EmbeddedPlatform
    folder: Path
    runs: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.platform.url

    def submit(self, recipe_toml: str, name: str | None = None) -> str:
        with self.client() as client:
            return client.runs.submit(recipe_toml, name=name).id

    def run(self, run_id: str) -> RunOut:
        with self.client() as client:
            return client.runs.get(run_id)

    def state(self, run_id: str) -> RunState:
        return self.run(run_id).state

    def is_training(self, run_id: str, step: int = 1) -> bool:
        """Whether some rank of `pretrain` has reported `step`."""
        stage = next(stage for stage in self.run(run_id).detail if stage.id == "pretrain")
        ranks = stage.attempts[-1].ranks if stage.attempts else []
        return stage.state is StageState.RUNNING and any(rank.step >= step for rank in ranks)

    def until(self, condition: Callable[[], bool], what: str, *, seconds: float = 240.0) -> None:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s: {what}"
            time.sleep(0.1)

    def until_ended(self, run_id: str, *, seconds: float = 240.0) -> RunOut:
        self.until(lambda: self.state(run_id).is_terminal, f"the end of {run_id}", seconds=seconds)
        return self.run(run_id)

    def kill_api(self) -> None:
        """kill -9; the supervisor starts it again."""
        os.kill(self.platform.children["api"], signal.SIGKILL)

    def api_answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2.0).is_success
        except httpx.TransportError:
            return False

    def client(self) -> Client:
        return Client(self.url, self.platform.token, retry_seconds=30.0)


def populate(world: World) -> None:
    """Submits the runs and waits until each is where the tests want it."""
    quick = {"steps": STEPS, "pause": 0.01}
    world.runs["failed"] = world.submit(recipe(name="tiny-k2", fail="tokenize"), "tiny-k2, own corpus")
    world.runs["finished"] = world.submit(recipe(name="tiny-k2", **quick), "tiny-k2, QK-Clip")
    world.runs["other"] = world.submit(
        recipe(name="tiny-k2", seed=2, peak_lr="3e-3", clip=False, **quick), "tiny-k2, plain Muon"
    )
    world.runs["live"] = world.submit(
        recipe(name="tiny-k2", seed=3, ranks=2, hold_at=HELD_STEP, hold_file=world.folder / "never", **quick),
        "tiny-k2, two ranks",
    )
    for name, state in (("finished", RunState.SUCCEEDED), ("other", RunState.SUCCEEDED), ("failed", RunState.FAILED)):
        run = world.until_ended(world.runs[name], seconds=240.0)
        assert run.state is state, f"{name}: {run.state}, {run.reason}"
    live = world.runs["live"]
    world.until(lambda: world.is_training(live, HELD_STEP), "the live run in the middle of pretrain", seconds=240.0)
