"""An rl stage without the platform: a nano policy with fresh weights, and an environment that rewards digits, which even such a policy can learn."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import save_file
from training_lab import Lab, merged
from tuning_lab import small_tokenizer

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.training import ModelConfig as ModelTable
from abruzzi.store import list_manifests, materialize
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.rl.controller.cycle import Phase
from abruzzi_jobs.rl.environments.answers import scored
from abruzzi_jobs.rl.environments.environment import Environment, Message, Services, StepResult
from abruzzi_jobs.rl.environments.single_turn import QuestionGym, SingleTurn
from abruzzi_jobs.sft.markers import marker_sets, write_chat_tokenizer

REINFORCEMENT: dict[str, Any] = {
    "id": "rl",
    "kind": "rl",
    "rl": {
        "environments": [{"name": "rl_lab:Digits"}],
        "iterations": 4,
        "groups_per_iteration": 2,
        "group_size": 4,
        "minibatches": 2,
        "budget": {"tokens": 6},
        "held_out": {"every_iterations": 2, "tasks": 4},
        "reward": {"workers": 1},
    },
    "optimizer": {"peak_lr": 0.02},
    "checkpoint": {"every_steps": 2, "every": None, "min_free_bytes": 0},
    "resources": {"threads": 1},
}
TESTS = str(Path(__file__).parent)
KILLED_STAGE = Path(__file__).with_name("killed_stage.py")
MOST_PULSES = 1030
"""What happens in an undisturbed run of these four iterations, about (killed_stage.py)."""
TRAINS: dict[str, Any] = {"rl": {"groups_per_iteration": 4, "budget": {"tokens": 32}}}
"""Of six tokens none ends an answer by itself in the first iterations: all are cut, all rewards are the same, and nothing is learned."""
LOOP = {phase.value for phase in Phase}
UNKNOWN = 4
"""Tokens that the policy may draw and the tokenizer does not know."""


class Digits(QuestionGym):
    """The share of digits in what was said, on a question of no matter."""

    name = "digits"
    summary = "Digits are rewarded."
    families = ("short", "long")
    """Of two rewards in one stage, where a test wants that."""

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        return {"prompt": f"Weather in {draw.randrange(1000)}?"}

    def judge(self, task: Task, text: str) -> Outcome:
        share = sum(character.isdigit() for character in text) / max(1, len(text))
        return scored(self.reference, share, digits=share)


class Judged(Digits):
    """What the role `judge` says of what was said."""

    name = "judged"
    roles = ("judge",)

    def session(self, services: Services = Services()) -> Environment:
        return JudgedSession(services.backends["judge"])

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        return scored(self.reference, state["score"])


class JudgedSession(SingleTurn):
    def __init__(self, judge: ChatBackend) -> None:
        self._judge, self._said = judge, ""

    async def step(self, action: Message) -> StepResult:
        self._said = action["content"]
        return await super().step(action)

    async def state(self) -> dict[str, Any]:
        asked = f"<rubric>contains: e</rubric><answer>{self._said}</answer>"
        response = await self._judge.complete(ChatRequest(messages=[{"role": "user", "content": asked}]))
        return {"score": json.loads(response.text)["score"]}


class RlLab(Lab):
    stage_id = "rl"
    environment: ClassVar[dict[str, str]] = {"PYTHONPATH": TESTS}
    """The environment's reward is imported by the processes that compute it."""

    def __init__(self, root: Path, *, made: Path) -> None:
        """`made`: a folder as `make_policy` leaves it."""
        super().__init__(root, dataset=made / "dataset")
        maker = self._spec("sft", {}, epoch=1)
        self.inputs = {
            "checkpoint": self.committed(maker, ArtifactKind.CHECKPOINT, "step-00000001", made / "checkpoint"),
            "tokenizer": self.committed(maker, ArtifactKind.TOKENIZER, "tokenizer", made / "chat-tokenizer"),
        }

    def reinforcing(self, changes: dict[str, Any] | None = None, *, epoch: int = 1, diverged: int = 0) -> StageSpec:
        """The spec of attempt `epoch`, resuming from what the platform would pick."""
        stage = RlStage.model_validate(merged(REINFORCEMENT, changes or {}))
        spec = self._spec("rl", stage.model_dump(mode="json"), epoch=epoch)
        return self.resuming(spec.model_copy(update={"inputs": self.inputs}), diverged=diverged)

    def output(self, kind: ArtifactKind) -> Manifest:
        """Of the newest attempt that made one."""
        found = [m for _, m in list_manifests(self.store, self.reinforcing().output_prefix) if m.kind is kind]
        return max(found, key=lambda manifest: manifest.epoch)

    def rollouts(self) -> list[dict[str, Any]]:
        folder = self.root / "pulled"
        folder.mkdir(exist_ok=True)
        manifest = self.output(ArtifactKind.ROLLOUTS)
        materialize(self.store, manifest, self.reinforcing().output_prefix, folder)
        return list(read_rows(folder, "rollouts"))

    def ended(self) -> set[str]:
        """Trajectories that are written down as ended, in the iteration that is played."""
        keys = self.store.list(f"{self.reinforcing().output_prefix}rl/line-000000/rollouts/")
        names = (key.rpartition("/")[2].removesuffix(".json.zst") for key in keys if "/ended/" in key)
        return {"/".join(name.rsplit("-", 1)) for name in names}


