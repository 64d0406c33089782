"""Rubric rewards under a critic that likes what stands first and what is longer: with and without closed-loop refinement, where the truth is known.

The policy is a bandit: a softmax over twelve answers to each of sixteen prompts, trained with our opmd loss on eight draws a prompt. Half of the prompts are
verifiable (right or wrong), half are open: their reward is the critic's. An answer has features, of which a hidden mixture is its quality; the critic is
logistic in the difference of two answers' features, in which of them is longer, and in which stands first, and begins with most of its weight on the last two.
Long answers are a little worse than short ones. Pairing, both orders, win rates, held-out measurement, gate and lessons are the stage's own code (rl/critic).

Arms: `truth` (the reward is the quality: what could be had), `biased` (no lessons, no gate), `gate` (no lessons), `refined` (lessons and gate: the default),
`pointwise` (the same biased critic scores each answer alone, without a pair: the usual judge).

    python bench/critic_refinement.py --out bench/results/critic_refinement.json --picture docs/images/critic-refinement.png
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import machine, over_seeds, report

from abruzzi.contracts.critic import CriticConfig
from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rubric import GENERAL
from abruzzi_jobs.evals.intervals import student
from abruzzi_jobs.rl.critic.asking import Question
from abruzzi_jobs.rl.critic.comparing import Contest, Tally, rank
from abruzzi_jobs.rl.critic.form import Verdict
from abruzzi_jobs.rl.critic.gate import GateState, after
from abruzzi_jobs.rl.critic.verified import Measured, VerifiedPair, measure
from abruzzi_jobs.rl.objective.advantages import advantages_of
from abruzzi_jobs.rl.objective.losses import Counts, PolicyTokens, opmd

ARMS = ("truth", "biased", "pointwise", "gate", "refined")
PROMPTS, ANSWERS, FEATURES, MEMBERS = 16, 12, 4, 8
OPEN = PROMPTS // 2
"""The first half are open, the others verifiable; every fourth verifiable one is held out."""
QUALITY_BEGIN, LENGTH_BEGIN, POSITION_BEGIN = 0.3, 3.0, 1.5
"""Of the critic's weights, before any lesson."""
POLICY_RATE, CRITIC_RATE = 2.0, 0.5


@dataclass
class World:
    """`quality_PA` in [0, 1], `length_PA` in [0, 1], `features_PAD`; an answer's text is its numbers and its length in letters."""

    seed: int
    quality_PA: np.ndarray = field(init=False)
    length_PA: np.ndarray = field(init=False)
    features_PAD: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        draw = np.random.default_rng(self.seed)
        mixture_D = draw.normal(size=FEATURES)
        mixture_D /= np.linalg.norm(mixture_D)
        self.features_PAD = draw.normal(size=(PROMPTS, ANSWERS, FEATURES))
        value_PA = self.features_PAD @ mixture_D
        self.quality_PA = 1 / (1 + np.exp(-1.5 * value_PA))
        noise_PA = draw.normal(size=(PROMPTS, ANSWERS))
        self.length_PA = 1 / (1 + np.exp(-(noise_PA - 0.4 * value_PA)))
        self.begin_D = QUALITY_BEGIN * mixture_D + 0.1 * draw.normal(size=FEATURES)

    def is_right(self, prompt: int, answer: int) -> bool:
        return bool(self.quality_PA[prompt, answer] > 0.6)

    def text(self, prompt: int, answer: int) -> str:
        return f"{prompt} {answer} " + "x" * (1 + round(40 * self.length_PA[prompt, answer]))

    def place(self, text: str) -> tuple[int, int]:
        prompt, answer, _ = text.split()
        return int(prompt), int(answer)


