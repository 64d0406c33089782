"""Reinforcement learning on CPU from the same DeepseekV3 weights: ours (embedded engine and learner) against trl's GRPOTrainer, to the same reward.

A prompt is four tokens, the reward the share of even tokens in what is said: it begins at a half. Eight prompts an iteration, eight samples each, one step a
batch, the same prompts in the same order, float32, two threads. Arms: `dapo` with AdamW at trl's rate (the system alone), `opmd` with MuonClip. Each seed runs
all arms after one another, in an order that turns around. Samples a second are an arm's own, over the iterations that it made until it had its reward;
seconds of processor time stand beside, which a busy machine blurs less.

Twice: with `lognormal` lengths, as rollouts have them, and with `fixed` ones. Lognormal: the weights that all begin from were shown such lengths, and completions end by
themselves; generate goes on until the longest has ended, and the trainer pads to it. The end token counts neither for nor against the reward, and what is nothing else is
worth the half that chance gives; lengths may drift as the policy changes, differently by arm, so tokens a sample stand beside. Fixed: every sample has --longest
tokens, so that nothing is padded and all arms do the same work. The targets are held against both.

    python bench/rl_trl.py --out bench/results/rl_trl.json
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from interleaved import machine, report
from rival_environments import TRL, trl_environment

from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Group, Outcome, Segment, Status, Task, TokenSource, Trajectory
from abruzzi.contracts.training import MODEL_PRESETS
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.export import export_huggingface
from abruzzi_jobs.models import IGNORE, KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.train.divergence import DivergenceWatch

RIVAL = Path(__file__).with_name("rl_trl_worker.py")
END, PROMPT = 1, 4
MEDIAN_LENGTH, SIGMA = 12, 0.9
TAUGHT_STEPS, TAUGHT_SEQUENCES = 60, 32
ARMS = {"dapo_adamw": ("dapo", "adamw"), "opmd_muonclip": ("opmd", "muonclip")}
TARGETS = {"samples_per_second": 3.0, "seconds_to_reward": 0.4}
Iterations = list[tuple[float, float]]
"""(seconds since the start, mean reward) of each."""


def taught(config: ModelConfig, *, seed: int, longest: int, lengths: str) -> KimiK2:
    """Weights that were shown sequences of random tokens with these lengths."""
    model, draw = KimiK2(config, seed=seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(TAUGHT_STEPS):
        tokens_BL = torch.randint(2, config.vocab_size, (TAUGHT_SEQUENCES, PROMPT + longest), generator=draw)
        spread = torch.randn(TAUGHT_SEQUENCES, generator=draw) * SIGMA
        said_B = (MEDIAN_LENGTH * spread.exp()).round().long().clamp(1, longest - 1)
        if lengths == "fixed":
            said_B[:] = longest - 1
        places_BL = torch.arange(PROMPT + longest).expand_as(tokens_BL)
        last_B1 = (PROMPT + said_B).unsqueeze(1)
        tokens_BL = torch.where(places_BL == last_B1, END, tokens_BL)
        targets_BL = torch.where(places_BL < last_B1, tokens_BL.roll(-1, 1), IGNORE)
        optimizer.zero_grad()
        loss = model(tokens_BL, targets_BL).loss
        loss.backward()
        optimizer.step()
    return model


class Ours:
    """One arm on its own copy of the weights."""

    def __init__(self, model: KimiK2, plan: dict[str, Any], arm: str, seed: int) -> None:
        loss, kind = ARMS[arm]
        self.plan, self.seed, self.model = plan, seed, copy.deepcopy(model)
        self.ends = frozenset() if plan["lengths"] == "fixed" else frozenset([END])
        same = {"weight_decay": 0.0, "adam_betas": (0.9, 0.999)} if kind == "adamw" else {"weight_decay": 0.0}
        settings = OptimizerConfig(kind=kind, peak_lr=plan["lr"] if kind == "adamw" else plan["muon_lr"], **same)
        optimizer = build_optimizer(self.model.named_parameters(), settings, model=model.config)
        config = ObjectiveConfig(loss=loss, advantage="mean_std" if loss == "dapo" else "mean")
        ranks = Ranks(0, 1, torch.device("cpu"))
        self.learner = Learner(self.model, optimizer, ranks, config, watch=DivergenceWatch())
        self.engine = TorchEngine(copy.deepcopy(model), max_running=plan["groups"] * plan["size"])
        self.tokens = 0
        self.phases = dict.fromkeys(("rollout", "learn", "hand_over"), 0.0)

    def reach(self) -> dict[str, Any]:
        plan, found = self.plan, Iterations()
        began_cpu, began = time.process_time(), time.perf_counter()
        for iteration in range(plan["iterations"]):
            first = iteration * plan["groups"] % len(plan["prompts"])
            with self._timed("rollout"):
                groups = self.play(plan["prompts"][first : first + plan["groups"]], iteration)
            with self._timed("learn"):
                for number, minibatch in enumerate(self.learner.anchor(groups, version=iteration)):
                    self.learner.step(iteration + number, minibatch)
            with self._timed("hand_over"):
                self.hand_over(iteration + 1)
            rewards = [t.outcome.reward for group in groups for t in group.trajectories if t.outcome is not None]
            found.append((time.perf_counter() - began, statistics.fmean(r for r in rewards if r is not None)))
            last = [reward for _, reward in found[-plan["over"] :]]
            if len(last) == plan["over"] and statistics.fmean(last) >= plan["wanted"]:
                break
        cpu_seconds = time.process_time() - began_cpu
        return {"iterations": found, "cpu_seconds": cpu_seconds, "tokens": self.tokens, "phases": self.phases}

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.phases[phase] += time.perf_counter() - began

    def hand_over(self, version: int) -> None:
        self.engine.pause("abort")
        self.engine.begin_update(version)
        self.engine.load_bucket(self.model.state_dict().items())
        self.engine.finish_update(version)
        self.engine.resume()

    def play(self, prompts: list[list[int]], iteration: int) -> list[Group]:
        size = self.plan["size"]
        for number, prompt in enumerate(prompts):
            for index in range(size):
                self.engine.submit(
                    Request(
                        id=f"{number}/{index}", tokens=tuple(prompt), max_tokens=self.plan["length"], temperature=1.0,
                        seed=(self.seed << 32) + (iteration << 12) + number * size + index,
                        stop_tokens=self.ends, group=str(number),
                    )
                )  # fmt: skip
        ended: dict[str, Segment] = {}
        while len(ended) < len(prompts) * size:
            ended.update({generated.request_id: generated.segment for generated in self.engine.step()})
        self.tokens += sum(len(segment.tokens) for segment in ended.values())
        return [
            self._group(f"g{iteration}-{number}", prompt, [ended[f"{number}/{index}"] for index in range(size)])
            for number, prompt in enumerate(prompts)
        ]

    def _group(self, name: str, prompt: list[int], segments: list[Segment]) -> Group:
        task = Task(id=name, family="even", environment="even@1")
        asked = Segment(source=TokenSource.PROMPT, tokens=tuple(prompt))
        members = tuple(
            Trajectory(
                id=f"{name}/{index}", group=name, member=index, task=task, status=Status.OK, turns=1,
                segments=(asked, segment),
                outcome=Outcome(status=Status.OK, reward=_share(segment.tokens)),
            )
            for index, segment in enumerate(segments)
        )  # fmt: skip
        return Group(id=name, task=task, trajectories=members)


def _share(tokens: tuple[int, ...]) -> float:
    said = [token for token in tokens if token != END]
    return sum(token % 2 == 0 for token in said) / len(said) if said else 0.5


def trl(python: Path, folder: Path, threads: int, seed: int) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [str(python), str(RIVAL), str(folder), str(threads), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"trl ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    gc.collect()
    gc.freeze()  # as `abruzzi-stage` does, and the rival's worker
    result = _result(arguments, {lengths: _runs(arguments, lengths) for lengths in arguments.lengths})
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def _runs(arguments: argparse.Namespace, lengths: str) -> list[dict[str, Any]]:
    config = ModelConfig.from_dict({**MODEL_PRESETS[arguments.preset], "vocab_size": arguments.vocabulary})
    plan, python, runs = _plan(arguments, lengths), trl_environment(), []
    for seed in range(arguments.seeds):
        model = taught(config, seed=seed, longest=arguments.longest, lengths=lengths)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            export_huggingface(model.state_dict(), config, folder / "model")
            (folder / "plan.json").write_text(json.dumps(plan))
            for arm in [*ARMS, "trl"] if seed % 2 == 0 else ["trl", *reversed(ARMS)]:
                load = os.getloadavg()[0]
                found = (
                    trl(python, folder, arguments.threads, seed)
                    if arm == "trl"
                    else Ours(model, plan, arm, seed).reach()
                )
                runs.append({"seed": seed, "arm": arm, "load": load, **_run(found, plan)})
                told = {key: value for key, value in runs[-1].items() if key != "rewards"}
                sys.stderr.write(f"{json.dumps({'lengths': lengths, **told})}\n")
    return runs


def _plan(arguments: argparse.Namespace, lengths: str) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    return {
        "groups": 8, "size": 8, "length": arguments.longest, "iterations": arguments.iterations, "wanted": 0.9, "over": 3, "lengths": lengths,
        "lr": arguments.lr, "muon_lr": arguments.muon_lr, "trl": {"experts": arguments.experts, "attention": arguments.attention},
        "prompts": torch.randint(2, arguments.vocabulary, (8 * arguments.iterations, PROMPT), generator=draw).tolist(),
    }  # fmt: skip


def _run(found: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    rewards, samples = (
        [reward for _, reward in found["iterations"]],
        len(found["iterations"]) * plan["groups"] * plan["size"],
    )
    seconds = found["iterations"][-1][0]
    return {
        "iterations": len(rewards),
        "seconds": seconds,
        "cpu_seconds": found["cpu_seconds"],
        "reached": statistics.fmean(rewards[-plan["over"] :]) >= plan["wanted"],
        "samples_per_second": samples / seconds,
        "samples_per_cpu_second": samples / found["cpu_seconds"],
        "tokens_per_second": found["tokens"] / seconds,
        "tokens_per_cpu_second": found["tokens"] / found["cpu_seconds"],
        "tokens_per_sample": found["tokens"] / samples,
        "phase_seconds_per_iteration": {name: spent / len(rewards) for name, spent in found["phases"].items()},
        "rewards": [round(reward, 4) for reward in rewards],
    }


def _result(arguments: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    compared = {lengths: _compared(found) for lengths, found in runs.items()}
    held = [arms["dapo_adamw"] for arms in compared.values()]
    reached = {lengths: all(run["reached"] for run in found) for lengths, found in runs.items()}
    plan = _plan(arguments, arguments.lengths[0])
    return {
        "bench": "rl_trl",
        "preset": arguments.preset,
        "plan": {key: value for key, value in plan.items() if key not in ("prompts", "lengths")},
        "peer": f"{TRL} GRPOTrainer, use_vllm=False, its default optimizer",
        "machine": machine(threads=arguments.threads),
        "compared": compared,
        "all_reached": reached,
        "targets": {"arm": "dapo_adamw", **TARGETS},
        "ok": all(reached.values())
        and all(arm["samples_per_second_over_trl"] >= TARGETS["samples_per_second"] for arm in held)
        and all(arm["seconds_to_reward_over_trl"] <= TARGETS["seconds_to_reward"] for arm in held),
        "runs": runs,
    }


def _compared(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    def over_trl(arm: str, key: str) -> float:
        own, rival = (statistics.median(run[key] for run in runs if run["arm"] == name) for name in (arm, "trl"))
        return own / rival

    rates = ("samples_per_second", "samples_per_cpu_second", "tokens_per_second", "tokens_per_cpu_second")
    return {
        arm: {f"{rate}_over_trl": over_trl(arm, rate) for rate in rates}
        | {"seconds_to_reward_over_trl": over_trl(arm, "seconds")}
        for arm in ARMS
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=[name for name in MODEL_PRESETS if name != "k2"])
    parser.add_argument("--lengths", nargs="+", default=["lognormal", "fixed"], choices=["lognormal", "fixed"])
    parser.add_argument("--longest", type=int, default=64, help="tokens of a completion")
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=150, help="at most")
    parser.add_argument("--lr", type=float, default=2e-3, help="of AdamW, for trl and dapo_adamw")
    parser.add_argument("--muon-lr", type=float, default=1e-2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--experts", default="grouped_mm", help="of transformers: grouped_mm, batched_mm or eager")
    parser.add_argument("--attention", default="sdpa", help="of transformers: sdpa or eager")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