@dataclass
class Killed:
    """What became of runs that were killed at random points, beside one that was not."""

    kills: int = 0
    runs: int = 0
    lost: int = 0
    """Trajectories that were written down as ended when a process died, and are not among the stage's in the end."""
    trained_twice: int = 0
    ends_alike: bool = True
    """The same weights, optimizer and rollouts, bit for bit, as without any kill."""
    recovery_seconds: list[float] = field(default_factory=list)
    """From the start of the next process until it plays or trains."""


def kill_at_random_points(
    folder: Path, made: Path, *, kills: int, seed: int, changes: dict[str, Any] | None = None
) -> Killed:
    """`changes` to REINFORCEMENT; by default those with which it learns."""
    changes = TRAINS if changes is None else changes
    draw, found = random.Random(seed), Killed()

    def lab(name: str) -> RlLab:
        (folder / name).mkdir()
        return RlLab(folder / name, made=made)

    whole = lab("whole")
    whole.run(whole.reinforcing(changes))
    last, *_, first = (whole.digests(checkpoint)["model.safetensors"] for checkpoint in whole.checkpoints())
    assert first != last, "nothing was learned: the same bits would say nothing"
    expected = (whole.digests(), whole.output(ArtifactKind.ROLLOUTS).files)
    while found.kills < kills:
        found.runs += 1
        killed, seen = lab(f"killed-{found.runs}"), set[str]()
        for epoch in itertools.count(1):
            is_last = found.kills >= kills
            after = {} if is_last else {"KILL_AFTER": str(draw.randrange(MOST_PULSES))}
            spec = killed.reinforcing(changes, epoch=epoch)
            began = time.monotonic()
            attempt = killed.start(spec, environment=after, program=None if is_last else KILLED_STAGE)
            if epoch > 1:
                attempt.until(lambda a=attempt: a.phase() in LOOP or a.processes[0].poll() is not None)
                found.recovery_seconds.append(time.monotonic() - began)
            (code,) = attempt.wait()
            assert code in (0, -signal.SIGKILL), attempt.log()
            if code == 0:
                break
            found.kills += 1
            seen |= killed.ended()
        rows = killed.rollouts()
        names = [row["id"] for row in rows]
        found.lost += len(seen - set(names))
        found.trained_twice += len(names) - len(set(names))
        found.ends_alike &= (killed.digests(), killed.output(ArtifactKind.ROLLOUTS).files) == expected
        shutil.rmtree(folder / f"killed-{found.runs}")
    return found


def make_policy(folder: Path, *, positions: int = 128) -> Path:
    """Once for many labs: fresh weights and a tokenizer with the chat template, and an empty dataset folder, which a lab wants."""
    small_tokenizer(folder)
    (folder / "chat-tokenizer").mkdir()
    tokenizer = write_chat_tokenizer(
        folder / "tokenizer", folder / "chat-tokenizer", marker_sets()["shipped"], "typescript"
    )
    vocabulary = tokenizer.get_vocab_size() + UNKNOWN
    table = ModelTable.model_validate(
        {"preset": "nano", "vocab_size": vocabulary, "max_position": positions}
    ).model_dump()
    (folder / "checkpoint").mkdir()
    save_file(KimiK2(ModelConfig.from_dict(table), seed=0).state_dict(), folder / "checkpoint" / "model.safetensors")
    (folder / "checkpoint" / "state.json").write_text(json.dumps({"config": {"model": table}}))
    (folder / "dataset").mkdir()
    (folder / "dataset" / "dataset.json").write_text("{}")
    return folder
