"""A learner's step on CPU: ours against trl's GRPOTrainer, same DeepseekV3 weights, prompts, completions, rewards, clipping and float32.

Completions have lognormal lengths, as rollouts do. First the gradient of our `dapo` is held against trl's, away from π_old, so that clipping acts; then
both take whole steps in turns: loss, backward, gradient clipping, optimizer. trl pads, keeps π_old = π_θ (one step a batch) and runs the fused AdamW that
it chooses by itself, with the fastest of attention and experts implementations. Ours packs without padding, and also measures maximum logits, applies
QK-Clip, updates the router's bias and holds the engine's log-probabilities against the trainer's. Arms: `dapo` with AdamW (the system alone), `dapo` and `opmd` with MuonClip.

trl lives in `.bench-envs/trl`, made by uv at the first run (6 GB, most of it torch).

    python bench/rl_learner.py --out bench/results/rl_learner.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from interleaved import machine, report, summary
from rival_environments import trl_environment

from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Ending, Group, Outcome, Segment, Status, Task, TokenSource, Trajectory
from abruzzi.contracts.training import MODEL_PRESETS
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.export import export_huggingface, import_huggingface
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.train.divergence import DivergenceWatch

RIVAL = Path(__file__).with_name("rl_learner_trl.py")
TOLERANCE = 1e-3
"""Of the gradient, relative to its norm; both are float32."""
TARGET = 1.5
ARMS = {
    "dapo_adamw": ("dapo", "adamw"),
    "dapo_muonclip": ("dapo", "muonclip"),
    "opmd_muonclip": ("opmd", "muonclip"),
}


class Step(NamedTuple):
    seconds: float
    cpu_seconds: float
    """Of all threads: what a busy machine changes least."""


class TrlRival:
    """The rival's process: a word in, a JSON line out."""

    def __init__(self, python: Path, folder: Path, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        self._log = (folder / "trl.log").open("w+")
        self._process = subprocess.Popen(
            [python, RIVAL, folder, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, env=environment,
        )  # fmt: skip

    def ask(self, word: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            if line.startswith("{") and '"' in line[:3]:
                return json.loads(line)
        self._log.seek(0)
        raise SystemExit(f"trl's process ended:\n{self._log.read()[-3000:]}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def make_batch(config: ModelConfig, *, groups: int, size: int, longest: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)

    def tokens(count: int) -> list[int]:
        return torch.randint(2, config.vocab_size, (count,), generator=draw).tolist()

    prompts = [tokens(int(n)) for n in torch.randint(12, 49, (groups,), generator=draw)]
    lengths = torch.empty(groups * size).log_normal_(3.7, 0.8, generator=draw).clamp(4, longest).int().tolist()
    return {
        "group_size": size,
        "prompts": [prompt for prompt in prompts for _ in range(size)],
        "completions": [tokens(length) for length in lengths],
        "rewards": torch.randint(0, 2, (groups * size,), generator=draw).float().tolist(),
        "clip_low": 0.2, "clip_high": 0.28, "lr": 1e-4,
    }  # fmt: skip


def make_groups(batch: dict[str, Any], anchor: list[list[float]]) -> list[Group]:
    size, found = batch["group_size"], []
    for first in range(0, len(batch["prompts"]), size):
        name = f"g{first // size:07d}"
        task = Task(id=name, family="bench", environment="bench@1")
        members = []
        for index in range(first, first + size):
            outcome = Outcome(status=Status.OK, reward=batch["rewards"][index])
            segments = (
                Segment(source=TokenSource.PROMPT, tokens=tuple(batch["prompts"][index])),
                Segment(
                    source=TokenSource.POLICY, tokens=tuple(batch["completions"][index]), logprobs=tuple(anchor[index]),
                    policy_version=0, temperature=1.0, ending=Ending.STOP,
                ),
            )  # fmt: skip
            members.append(
                Trajectory(
                    id=f"{name}/{index - first}", group=name, member=index - first, task=task, segments=segments,
                    status=Status.OK, outcome=outcome, turns=1,
                )
            )  # fmt: skip
        found.append(Group(id=name, task=task, trajectories=tuple(members)))
    return found


def learner_of(model: KimiK2, loss: str, optimizer: str, **more: Any) -> Learner:
    own = KimiK2(model.config)
    own.load_state_dict(model.state_dict())
    config = ObjectiveConfig(loss=loss, advantage="mean_std", **more)
    # AdamW as the rival has it: no decay, its betas; under MuonClip ours.
    same = {"weight_decay": 0.0, "adam_betas": (0.9, 0.999)} if optimizer == "adamw" else {}
    settings = OptimizerConfig(kind=optimizer, peak_lr=1e-4, **same)
    built = build_optimizer(own.named_parameters(), settings, model=own.config)
    return Learner(own, built, Ranks(0, 1, torch.device("cpu")), config, watch=DivergenceWatch())


def our_gradient(model: KimiK2, groups: list[Group]) -> tuple[float, dict[str, torch.Tensor]]:
    """Of dapo, the engine's log-probabilities standing for π_old; all groups kept, as trl does. {name: gradient}"""
    learner = learner_of(model, "dapo", "adamw", partial="anchor_behaviour", zero_variance="keep")
    seen: dict[str, torch.Tensor] = {}

    def keep(lr_scale: float, *, gradients: dict[str, torch.Tensor], **_: Any) -> None:
        seen.update({name: gradient.clone() for name, gradient in gradients.items()})

    learner.optimizer.step = keep  # type: ignore[method-assign]
    (minibatch,) = learner.anchor(groups, version=0)
    loss = learner.step(0, minibatch).metrics["rl/loss"]
    return loss, seen


def gradient_difference(ours: dict[str, torch.Tensor], folder: Path) -> float:
    """‖ours − trl's‖ / ‖trl's‖ over all parameters; an import only renames and reorders, so trl's travels through it as weights do."""
    _, theirs = import_huggingface(folder / "gradient")
    squares = difference = 0.0
    for name, gradient in theirs.items():
        own = ours.get(name, torch.zeros_like(gradient))  # buffers, and experts that no token chose
        squares += float(gradient.double().square().sum())
        difference += float((own.double() - gradient.double()).square().sum())
    return (difference / squares) ** 0.5


def moved_anchor(model: KimiK2, batch: dict[str, Any]) -> list[list[float]]:
    """log π_old of a policy near by, so that some ratios are beyond their bounds."""
    noise = torch.Generator().manual_seed(2)
    found = []
    for prompt, completion in zip(batch["prompts"], batch["completions"], strict=True):
        tokens = torch.tensor([[*prompt, *completion]])
        losses = model.token_losses(tokens[:, :-1], tokens[:, 1:])[0, len(prompt) - 1 :]
        found.append((-losses + 0.2 * torch.randn(len(losses), generator=noise)).tolist())
    return found


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    config = ModelConfig.from_dict(MODEL_PRESETS[arguments.preset])
    model = KimiK2(config, seed=0)
    batch = make_batch(config, groups=arguments.groups, size=8, longest=arguments.longest)
    anchor = moved_anchor(model, batch)
    python = trl_environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_huggingface(model.state_dict(), config, folder / "model")
        (folder / "batch.json").write_text(json.dumps({**batch, "anchor": anchor}))
        rival = TrlRival(python, folder, arguments.threads)
        try:
            theirs = rival.ask("gradient")
            loss, gradients = our_gradient(model, make_groups(batch, anchor))
            parity = {
                "loss_ours": loss,
                "loss_trl": theirs["loss"],
                "gradient_difference": gradient_difference(gradients, folder),
                "tolerance": TOLERANCE,
            }
            settings = rival.ask("settings")
            steps = _in_turns(rival, model, make_groups(batch, anchor), arguments.rounds)
        finally:
            rival.close()
    result = _result(arguments, batch, parity, settings, steps)
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def _in_turns(rival: TrlRival, model: KimiK2, groups: list[Group], rounds: int) -> dict[str, list[Step]]:
    def our_step(learner: Learner) -> Callable[[], Step]:
        def step() -> Step:
            started, worked = time.perf_counter(), time.process_time()
            (minibatch,) = learner.anchor(groups, version=0)
            learner.step(0, minibatch)
            return Step(time.perf_counter() - started, time.process_time() - worked)

        return step

    def their_step() -> Step:
        found = rival.ask("step")
        return Step(found["seconds"], found["cpu_seconds"])

    steps = {name: our_step(learner_of(model, *arm, zero_variance="keep")) for name, arm in ARMS.items()}
    steps["trl"] = their_step
    for step in steps.values():
        step()
    found: dict[str, list[Step]] = {name: [] for name in steps}
    for index in range(rounds):
        for name in list(steps) if index % 2 == 0 else reversed(list(steps)):
            found[name].append(steps[name]())
    return found


def _result(
    arguments: argparse.Namespace,
    batch: dict[str, Any],
    parity: dict[str, Any],
    settings: dict[str, Any],
    steps: dict[str, list[Step]],
) -> dict[str, Any]:
    samples = len(batch["prompts"])
    tokens = sum(map(len, batch["prompts"])) + sum(map(len, batch["completions"]))
    widest = max(map(len, batch["prompts"])) + max(map(len, batch["completions"]))
    medians = {name: statistics.median(step.seconds for step in values) for name, values in steps.items()}
    cpu = {name: statistics.median(step.cpu_seconds for step in values) for name, values in steps.items()}
    speedups = {name: medians["trl"] / medians[name] for name in ARMS}
    is_equal = parity["gradient_difference"] <= TOLERANCE and abs(parity["loss_ours"] - parity["loss_trl"]) <= TOLERANCE
    return {
        "bench": "rl_learner",
        "preset": arguments.preset,
        "samples": samples,
        "tokens": tokens,
        "share_of_padding_in_trl": 1 - tokens / (samples * widest),
        "peer": "trl 1.16.0 GRPOTrainer: training_step, clip_grad_norm_, optimizer.step; loss dapo",
        "machine": machine(threads=arguments.threads),
        "parity_of_dapo": {**parity, "equal": is_equal},
        "trl_settings": settings,
        **{
            name: {**summary([step.seconds for step in values]), "cpu_s": cpu[name], "samples_per_second": samples / medians[name], "tokens_per_second": tokens / medians[name]}
            for name, values in steps.items()
        },
        "speedup": speedups,
        "less_processor_time": {name: cpu["trl"] / cpu[name] for name in ARMS},
        "target_speedup_dapo_adamw": TARGET,
        "ok": is_equal and speedups["dapo_adamw"] >= TARGET,
    }  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=[name for name in MODEL_PRESETS if name != "k2"])
    parser.add_argument("--groups", type=int, default=8, help="of 8 samples each")
    parser.add_argument("--longest", type=int, default=256, help="tokens of a completion")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
