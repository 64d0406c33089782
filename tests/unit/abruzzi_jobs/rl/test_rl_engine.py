"""The embedded engine: its log-probabilities are the trainer's bit for bit, a request's tokens follow from the request, no token is of a version that is not recorded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from rl_groups import group_of, member, read

from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Ending, Segment, TokenSource
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import Decoder, KimiK2, Llama, LlamaConfig, ModelConfig, paged
from abruzzi_jobs.models.rows import head_logits, policy_logprobs, ragged_forward
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.rl.engine.drawing import uniforms
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.train.divergence import DivergenceWatch

KIMI = ModelConfig(
    vocab_size=96, hidden_size=32, num_layers=2, num_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4,
    v_head_dim=8, intermediate_size=64, moe_intermediate_size=16, num_experts=4, num_experts_per_token=2, max_position=256,
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=96, hidden_size=48, num_layers=2, num_heads=6, num_kv_heads=2, head_dim=8, intermediate_size=64,
    max_position=256,
)  # fmt: skip


def new_model(kind: str = "kimi", seed: int = 1) -> Decoder:
    model = KimiK2(KIMI, seed=seed) if kind == "kimi" else Llama(LLAMA, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)  # so that temperature matters and no two logits are nearly alike
    return model


def requests(count: int = 12, *, max_tokens: int = 40) -> list[Request]:
    """Groups of three with the same prompt, of 1 to 150 tokens."""
    rng = random.Random(3)
    prompts = [tuple(rng.randrange(96) for _ in range(rng.choice((1, 5, 40, 64, 150)))) for _ in range(-(-count // 3))]
    return [
        Request(
            id=f"r{n}", tokens=prompts[n // 3], max_tokens=1 + (n * 13) % max_tokens, temperature=(1.0, 0.7, 0.0)[n % 3],
            seed=n, stop_tokens=frozenset({7}), group=f"g{n // 3}",
        )
        for n in range(count)
    ]  # fmt: skip


def play(
    engine: TorchEngine, waiting: Sequence[Request], *, together: int = 1000, steps: int = 10_000
) -> dict[str, Segment]:
    """All of them, `together` at a time."""
    found: dict[str, Segment] = {}
    left = list(waiting)
    under_way = 0
    for _ in range(steps):
        while left and under_way < together:
            engine.submit(left.pop(0))
            under_way += 1
        for ended in engine.step():
            found[ended.request_id] = ended.segment
            under_way -= 1
        if not left and not under_way:
            break
    return found


@torch.no_grad()
def trainer_logprobs(model: Decoder, request: Request, tokens: Sequence[int]) -> list[float]:
    """Of `tokens` after the request's, by the learner's forward pass of the whole sequence."""
    whole = torch.tensor([*request.tokens, *tokens])
    logits = head_logits(model, ragged_forward(model, whole, [len(whole)]).hidden_TD) / (request.temperature or 1.0)
    logprobs = torch.log_softmax(logits, -1)
    begin = len(request.tokens)
    return [float(logprobs[begin + i - 1, token]) for i, token in enumerate(tokens)]


@pytest.mark.parametrize(("kind", "threads"), [("kimi", 1), ("llama", 1), ("kimi", 2)])
def test_log_probabilities_are_the_trainer_s_bit_for_bit(kind: str, threads: int) -> None:
    torch.set_num_threads(threads)
    model, engine = new_model(kind), TorchEngine(new_model(kind))
    asked = requests(12 if threads == 1 else 4)
    found = play(engine, asked)
    for request in asked:
        segment = found[request.id]
        assert list(segment.logprobs) == trainer_logprobs(model, request, segment.tokens), request.id
        assert segment.ending is (Ending.STOP if segment.tokens[-1] == 7 else Ending.LENGTH)
    scored = engine.logprobs([(*r.tokens, *found[r.id].tokens) for r in asked], temperature=1.0)
    for request, logprobs in zip(asked, scored, strict=True):
        assert logprobs == trainer_logprobs(
            model,
            replace(request, tokens=request.tokens[:1], temperature=1.0),
            (*request.tokens[1:], *found[request.id].tokens),
        )


def test_training_mode_gives_the_same_bits_with_a_gradient() -> None:
    model, engine = new_model(), TorchEngine(new_model())
    request = requests()[3]
    segment = play(engine, [request])[request.id]
    whole = torch.tensor([*request.tokens, *segment.tokens])
    other = torch.tensor([3, 5, 8])
    hidden = ragged_forward(model, torch.cat((other, whole)), [len(other), len(whole)]).hidden_TD
    logprobs = torch.log_softmax(head_logits(model, hidden[len(other) :]) / request.temperature, -1)
    picked = logprobs[len(request.tokens) - 1 : -1].gather(1, torch.tensor(segment.tokens).unsqueeze(1)).squeeze(1)
    picked.sum().backward()
    assert picked.tolist() == list(segment.logprobs)
    assert model.embed_tokens.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["kimi", "llama"])
def test_a_request_s_tokens_follow_from_the_request_alone(kind: str) -> None:
    asked = requests()
    together = play(TorchEngine(new_model(kind)), asked)
    alone = play(TorchEngine(new_model(kind)), asked, together=1)
    few = play(TorchEngine(new_model(kind), max_running=3, cache_tokens=320), asked[::-1])
    assert together == alone == few
    assert any(segment.tokens != alone["r0"].tokens for segment in alone.values())


def test_paused_and_resumed_is_uninterrupted() -> None:
    asked = requests()
    whole = play(TorchEngine(new_model()), asked)
    engine = TorchEngine(new_model())
    parts: dict[str, list[Segment]] = {r.id: [] for r in asked}
    left = {r.id: r for r in asked}
    rng = random.Random(1)
    while left:
        for request in left.values():
            engine.submit(request)
        ended = [g for _ in range(rng.randrange(1, 9)) for g in engine.step()]
        ended += engine.pause("abort")
        engine.resume()
        for one in ended:
            request = left.pop(one.request_id)
            parts[one.request_id].append(one.segment)
            if one.segment.ending is Ending.PAUSED:
                left[request.id] = replace(
                    request,
                    tokens=(*request.tokens, *one.segment.tokens),
                    max_tokens=request.max_tokens - len(one.segment.tokens),
                )
    assert sum(len(p) > 1 for p in parts.values()) > 3
    for name, segment in whole.items():
        assert tuple(t for part in parts[name] for t in part.tokens) == segment.tokens
        assert tuple(p for part in parts[name] for p in part.logprobs) == segment.logprobs


def update(engine: TorchEngine, model: Decoder, version: int) -> None:
    engine.begin_update(version)
    engine.load_bucket(model.state_dict().items())
    engine.finish_update(version)


@pytest.mark.parametrize("mode", ["abort", "keep"])
def test_no_token_is_of_a_version_that_is_not_recorded(mode: str) -> None:
    models = [new_model(seed=seed) for seed in (1, 2)]
    engine = TorchEngine(new_model(seed=1))
    asked = requests(max_tokens=60)
    for request in asked:
        engine.submit(request)
    ended = [g for _ in range(9) for g in engine.step()]
    ended += engine.pause(mode)
    update(engine, models[1], 1)
    engine.resume()
    ended += engine.step()
    first = {g.request_id: g.segment for g in ended}
    if mode == "keep":  # those that had drawn nothing went on by themselves
        assert all(s.tokens for s in first.values())
    again = [
        replace(r, tokens=(*r.tokens, *first[r.id].tokens), max_tokens=r.max_tokens - len(first[r.id].tokens))
        for r in asked
        if r.id in first and first[r.id].ending is Ending.PAUSED
    ]
    second = play(engine, again)
    assert len(second) > 3
    for request in asked:
        if request.id in first:
            segment = first[request.id]
            model = models[segment.policy_version]
            assert list(segment.logprobs) == trainer_logprobs(model, request, segment.tokens)
    for request in again:
        assert second[request.id].policy_version == 1
        assert list(second[request.id].logprobs) == trainer_logprobs(models[1], request, second[request.id].tokens)


def test_an_update_that_is_not_whole_changes_nothing() -> None:
    engine, new = TorchEngine(new_model(seed=1)), new_model(seed=2)
    engine.pause("abort")
    request = requests()[0]
    state = dict(new.state_dict())
    engine.begin_update(4)
    engine.load_bucket([item for item in state.items() if item[0] != "lm_head.weight"])
    head = state["lm_head.weight"].flatten()
    engine.load_piece("lm_head.weight", 0, head[:100])
    with pytest.raises(
        ValueError, match=r"1 parameters have not come whole, lm_head\.weight among them; version 0 stays"
    ):
        engine.finish_update(4)
    with pytest.raises(ValueError, match="no parameter of this model"):
        engine.load_bucket([("strange", head)])
    with pytest.raises(ValueError, match="shape"):
        engine.load_bucket([("lm_head.weight", head)])
    engine.abandon_update()
    with pytest.raises(ValueError, match="versions only grow"):
        engine.begin_update(0)
    engine.resume()
    old = play(engine, [request])[request.id]
    assert (old.policy_version, old) == (0, play(TorchEngine(new_model(seed=1)), [request])[request.id])
    engine.pause("keep")
    engine.begin_update(4)
    engine.load_bucket([item for item in state.items() if item[0] != "lm_head.weight"])
    for start in range(0, head.numel(), 1000):
        engine.load_piece("lm_head.weight", start, head[start : start + 1000])
    head.zero_()  # the engine keeps no view of what it was given
    engine.finish_update(4)
    engine.resume()
    assert play(engine, [request])[request.id] == play(TorchEngine(new_model(seed=2), version=4), [request])[request.id]


def test_sleep_frees_and_waking_goes_on() -> None:
    engine = TorchEngine(new_model())
    asked = requests(6)
    whole = play(TorchEngine(new_model()), asked)
    for request in asked:
        engine.submit(request)
    ended = [g for _ in range(5) for g in engine.step()]
    with pytest.raises(ValueError, match="sleep: only when paused"):
        engine.sleep(1)
    engine.pause("keep")
    assert paged._reading.cache_info().currsize > 0
    engine.sleep(1)
    assert (engine.stats().cache_tokens, paged._reading.cache_info().currsize) == (0, 0)
    with pytest.raises(ValueError, match="wake it first"):
        engine.resume()
    engine.wake()
    engine.resume()
    found = {g.request_id: g.segment for g in ended} | play_out(engine)
    assert found == whole
    engine.pause("keep")
    engine.sleep(2)
    assert all(p.numel() == 0 for p in engine.model.parameters())
    with pytest.raises(ValueError, match="a weight update comes first"):
        engine.wake()
    update(engine, new_model(), 1)
    engine.wake()
    engine.resume()
    again = play(engine, asked)
    assert {n: (s.tokens, s.logprobs) for n, s in again.items()} == {
        n: (s.tokens, s.logprobs) for n, s in whole.items()
    }


def play_out(engine: TorchEngine) -> dict[str, Segment]:
    found: dict[str, Segment] = {}
    while engine.stats().running or engine.stats().waiting:
        found |= {g.request_id: g.segment for g in engine.step()}
    return found


def test_what_begins_alike_is_computed_once_and_dropped_with_its_version() -> None:
    engine = TorchEngine(new_model())
    group = [replace(r, tokens=tuple(range(90)), group="g", id=f"m{n}") for n, r in enumerate(requests(8))]
    first = play(engine, group)
    stats = engine.stats()
    assert stats.prompt_tokens == 90 + 7  # the others compute the last token only
    assert stats.shared_tokens == 7 * 89
    turn = group[0]
    longer = replace(turn, id="turn2", tokens=(*turn.tokens, *first["m0"].tokens, 1, 2, 3))
    play(engine, [longer])
    assert engine.stats().shared_tokens - stats.shared_tokens == len(turn.tokens) + len(first["m0"].tokens) - 1
    engine.pause("abort")
    update(engine, new_model(seed=1), 1)
    engine.resume()
    before = engine.stats().shared_tokens
    play(engine, [replace(longer, id="turn3")])
    assert engine.stats().shared_tokens == before


def test_cancelling_gives_what_there_is_and_frees_its_place() -> None:
    engine = TorchEngine(new_model(), max_running=2)
    asked = [replace(r, max_tokens=50, stop_tokens=frozenset()) for r in requests(3)]
    for request in asked:
        engine.submit(request)
    for _ in range(4):
        engine.step()
    cancelled = engine.cancel("r0")
    assert cancelled is not None
    assert (cancelled.segment.ending, len(cancelled.segment.tokens) > 0) == (Ending.ABORTED, True)
    assert engine.cancel("r0") is None
    waiting = engine.cancel("r2")
    assert waiting is not None
    assert waiting.segment.tokens == ()
    rest = play_out(engine)
    assert set(rest) == {"r1"}
    assert engine.stats().cache_tokens == 0


def test_a_full_cache_puts_the_youngest_back_and_changes_nothing() -> None:
    asked = [replace(r, max_tokens=100, stop_tokens=frozenset()) for r in requests(6)]
    engine = TorchEngine(new_model(), cache_tokens=320)
    assert play(engine, asked) == play(TorchEngine(new_model()), asked)
    assert engine.stats().prompt_tokens > sum(len(r.tokens) for r in asked[::3])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": ()}, "at least one token"),
        ({"max_tokens": 0}, "at least one token"),
        ({"tokens": (96,)}, "tokens of 0 to 95"),
        ({"tokens": tuple([1] * 256)}, "leave no room; this engine has 256 positions"),
    ],
)
def test_what_cannot_be_done_is_refused(change: dict, words: str) -> None:
    engine = TorchEngine(new_model())
    with pytest.raises(ValueError, match=words):
        engine.submit(replace(requests()[0], **change))
    engine.submit(requests()[0])
    with pytest.raises(ValueError, match="under way already"):
        engine.submit(requests()[0])


def test_draws_follow_the_distribution() -> None:
    engine = TorchEngine(new_model())
    base = Request(id="", tokens=(3, 4), max_tokens=1, temperature=1.0, seed=0, stop_tokens=frozenset())
    found = play(engine, [replace(base, id=str(n), seed=n) for n in range(3000)])
    counts = torch.bincount(torch.tensor([s.tokens[0] for s in found.values()]), minlength=96)
    logits = head_logits(engine.model, ragged_forward(engine.model, torch.tensor([3, 4]), [2]).hidden_TD)[1]
    expected = F.softmax(logits, -1) * 3000
    often = expected > 20
    chi = float((((counts - expected) ** 2) / expected)[often].sum())
    assert chi < 2.0 * int(often.sum()), (chi, int(often.sum()))


def test_what_the_engine_recorded_is_what_the_learner_computes_bit_for_bit_over_turns_and_packing() -> None:
    model = new_model()
    engine, groups = TorchEngine(new_model()), []
    for index in range(3):
        first = {n: r for n, r in enumerate(requests()[3 * index : 3 * index + 3])}
        said = play(engine, first.values())
        observation = (11, 12, 13)
        second = {
            n: replace(r, tokens=(*r.tokens, *said[r.id].tokens, *observation), temperature=0.9)
            for n, r in first.items()
        }
        again = play(engine, second.values())
        members = [
            member(
                f"g{index}", n,
                [read(TokenSource.PROMPT, r.tokens), said[r.id], read(TokenSource.ENVIRONMENT, observation), again[r.id]],
                reward=float(n),
            )
            for n, r in first.items()
        ]  # fmt: skip
        groups.append(group_of(members))
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(), model=KIMI)
    ranks = Ranks(0, 1, torch.device("cpu"))
    learner = Learner(model, optimizer, ranks, ObjectiveConfig(), watch=DivergenceWatch(), micro_tokens=300)
    (minibatch,) = learner.anchor(groups, version=0)
    assert len(minibatch.rows) > 1
    for row in minibatch.rows:
        out = policy_logprobs(model, row.tokens_L, row.targets_L, row.positions, row.temperature_T)
        assert torch.equal(out.logprob_C, row.behaviour_T)
    assert learner.step(0, minibatch).metrics["rl/mismatch_kl"] == 0.0


def test_numbers_that_draw_are_splitmix64s_and_the_same_beside_others() -> None:
    assert uniforms([0], [0])[0] == ((0xE220A8397B1DCDAF >> 11) + 0.5) * 2.0**-53, "its published first number"
    seeds, positions = [0, -1, 2**64, 2**70 + 3], [0, 5, 0, 9]
    alone = [uniforms([seed], [position])[0] for seed, position in zip(seeds, positions, strict=True)]
    assert uniforms(seeds, positions).tolist() == alone
    assert alone[2] == alone[0], "seeds count modulo 2^64"
