"""The rl stage on actors: the result of the one process bit for bit, through the loss of any of its parts."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from actor_places import Death, HereActor, HerePlace
from rl_lab import TESTS, RlLab, make_policy
from safetensors.torch import load_file

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.rollout import Task
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.checkpoint.tensor_file import WEIGHTS, TensorFile, file_name
from abruzzi_jobs.distributed import lone_rank
from abruzzi_jobs.distributed.whole import Part
from abruzzi_jobs.rl.actors.crew import Crew
from abruzzi_jobs.rl.actors.stage import ReinforcementOnActors
from abruzzi_jobs.rl.controller.stage import Reinforcement
from abruzzi_jobs.rl.environments.environment import Observation, StepResult

pytestmark = pytest.mark.slow

TASK = Task(id="t", family="short", environment="digits@1")
TABLE: dict[str, Any] = {
    "rl": {"iterations": 3, "groups_per_iteration": 4, "budget": {"tokens": 32}, "held_out": {"every_iterations": 0}},
    "checkpoint": {"every_steps": 1, "keep_last": 3},
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", TESTS)


def context_of(lab: RlLab, **changes: Any) -> tuple[StageContext, RlStage]:
    spec = lab.reinforcing({**TABLE, **changes})
    folder = lab.root / "attempts" / spec.attempt_id
    folder.mkdir(parents=True)
    return StageContext(spec, 0, 1, folder, lab.store), RlStage.model_validate(spec.config)


async def run_here(lab: RlLab, **changes: Any) -> None:
    context, stage = context_of(lab, **changes)
    await Reinforcement(context, Reporter.from_context(context), stage, lone_rank()).run()


async def run_on(lab: RlLab, place: HerePlace, *, replicas: int, **changes: Any) -> None:
    on_actors = {"framework": "ray", "ranks": replicas, "threads": 1}
    context, stage = context_of(lab, resources=on_actors, **changes)
    await ReinforcementOnActors(context, Reporter.from_context(context), stage, lone_rank()).run_on(place)


def results(lab: RlLab) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Weights and optimizer, and every rollout with its tokens, versions and rewards."""
    tensors = {name: digest for name, digest in lab.digests().items() if name.endswith(".safetensors")}
    return tensors, lab.rollouts()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Of one process."""
    lab = RlLab(tmp_path_factory.mktemp("one-process"), made=policy)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the tests' own (one_thread), which comes later than this
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", TESTS)
        asyncio.run(run_here(lab))
    torch.set_num_threads(threads)
    first, *_, last = sorted(lab.checkpoints(), key=lambda each: each.step or 0)
    model = "model.safetensors"
    assert lab.digests(first)[model] != lab.digests(last)[model], "it has learned something, or the tests say nothing"
    return results(lab)


KILLS = {
    "one of two replicas, twice while it plays": (
        2, [Death("EngineReplica", "generate", 3), Death("EngineReplica", "generate", 15, is_after=True)],
    ),
    "a replica in an update": (2, [Death("EngineReplica", "update", 2)]),
    "the trainer while it comes up, when it has begun, and in a step": (
        1,
        [
            Death("TrainerActor", "start", 1), Death("TrainerActor", "begin", 1, is_after=True),
            Death("TrainerActor", "start", 3), Death("TrainerActor", "step", 4, is_after=True),
        ],
    ),
}  # fmt: skip
MORE_KILLS = {
    "nobody": (1, []),
    "the only replica": (1, [Death("EngineReplica", "generate", 5)]),
    "a replica while the checkpoint is read": (2, [Death("EngineReplica", "start_from", 1)]),
    "the trainer in an update": (2, [Death("TrainerActor", "update", 2)]),
    "the trainer when all have the update and nobody has heard": (
        2, [Death("TrainerActor", "update", 2, is_after=True)],
    ),
    "workers": (
        1, [Death("WorkerActor", "reset", 2), Death("WorkerActor", "score", 4), Death("WorkerActor", "state", 20, is_after=True)],
    ),
}  # fmt: skip
EVERY_STEPS = {"the trainer when all have the update and nobody has heard": 2}
"""A checkpoint, else each: so the next trainer begins below the version that is played."""
CASES = [
    pytest.param(*case, EVERY_STEPS.get(name, 1), id=name, marks=[pytest.mark.prove] * (name in MORE_KILLS))
    for name, case in (KILLS | MORE_KILLS).items()
]


@pytest.mark.parametrize(("replicas", "deaths", "every_steps"), CASES)
async def test_whoever_is_killed_it_ends_with_the_bits_of_one_process(
    tmp_path: Path,
    policy: Path,
    expected: tuple[dict[str, str], list[dict[str, Any]]],
    replicas: int,
    deaths: list[Death],
    every_steps: int,
) -> None:
    lab, place = RlLab(tmp_path, made=policy), HerePlace(deaths=list(deaths))
    await run_on(lab, place, replicas=replicas, checkpoint={**TABLE["checkpoint"], "every_steps": every_steps})
    assert Counter(place.happened) == Counter(deaths), place.calls
    found = results(lab)
    names = [row["id"] for row in found[1]]
    assert len(names) == len(set(names)) == 3 * 4 * 4, "each trajectory once"
    assert all(row["versions"] == [row["iteration"] - 1] for row in found[1]), "played by the version it trains"
    assert found == expected
    assert lab.output(ArtifactKind.TOKENIZER).files


def saved_by_two_ranks(policy: Path, folder: Path) -> Path:
    """The same policy: each has half of the rows of every tensor."""
    shutil.copytree(policy, folder)
    whole = folder / "checkpoint" / "model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    for rank in (0, 1):
        parts = []
        for name, tensor in tensors.items():
            rows, half = len(tensor), len(tensor) // 2
            first, last = ((0, half), (half, rows))[rank]
            parts.append(Part(name, first, rows, tensor[first:last]))
        file = TensorFile(parts)
        file.fill(parts)
        (whole.parent / file_name(WEIGHTS, rank, 2)).write_bytes(file.content)
    return folder


async def test_it_begins_with_a_checkpoint_that_several_ranks_have_saved_as_with_any_other(
    tmp_path: Path, policy: Path, expected: tuple[dict[str, str], list[dict[str, Any]]]
) -> None:
    lab, place = RlLab(tmp_path / "lab", made=saved_by_two_ranks(policy, tmp_path / "parts")), HerePlace()
    await run_on(lab, place, replicas=1)
    assert results(lab) == expected


ASYNCHRONOUS: dict[str, Any] = {**TABLE["rl"], "iterations": 4, "staleness": 1}


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(None, id="here"),
        pytest.param(HerePlace(deaths=[Death("TrainerActor", "step", 5)]), id="actors", marks=pytest.mark.prove),
    ],
)
async def test_rollouts_beside_training_are_at_most_so_many_versions_old_and_each_is_trained_on_once(
    tmp_path: Path, policy: Path, place: HerePlace | None
) -> None:
    lab = RlLab(tmp_path, made=policy)
    if place is None:
        await run_here(lab, rl=ASYNCHRONOUS)
    else:
        await run_on(lab, place, replicas=2, rl=ASYNCHRONOUS)
        assert not place.deaths
    rows = lab.rollouts()
    names = [row["id"] for row in rows]
    assert len(names) == len(set(names)) == 4 * 4 * 4
    ages = [row["iteration"] - 1 - version for row in rows for version in row["versions"]]
    assert set(ages) == {0, 1}, (
        "the first iteration is of the weights that it trains; most others were begun by those before"
    )


class Sessions:
    """A worker whose answers count: how often `said` was stepped in this session, and where it lives if it tells."""

    def __init__(self, number: int, *, tells: bool) -> None:
        self.number, self.tells = number, tells
        self.steps: Counter[str] = Counter()

    async def reset(self, session: str, task: Task, seed: int) -> Observation:
        return Observation(messages=({"role": "user", "content": str(seed)},))

    async def step(self, session: str, action: dict[str, Any]) -> StepResult:
        self.steps[session] += 1
        told = f"{self.steps[session]} {self.number if self.tells else ''}"
        return StepResult(observation=Observation(messages=({"role": "user", "content": told},)))

    async def close(self, session: str) -> None:
        self.steps.pop(session, None)


@pytest.mark.parametrize("tells", [False, True], ids=["as the seed says", "otherwise the second time"])
async def test_a_session_whose_worker_died_is_played_again_and_must_be_the_same(tells: bool) -> None:
    place = HerePlace(deaths=[Death("Sessions", "step", 3)])

    async def make(_number: int) -> HereActor:
        return await place.start(Sessions, len(place.actors), tells=tells, node="here")

    session = Crew(make, 1).session(TASK)
    await session.reset(TASK, 7)
    said = {"role": "assistant", "content": "!"}
    seen = [(await session.step(said)).observation.messages[0]["content"].split()[0] for _ in range(2)]
    if tells:
        with pytest.raises(RuntimeError, match="played again it answered something else"):
            await session.step(said)
    else:
        seen.append((await session.step(said)).observation.messages[0]["content"].split()[0])
        assert seen == ["1", "2", "3"]
        assert (len(place.actors), place.calls["Sessions", "reset"]) == (2, 2)
    await session.close()


async def test_sessions_ask_the_stage_s_roles_in_its_process_and_in_workers(tmp_path: Path, policy: Path) -> None:
    judged = {
        "rl": {**TABLE["rl"], "iterations": 1, "environments": [{"name": "rl_lab:Judged"}]},
        "roles": {"judge": {"endpoint": "rules"}},
        "endpoint": {"rules": {"kind": "standin"}},
    }
    labs = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        labs.append(RlLab(tmp_path / name, made=policy))
    here, there = labs
    await run_here(here, **judged)
    await run_on(there, HerePlace(), replicas=2, **judged)
    found = results(here)
    assert {row["reward"] for row in found[1] if row["fate"] == "kept"} == {0.0, 1.0}
    assert results(there) == found
    for lab in labs:
        kept = json.loads((lab.root / "pulled" / "calls.json").read_text())
        assert kept["roles"]["judge"]["calls"] > 0
