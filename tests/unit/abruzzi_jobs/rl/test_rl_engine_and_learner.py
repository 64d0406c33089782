"""What the engine drew from is what the learner learns from, bit for bit; and a policy that is rewarded for a token comes to say it."""

from __future__ import annotations

import copy

import pytest
import torch
from rl_groups import group_of, member, read

from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Group, Segment, TokenSource
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import Decoder, KimiK2, Llama, LlamaConfig, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.train.divergence import DivergenceWatch

WANTED = 7
PROMPTS = ([3, 4], [5], [11, 12, 13, 14, 15])
KIMI = ModelConfig(
    vocab_size=48, hidden_size=32, num_layers=2, num_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8,
    qk_rope_head_dim=4, v_head_dim=8, intermediate_size=48, moe_intermediate_size=16, num_experts=4,
    num_experts_per_token=2, max_position=128, init_std=0.1,
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=48, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=48,
    max_position=128, init_std=0.1,
)  # fmt: skip


def played(engine: TorchEngine, *, iteration: int, members: int, max_tokens: int, temperature: float) -> list[Group]:
    """The reward is the share of tokens that are the wanted one."""
    names = {f"g{number}/{index}": (number, index) for number in range(len(PROMPTS)) for index in range(members)}
    for name, (number, index) in names.items():
        engine.submit(
            Request(
                id=name, tokens=tuple(PROMPTS[number]), max_tokens=max_tokens, temperature=temperature,
                seed=1000 * iteration + 10 * number + index, stop_tokens=frozenset(), group=f"g{number}",
            )
        )  # fmt: skip
    ended: dict[str, Segment] = {}
    while len(ended) < len(names):
        ended.update({generated.request_id: generated.segment for generated in engine.step()})
    groups = []
    for number, prompt in enumerate(PROMPTS):
        segments = [ended[f"g{number}/{index}"] for index in range(members)]
        groups.append(
            group_of(
                [
                    member(
                        f"g{number}",
                        i,
                        [read(TokenSource.PROMPT, prompt), s],
                        reward=s.tokens.count(WANTED) / len(s.tokens),
                    )
                    for i, s in enumerate(segments)
                ]
            )
        )
    return groups


def learner_of(model: Decoder, config: ObjectiveConfig, *, lr: float, micro_tokens: int = 4096) -> Learner:
    settings = OptimizerConfig(newton_schulz_precision="float32", peak_lr=lr, weight_decay=0.0)
    optimizer = build_optimizer(model.named_parameters(), settings, model=model.config)
    ranks = Ranks(0, 1, torch.device("cpu"))
    return Learner(model, optimizer, ranks, config, watch=DivergenceWatch(), micro_tokens=micro_tokens)


@pytest.mark.parametrize("temperature", [0.7, 0.0])
@pytest.mark.parametrize("architecture", ["kimi", "llama"])
def test_engine_and_learner_have_the_same_log_probabilities_to_the_last_bit(
    architecture: str, temperature: float
) -> None:
    model: Decoder = KimiK2(KIMI, seed=1) if architecture == "kimi" else Llama(LLAMA, seed=1)
    engine = TorchEngine(copy.deepcopy(model), version=0)
    groups = played(engine, iteration=0, members=4, max_tokens=70, temperature=temperature)
    for micro_tokens in (80, 4096):
        learner = learner_of(
            copy.deepcopy(model), ObjectiveConfig(zero_variance="keep"), lr=1e-3, micro_tokens=micro_tokens
        )
        first, second = learner.anchor(groups, version=0, minibatches=2)
        for number, minibatch in enumerate((first, second)):
            metrics = learner.step(number, minibatch).metrics
            assert metrics["rl/learned_tokens"] > 0
            assert metrics["rl/mismatch_max"] == metrics["rl/mismatch_kl"] == 0.0


@pytest.mark.parametrize("loss", ["opmd", "dapo"])
def test_the_reward_rises(loss: str) -> None:
    model = KimiK2(KIMI, seed=0)
    learner = learner_of(model, ObjectiveConfig(loss=loss), lr=2e-2)
    rewards = []
    for iteration in range(12):
        engine = TorchEngine(copy.deepcopy(model), version=iteration)
        groups = played(engine, iteration=iteration, members=8, max_tokens=6, temperature=1.0)
        means = [group.mean_reward for group in groups]
        rewards.append(sum(mean for mean in means if mean is not None) / len(means))
        for number, minibatch in enumerate(learner.anchor(groups, version=iteration)):
            learner.step(number, minibatch)
    assert rewards[0] < 0.2, rewards
    assert rewards[-1] > 0.8, rewards
