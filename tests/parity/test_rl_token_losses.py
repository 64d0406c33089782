"""The learner's token losses, loss and gradient of the whole model, against transformers' DeepseekV3 on a padded batch with the formulas as trl 1.16 has them.

(bench/rl_learner.py holds `dapo` against trl itself, in an environment of its own.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rl_groups import group_of, member, random_groups
from torch import Tensor

from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Group, TokenSource
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.export import export_huggingface, import_huggingface
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.train.divergence import DivergenceWatch

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")

LOW, HIGH = 0.2, 0.28


def near_policy(model: KimiK2, groups: Sequence[Group]) -> list[Group]:
    """The same with log-probabilities of a policy near by: some ratios are beyond their bounds."""
    noise = torch.Generator().manual_seed(4)
    found = []
    for group in groups:
        members = []
        for trajectory in group.trajectories:
            tokens = torch.tensor([trajectory.tokens])
            log_p = [0.0, *(-model.token_losses(tokens[:, :-1], tokens[:, 1:])[0]).tolist()]
            segments, at = [], 0
            for segment in trajectory.segments:
                here = slice(at, at := at + len(segment.tokens))
                if segment.source is TokenSource.POLICY:
                    drawn = [p + 0.25 * float(torch.randn((), generator=noise)) for p in log_p[here]]
                    segment = segment.model_copy(update={"logprobs": tuple(drawn)})
                segments.append(segment)
            assert trajectory.outcome is not None
            members.append(member(group.id, trajectory.member, segments, reward=trajectory.outcome.reward))
        found.append(group_of(members))
    return found


def ours(model: KimiK2, groups: Sequence[Group], loss: str) -> tuple[float, dict[str, Tensor]]:
    config = ObjectiveConfig(
        loss=loss, advantage="mean_std", partial="anchor_behaviour", zero_variance="keep", clip_low=LOW, clip_high=HIGH
    )
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(kind="adamw"), model=model.config)
    seen: dict[str, Tensor] = {}

    def keep(lr_scale: float, *, gradients: dict[str, Tensor], **_: Any) -> None:
        seen.update({name: gradient.clone() for name, gradient in gradients.items()})

    optimizer.step = keep  # type: ignore[method-assign]
    ranks = Ranks(0, 1, torch.device("cpu"))
    learner = Learner(model, optimizer, ranks, config, watch=DivergenceWatch(), micro_tokens=300)
    (minibatch,) = learner.anchor(groups, version=0)
    step = learner.step(0, minibatch)
    assert 0 < step.metrics["rl/clipped"] < 0.5
    return step.metrics["rl/loss"], seen


def as_trl(peer: Any, groups: Sequence[Group], loss: str) -> tuple[float, dict[str, Tensor]]:
    """Padded rows with a mask of completion tokens; advantages over the group's standard deviation + 1e-4."""
    members = [t for group in groups for t in group.trajectories]
    width = max(len(t.tokens) for t in members)
    ids, attended, old, mask = (torch.zeros(len(members), width) for _ in range(4))
    for row, trajectory in enumerate(members):
        ids[row, : len(trajectory.tokens)] = torch.tensor(trajectory.tokens)
        attended[row, : len(trajectory.tokens)] = 1
        at = 0
        for segment in trajectory.segments:
            here = slice(at, at := at + len(segment.tokens))
            if segment.source is TokenSource.POLICY:
                mask[row, here], old[row, here] = 1, torch.tensor(segment.logprobs)
    grouped = torch.tensor([[t.outcome.reward for t in group.trajectories] for group in groups])
    advantages = ((grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)).view(-1, 1)
    logits = peer(input_ids=ids.long(), attention_mask=attended.long()).logits[:, :-1]
    log_p = F.log_softmax(logits, -1).gather(2, ids[:, 1:].long().unsqueeze(2)).squeeze(2)
    mask, ratio = mask[:, 1:], (log_p - old[:, 1:]).exp()
    token_losses = -torch.min(ratio * advantages, ratio.clamp(1 - LOW, 1 + HIGH) * advantages)
    if loss == "dapo":
        value = (token_losses * mask).sum() / mask.sum()
    else:
        value = ((token_losses * mask).sum(-1) / mask.sum(-1)).mean()
    value.backward()
    return float(value.detach()), {name: p.grad for name, p in peer.named_parameters() if p.grad is not None}


def by_our_names(peer: Any, gradients: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """An import only renames and reorders, so gradients travel through it as weights do."""
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            parameter.copy_(gradients.get(name, torch.zeros_like(parameter)))
    peer.save_pretrained(folder)
    return import_huggingface(folder)[1]


@pytest.mark.parametrize("loss", ["dapo", "grpo"])
def test_loss_and_gradient_of_the_whole_model_are_as_trl_writes_them(
    small: ModelConfig, tmp_path: Path, loss: str
) -> None:
    model = KimiK2(small, seed=2)
    groups = random_groups(3, groups=3, members=4, vocabulary=small.vocab_size, temperatures=(1.0,))
    groups = near_policy(model, groups)
    export_huggingface(model.state_dict(), small, tmp_path / "weights")
    peer = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "weights", dtype=torch.float32)
    value, gradients = ours(model, groups, loss)
    expected, theirs = as_trl(peer, groups, loss)
    assert value == pytest.approx(expected, abs=1e-5)
    named = by_our_names(peer, theirs, tmp_path / "gradients")
    scale = max(float(gradient.norm()) for gradient in named.values())
    assert scale > 0.01
    assert gradients.keys() <= named.keys()
    for name, gradient in gradients.items():
        assert float((gradient - named[name]).norm()) <= 2e-4 * scale, name
