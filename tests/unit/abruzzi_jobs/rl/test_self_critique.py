"""The critic in the stage: the policy judges its own answers, is measured on what a verifier knows, taught by it, and loses its say when it is wrong."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rl_lab import RlLab, kill_at_random_points, make_policy

from abruzzi.contracts.critic import CriticConfig
from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Ending, Outcome, Segment, Status, Task, TokenSource, Trajectory
from abruzzi.contracts.rubric import GENERAL
from abruzzi.store import DirectoryStore
from abruzzi_jobs.data.tokenizer import load_tokenizer
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.rl.controller.journal import Journal
from abruzzi_jobs.rl.critic.asking import PolicyCritic, Question
from abruzzi_jobs.rl.critic.comparing import Tally
from abruzzi_jobs.rl.critic.form import Verdict
from abruzzi_jobs.rl.critic.self_critique import SelfCritique
from abruzzi_jobs.rl.critic.teaching import rows_of
from abruzzi_jobs.rl.critic.verified import Measured, VerifiedPair, is_held_out, measure
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.rl.rollout.played import Played, PlayedGroup
from abruzzi_jobs.sft.markers import marker_sets
from abruzzi_jobs.sft.template import ChatTemplate
from abruzzi_jobs.train.divergence import DivergenceWatch

CRITIC: dict[str, Any] = {
    "rl": {
        "environments": [
            {"name": "rl_lab:Digits", "families": ["short"]},
            {"name": "rl_lab:Digits", "families": ["long"], "reward": "rubric"},
        ],
        "groups_per_iteration": 4,
        "budget": {"tokens": 32},
        "critic": {"form": "short", "held_out_percent": 50, "gate": {"enabled": False}, "refinement": {"pairs": 4}},
    }
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def template(policy: Path) -> ChatTemplate:
    return ChatTemplate(load_tokenizer(policy / "chat-tokenizer"), marker_sets()["shipped"])


class Answering:
    """A critic by a function of (first, second): whether the first is better."""

    def __init__(self, prefers: Callable[[str, str], bool]) -> None:
        self.prefers, self.asked = prefers, 0

    async def ask(self, questions: Sequence[Question]) -> list[Verdict]:
        self.asked += len(questions)
        return [Verdict("A" if self.prefers(q.first, q.second) else "B", 0.9) for q in questions]


def group(name: str, family: str, answers: Sequence[str], status: Status = Status.OK) -> PlayedGroup:
    task = Task(id=name, family=family, environment="e@1")
    drawn = Segment(
        source=TokenSource.POLICY, tokens=(1,), logprobs=(-1.0,), policy_version=0, temperature=1.0, ending=Ending.STOP
    )
    return PlayedGroup(
        members=tuple(
            Played(
                trajectory=Trajectory(
                    id=f"{name}/{n}", group=name, member=n, task=task, segments=(drawn,), status=status
                ),
                messages=({"role": "user", "content": f"Q {name}"}, {"role": "assistant", "content": answer}),
            )
            for n, answer in enumerate(answers)
        )
    )


def outcomes_of(groups: Sequence[PlayedGroup]) -> dict[str, Outcome]:
    """1 for what is called good, as a verifier would say."""
    return {
        m.trajectory.id: Outcome(status=Status.OK, reward=float("good" in m.messages[-1]["content"]))
        for g in groups
        for m in g.members
    }


def critique(critic: Any, template: ChatTemplate, folder: Path, **config: Any) -> SelfCritique:
    given = {"held_out_percent": 50, "gate": {"pairs": 4}, "form": "short"} | config
    return SelfCritique(
        CriticConfig.model_validate(given),
        critic=critic,
        rubrics=GENERAL,
        is_compared=lambda task: task.family == "open",
        journal=Journal(DirectoryStore(folder), "p/"),
        template=template,
        positions=128,
        minibatches=2,
        seed=1,
    )


GROUPS = [
    *(group(f"v{n}", "sums", ["good 1", "bad 1", "good", "a bad answer"]) for n in range(8)),
    group("open", "open", ["a bad one", "a good one", "Great question! good"]),
]


def judged(made: SelfCritique, iteration: int = 0) -> dict[str, Outcome]:
    return dict(asyncio.run(made.judge(iteration, GROUPS, outcomes_of(GROUPS))))


def test_a_critic_that_is_right_about_what_is_known_judges_what_is_not(template: ChatTemplate, tmp_path: Path) -> None:
    made = critique(Answering(lambda a, b: "good" in a), template, tmp_path, reward_range=(-1.0, 1.0))
    found = judged(made)
    assert [found[f"open/{n}"].reward for n in range(3)] == [0.0, 1.0, -1.0]
    assert found["open/2"].components == {"win_rate": 0.0, "violations": 1.0, "environment": 1.0}
    assert found["open/2"].detail == "violates initial_praise"
    assert {found[f"v{n}/0"].reward for n in range(8)} == {1.0}, "verifiable rewards are as they were"
    metrics = made.metrics(0)
    assert (metrics["rl/critic/accuracy"], metrics["rl/critic/swap_inconsistency"]) == (1.0, 0.0)
    assert (metrics["rl/critic/frozen"], metrics["rl/critic/position_bias"]) == (0.0, 0.0)
    assert metrics["rl/critic/overconfidence"] == pytest.approx(-0.1)
    record = made.record(0)
    assert record is not None
    assert record.event.startswith("rubric rewards are given")


@pytest.mark.parametrize(
    ("prefers", "accuracy", "inconsistency", "said"),
    [
        (lambda a, b: True, 0.5, 1.0, {"rl/critic/position_bias": 0.5}),
        (lambda a, b: len(a) > len(b), None, 0.0, {"rl/critic/length_bias": 1.0}),
        (lambda a, b: "bad" in a, 0.0, 0.0, {}),
    ],
    ids=["what stands first", "the longer one", "the worse one"],
)
def test_a_critic_that_is_biased_gives_no_rewards_and_its_bias_is_named(
    prefers: Callable[[str, str], bool],
    accuracy: float | None,
    inconsistency: float,
    said: dict[str, float],
    template: ChatTemplate,
    tmp_path: Path,
) -> None:
    made = critique(Answering(prefers), template, tmp_path)
    found = judged(made)
    statuses = [found[f"open/{n}"].status for n in range(3)]
    assert statuses == [Status.REWARD_FROZEN] * 3
    assert found["open/0"].reward is None
    metrics = made.metrics(0)
    assert metrics["rl/critic/frozen"] == 1.0
    assert metrics["rl/critic/swap_inconsistency"] == inconsistency
    assert accuracy is None or metrics["rl/critic/accuracy"] == accuracy
    assert {key: metrics[key] for key in said} == said


def test_what_was_frozen_is_given_again_in_the_iteration_after_the_critic_got_better(
    template: ChatTemplate, tmp_path: Path
) -> None:
    wrong = critique(Answering(lambda a, b: True), template, tmp_path)
    judged(wrong, 0)
    right = critique(Answering(lambda a, b: "good" in a), template, tmp_path)
    found = judged(right, 1)
    before, after = right.record(0), right.record(1)
    assert before is not None
    assert after is not None
    assert (before.gate.frozen, after.gate.frozen, after.gate.since) == (True, False, 1)
    assert found["open/1"].reward is not None


def test_lessons_are_of_tasks_that_are_never_measured_on_and_the_same_when_asked_again(
    template: ChatTemplate, tmp_path: Path
) -> None:
    made = critique(Answering(lambda a, b: True), template, tmp_path, refinement={"pairs": 6})
    outcomes = outcomes_of(GROUPS)
    first, again = (made.lessons(0, GROUPS, outcomes) for _ in range(2))
    assert len(first) == 2, "one for each optimizer step"
    shown = []
    for rows, same in zip(first, again, strict=True):
        assert rows is not None
        assert same is not None
        assert rows.tokens_BL.equal(same.tokens_BL)
        assert rows.learned_BL is not None
        assert rows.global_targets == int(rows.learned_BL[:, 1:].sum())
        shown.append(template.shown(rows.tokens_BL.flatten().tolist()))
    taught = {f"v{n}" for n in range(8) for text in shown if f"Q v{n}\n" in text}
    assert taught
    assert not any(is_held_out(name, 50) for name in taught)
    assert sum(text.count("Better?") for text in shown) == 12, "six pairs, both orders"
    assert "Great question" not in "".join(shown), "what the critic itself has judged teaches it nothing"


def test_the_policy_s_verdict_is_the_likelier_letter_and_its_confidence_is_against_the_other_letter(
    template: ChatTemplate,
) -> None:
    requests: list[Request] = []
    calls: list[str] = []

    class Engine:
        async def generate(self, request: Request) -> Segment:
            requests.append(request)
            assert request.constraint is not None
            left_V = torch.zeros(template.tokenizer.get_vocab_size())
            request.constraint.mask(left_V)
            (token,) = left_V.isfinite().nonzero().flatten().tolist()
            logprob = {"A": -7.0, "B": -6.0}[template.shown([token])]
            return Segment(
                source=TokenSource.POLICY, tokens=(token,), logprobs=(logprob,), policy_version=0, temperature=0.0,
                ending=Ending.LENGTH,
            )  # fmt: skip

        async def resume(self) -> None:
            calls.append("resume")

        async def pause(self, mode: str) -> None:
            calls.append(f"pause {mode}")

    critic = PolicyCritic(Engine(), template, GENERAL, "short", positions=60)
    questions = [
        Question("q", "x", "y"),
        Question("q", "y", "x"),
        Question("q", "x", "y"),
        Question("q" * 90, "x", "y"),
    ]
    said = asyncio.run(critic.ask(questions))
    assert [verdict.better for verdict in said] == ["B", "B", "B", None]
    assert said[0].confidence == pytest.approx(0.7311, abs=1e-4), "however unlikely both letters are among all tokens"
    assert [(r.max_tokens, r.temperature) for r in requests] == [(1, 0.0)] * 4, "each question once, both letters"
    assert template.shown(requests[0].tokens).endswith("<|im_assistant|>assistant<|im_middle|>")
    assert calls == ["resume", "pause abort"]


def test_a_policy_that_is_taught_gives_the_right_verdicts_through_its_engine(
    policy: Path, template: ChatTemplate
) -> None:
    table = json.loads((policy / "checkpoint" / "state.json").read_text())["config"]["model"]
    shape = ModelConfig.from_dict(table)
    model = KimiK2(shape, seed=1)
    alone = Ranks(0, 1, torch.device("cpu"))
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(peak_lr=0.02), model=shape)
    objective = ObjectiveConfig(divisor_tokens=1)
    learner = Learner(model, optimizer, alone, objective, watch=DivergenceWatch())
    pairs = [VerifiedPair(f"t{n}", f"{n}?", "yes", "no") for n in range(3)]

    async def accuracy(version: int) -> Measured:
        async with AsyncEngine(TorchEngine(copy.deepcopy(model), version=version, max_running=8)) as front:
            await front.pause("abort")
            return await measure(PolicyCritic(front, template, GENERAL, "short", positions=128), pairs, Tally())

    before = asyncio.run(accuracy(0))
    losses = []
    for number in range(80):
        (minibatch,) = learner.anchor([], version=number)
        rows = rows_of(pairs, template, GENERAL, "short", positions=128)
        step = learner.step(number, minibatch, critic=rows, critic_weight=1.0)
        losses.append(step.metrics["rl/critic/loss"])
    after = asyncio.run(accuracy(1))
    assert before.turned == before.pairs == 3, "without lessons it says the same letter whatever stands there"
    assert (after.points, after.turned) == (3.0, 0), losses[::8]
    assert after.confidence / after.confident > 0.9


@pytest.mark.slow
def test_a_stage_with_a_critic_keeps_a_record_of_every_iteration(tmp_path: Path, policy: Path) -> None:
    lab = RlLab(tmp_path, made=policy)
    rl = {**CRITIC["rl"], "iterations": 2, "held_out": {"every_iterations": 0}}
    attempt = lab.run(lab.reinforcing({"rl": rl}))
    points = attempt.points()
    assert points["rl/critic/frozen"] == {1: 0.0, 2: 0.0}, attempt.log()
    record = json.loads(lab.store.get(f"{lab.reinforcing().output_prefix}rl/line-000000/journal/it-000001/critic.json"))
    assert record["rubrics"] == "general@1"


ROLE: dict[str, Any] = {
    "rl": {**CRITIC["rl"], "iterations": 2, "budget": {"tokens": 64}, "held_out": {"every_iterations": 0}}
    | {"critic": {**CRITIC["rl"]["critic"], "refinement": {"weight": 0.0}}},
    "roles": {"critic": {"endpoint": "rules"}},
    "endpoint": {"rules": {"kind": "standin"}},
}


@pytest.mark.slow
def test_a_role_compares_in_place_of_the_policy_and_what_it_said_is_kept(tmp_path: Path, policy: Path) -> None:
    lab = RlLab(tmp_path, made=policy)
    attempt = lab.run(lab.reinforcing(ROLE))
    points, groups = attempt.points(), defaultdict(list)
    for row in lab.rollouts():
        if "win_rate" in row["components"]:
            groups[row["group"]].append((len(row["messages"][-1]["content"].strip()), row["reward"]))
    assert groups, attempt.log()
    for said in groups.values():
        for (length, reward), (other, others) in itertools.combinations([s for s in said if s[0]], 2):
            assert length == other or (length < other) == (reward > others), said
    kept = json.loads((lab.root / "pulled" / "calls.json").read_text())
    assert kept["roles"]["critic"]["calls"] == max(points["chat/critic/calls"].values()) > 0
    assert "rl/critic/loss" not in points, "nobody teaches another model"


@pytest.mark.prove
def test_through_kills_it_ends_with_the_same_bits(tmp_path: Path, policy: Path) -> None:
    found = kill_at_random_points(tmp_path, policy, kills=10, seed=5, changes=CRITIC)
    assert (found.kills, found.lost, found.trained_twice, found.ends_alike) == (10, 0, 0, True)