class LogisticCritic:
    """log-odds that the first is better: w · (f_first − f_second) + v (length_first − length_second) + b."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.weights = np.array([*world.begin_D, LENGTH_BEGIN, POSITION_BEGIN])
        self.asked = 0

    async def ask(self, questions: Sequence[Question]) -> list[Verdict]:
        self.asked += len(questions)
        if not questions:
            return []
        odds = np.stack([self._input(q.first, q.second) for q in questions]) @ self.weights
        sure = 1 / (1 + np.exp(-np.abs(odds)))
        return [Verdict("A" if o > 0 else "B", float(s)) for o, s in zip(odds, sure, strict=True)]

    def learn(self, pairs: Sequence[VerifiedPair]) -> None:
        """A step on the cross-entropy of the right verdict, in both orders."""
        rows = [(self._input(p.right, p.wrong), 1.0) for p in pairs] + [
            (self._input(p.wrong, p.right), 0.0) for p in pairs
        ]
        if rows:
            x, y = np.stack([r[0] for r in rows]), np.array([r[1] for r in rows])
            said = 1 / (1 + np.exp(-x @ self.weights))
            self.weights -= CRITIC_RATE * x.T @ (said - y) / len(y)

    def alone(self, text: str) -> float:
        """Of one answer, as if it stood first beside nothing."""
        return float(1 / (1 + np.exp(-self._side(text) @ self.weights[:-1])))

    def _side(self, text: str) -> np.ndarray:
        place = self.world.place(text)
        return np.array([*self.world.features_PAD[place], self.world.length_PA[place]])

    def _input(self, first: str, second: str) -> np.ndarray:
        return np.array([*(self._side(first) - self._side(second)), 1.0])


def run(arm: str, seed: int, *, iterations: int) -> dict[str, Any]:
    world, draw = World(seed), np.random.default_rng(1000 + seed)
    critic = LogisticCritic(world)
    config = CriticConfig.model_validate({"gate": {"enabled": arm != "biased", "pairs": 12}})
    objective = ObjectiveConfig(tau=0.05, divisor_tokens=1)
    logits_PA = torch.zeros(PROMPTS, ANSWERS, dtype=torch.float64, requires_grad=True)
    gate = GateState()
    curves: dict[str, list[float]] = {key: [] for key in ("quality", "length", "accuracy", "inconsistency", "frozen")}
    for iteration in range(iterations):
        pi_PA = torch.softmax(logits_PA, -1).detach().numpy()
        curves["quality"].append(float((pi_PA * world.quality_PA)[:OPEN].sum(-1).mean()))
        curves["length"].append(float((pi_PA * world.length_PA)[:OPEN].sum(-1).mean()))
        drawn_PK = np.stack([draw.choice(ANSWERS, MEMBERS, p=p / p.sum()) for p in pi_PA])
        held, taught = _pairs(world, drawn_PK)
        found = asyncio.run(measure(critic, held, Tally()))
        gate, _ = after(
            gate, config.gate, iteration=iteration, pairs=found.pairs, points=found.points, turned=found.turned
        )
        _note(curves, found, frozen=gate.frozen and arm in ("gate", "refined"))
        rewards = {p: [float(world.is_right(p, a)) for a in drawn_PK[p]] for p in range(OPEN, PROMPTS)}
        if arm == "truth":
            rewards |= {p: [float(world.quality_PA[p, a]) for a in drawn_PK[p]] for p in range(OPEN)}
        elif arm == "pointwise":
            rewards |= {p: [critic.alone(world.text(p, int(a))) for a in drawn_PK[p]] for p in range(OPEN)}
        elif arm == "biased" or not gate.frozen:
            contests = [
                Contest(f"{iteration}/{p}", f"prompt {p}", tuple(world.text(p, int(a)) for a in drawn_PK[p]))
                for p in range(OPEN)
            ]
            ranked = asyncio.run(rank(critic, contests, GENERAL, config, Tally()))
            rewards |= {p: list(r.scores) for p, r in enumerate(ranked)}
        if arm == "refined":
            critic.learn(taught[: config.refinement.pairs])
        _learn(logits_PA, rewards, drawn_PK, objective)
    return {"curves": curves, "asked": critic.asked}


def _pairs(world: World, drawn_PK: np.ndarray) -> tuple[list[VerifiedPair], list[VerifiedPair]]:
    """(held out, lessons): on-policy right and wrong answers to verifiable prompts, prompts taking turns."""
    found: tuple[list[VerifiedPair], list[VerifiedPair]] = ([], [])
    by_prompt: dict[int, list[VerifiedPair]] = {}
    for p in range(OPEN, PROMPTS):
        answers = sorted({int(a) for a in drawn_PK[p]})
        by_prompt[p] = [
            VerifiedPair(str(p), f"prompt {p}", world.text(p, right), world.text(p, wrong))
            for right in answers
            for wrong in answers
            if world.is_right(p, right) and not world.is_right(p, wrong)
        ]
    for turn in range(max(map(len, by_prompt.values()))):
        for p, pairs in by_prompt.items():
            if turn < len(pairs):
                found[p % 4 != 0].append(pairs[turn])
    return found


def _learn(
    logits_PA: torch.Tensor, rewards: dict[int, list[float]], drawn_PK: np.ndarray, objective: ObjectiveConfig
) -> None:
    prompts = sorted(rewards)
    advantage_S = torch.tensor([a for p in prompts for a in advantages_of(rewards[p])], dtype=torch.float64)
    rows = torch.tensor([p for p in prompts for _ in range(MEMBERS)])
    chosen = torch.tensor([int(a) for p in prompts for a in drawn_PK[p]])
    logprob_T = torch.log_softmax(logits_PA, -1)[rows, chosen]
    tokens = PolicyTokens(logprob_T, logprob_T.detach(), advantage_S, torch.ones_like(rows))
    # A mean over a prompt's members, so that a prompt learns as fast whether or not others do.
    loss = opmd(tokens, Counts(MEMBERS, MEMBERS, 1.0), objective)
    (gradient_PA,) = torch.autograd.grad(loss, logits_PA)
    with torch.no_grad():
        logits_PA -= POLICY_RATE * gradient_PA


def _note(curves: dict[str, list[float]], found: Measured, *, frozen: bool) -> None:
    measured = found.metrics()
    for key, name in (("accuracy", "rl/critic/accuracy"), ("inconsistency", "rl/critic/swap_inconsistency")):
        before = curves[key][-1] if curves[key] else 0.5
        curves[key].append(measured.get(name, before))
    curves["frozen"].append(float(frozen))


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(1)
    runs = {arm: [run(arm, seed, iterations=arguments.iterations) for seed in range(arguments.seeds)] for arm in ARMS}
    arms = {arm: _told(found) for arm, found in runs.items()}
    paired = {
        f"refined - {arm}": over_seeds(
            [
                a["curves"]["quality"][-1] - b["curves"]["quality"][-1]
                for a, b in zip(runs["refined"], runs[arm], strict=True)
            ]
        )
        for arm in ("biased", "pointwise", "gate", "truth")
    }
    result: dict[str, Any] = {
        "what": "true quality of answers to open prompts, mean of the policy, after the last iteration (a policy that knows nothing: see quality_first)",
        "policy": "bandit (softmax over answers); critic logistic; no language model",
        "iterations": arguments.iterations,
        "seeds": arguments.seeds,
        "arms": arms,
        "quality_last_paired": paired,
        "machine": machine(threads=1),
    }
    report(result, out=arguments.out)
    if arguments.picture is not None:
        _draw(runs, arguments.picture)
    return 0 if paired["refined - biased"]["low"] > 0 else 1


def _told(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for key in ("quality", "length", "accuracy", "inconsistency"):
        told[f"{key}_first"] = over_seeds([one["curves"][key][0] for one in found])
        told[f"{key}_last"] = over_seeds([one["curves"][key][-1] for one in found])
    told["share_frozen"] = over_seeds([float(np.mean(one["curves"]["frozen"])) for one in found])
    told["questions_asked"] = float(np.mean([one["asked"] for one in found]))
    return told


def _draw(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colors = {"truth": "#52525b", "biased": "#c2410c", "pointwise": "#a16207", "gate": "#7c3aed", "refined": "#1d4ed8"}
    labels = {
        "truth": "reward is the truth", "biased": "biased critic", "pointwise": "biased critic, answers alone",
        "gate": "gate, no lessons", "refined": "lessons and gate",
    }  # fmt: skip
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2))
    for axis, key, name in (
        (left, "quality", "true quality of answers to open prompts"),
        (right, "accuracy", "critic's accuracy on held-out verified pairs"),
    ):
        for arm in ARMS if key == "quality" else ("biased", "refined"):
            curves = np.array([one["curves"][key] for one in runs[arm]])
            points = [student(list(column)) for column in curves.T]
            axis.plot([p.value for p in points], color=colors[arm], label=labels[arm], linewidth=1.4)
            low, high = ([getattr(p, side) for p in points] for side in ("low", "high"))
            axis.fill_between(range(len(points)), low, high, color=colors[arm], alpha=0.15, linewidth=0)
        if key == "accuracy":
            axis.set_ylim(0.2, 1.03)
        axis.set_xlabel("iteration")
        axis.set_ylabel(name)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"A critic that likes what is first and long: bandit policy, {len(runs['truth'])} seeds, 95 % intervals",
        fontsize=11,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
