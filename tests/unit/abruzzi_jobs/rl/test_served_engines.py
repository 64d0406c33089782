"""One contract for all engines: the embedded one, and vLLM's and SGLang's servers, here fakes of their documented HTTP that draw with an embedded engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_servers import CONFIG, SERVERS, Ground, ground, served

from abruzzi.contracts.rollout import Ending
from abruzzi_jobs.models import KimiK2
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.served import EngineServerFailed

PROMPT = (3, 4, 5, 6)


@pytest.fixture(params=["embedded", "vllm", "sglang"])
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    with ground(request.param, tmp_path) as made:
        yield made


def asked(
    name: str, *, max_tokens: int = 200, tokens: tuple[int, ...] = PROMPT, stop: int = 96, seed: int = 1
) -> Request:
    return Request(
        id=name, tokens=tokens, max_tokens=max_tokens, temperature=1.0, seed=seed, stop_tokens=frozenset({stop})
    )


def renew(on: Ground, version: int) -> None:
    """Weights that say something else."""
    on.engine.begin_update(version)
    on.engine.load_bucket((name, 3 * tensor) for name, tensor in KimiK2(CONFIG, seed=1).state_dict().items())
    on.engine.finish_update(version)


def test_requests_end_at_a_stop_token_or_their_limit_with_the_log_probabilities_of_what_was_drawn(on: Ground) -> None:
    on.engine.submit(asked("limit", max_tokens=9))
    on.engine.submit(asked("other", max_tokens=9, seed=2))
    found = on.ended(2)
    segment = found["limit"]
    assert (segment.ending, len(segment.tokens), segment.policy_version, segment.temperature) == (
        Ending.LENGTH,
        9,
        0,
        1.0,
    )
    assert found["other"].tokens != segment.tokens
    scores = on.engine.logprobs([[*PROMPT, *segment.tokens]], temperature=1.0)[0]
    assert segment.logprobs == pytest.approx(scores[len(PROMPT) - 1 :], abs=1e-5)
    on.engine.submit(asked("again", max_tokens=9, stop=segment.tokens[4]))
    stopped = on.ended()["again"]
    at = segment.tokens.index(segment.tokens[4]) + 1
    assert (stopped.ending, stopped.tokens) == (Ending.STOP, segment.tokens[:at])


def test_what_cannot_be_drawn_is_refused_before(on: Ground) -> None:
    on.let(0)
    on.engine.submit(asked("a"))
    with pytest.raises(ValueError, match="a is under way already"):
        on.engine.submit(asked("a"))
    with pytest.raises(ValueError, match="leave no room"):
        on.engine.submit(asked("b", tokens=(1,) * 256))
    with pytest.raises(ValueError, match="tokens of 0 to 95"):
        on.engine.submit(asked("c", tokens=(96,)))
    with pytest.raises(ValueError, match="at least one token"):
        on.engine.submit(asked("d", tokens=()))
    cancelled = on.engine.cancel("a")
    assert cancelled is not None
    assert cancelled.segment.ending is Ending.ABORTED
    assert on.engine.cancel("a") is None


def test_pausing_hands_out_what_there_is_and_new_requests_wait(on: Ground) -> None:
    on.let(0)
    on.engine.submit(asked("a"))
    on.let(5)
    [paused] = on.engine.pause("abort")
    assert (paused.segment.ending, len(paused.segment.tokens), len(paused.segment.logprobs)) == (Ending.PAUSED, 5, 5)
    on.engine.submit(asked("b", tokens=(*PROMPT, *paused.segment.tokens), max_tokens=3))
    assert on.engine.step() == []
    on.free()
    on.engine.resume()
    assert len(on.ended()["b"].tokens) == 3


def test_an_update_under_kept_requests_ends_them_with_the_version_that_drew_them(on: Ground) -> None:
    on.let(0)
    on.engine.submit(asked("a"))
    on.let(5)
    assert on.engine.pause("keep") == []
    renew(on, 3)
    on.free()
    on.engine.resume()
    old = on.ended()["a"]
    assert (old.ending, len(old.tokens), old.policy_version) == (Ending.PAUSED, 5, 0)
    on.engine.submit(asked("b", max_tokens=4))
    new = on.ended()["b"]
    assert (new.policy_version, on.engine.version) == (3, 3)
    scores = on.engine.logprobs([[*PROMPT, *new.tokens]], temperature=1.0)[0]
    assert new.logprobs == pytest.approx(scores[len(PROMPT) - 1 :], abs=1e-5)


def test_an_update_is_whole_or_none_and_versions_only_grow(on: Ground) -> None:
    with pytest.raises(ValueError, match="only when paused"):
        on.engine.begin_update(1)
    on.engine.pause("abort")
    state = KimiK2(CONFIG, seed=1).state_dict()
    on.engine.begin_update(2)
    name, first = next(iter(state.items()))
    on.engine.load_piece(name, 0, first.flatten()[:10])
    with pytest.raises(ValueError, match="have not come whole"):
        on.engine.finish_update(2)
    with pytest.raises(ValueError, match="no parameter of this model"):
        on.engine.load_bucket([("strange", first)])
    on.engine.abandon_update()
    assert on.engine.version == 0
    before = on.engine.logprobs([[*PROMPT, 9]], temperature=1.0)
    renew(on, 2)
    with pytest.raises(ValueError, match="versions only grow"):
        on.engine.begin_update(2)
    assert on.engine.logprobs([[*PROMPT, 9]], temperature=1.0) != before


@pytest.mark.parametrize("level", [1, 2])
def test_a_sleeping_engine_takes_weights_and_wakes_with_them(on: Ground, level: int) -> None:
    on.engine.pause("abort")
    on.engine.sleep(level)
    if level == 2:
        with pytest.raises(ValueError, match="a weight update comes first"):
            on.engine.wake()
    with pytest.raises(ValueError, match="wake it first"):
        on.engine.resume()
    renew(on, 1)
    on.engine.wake()
    on.engine.resume()
    on.engine.submit(asked("a", max_tokens=4))
    assert on.ended()["a"].policy_version == 1
    on.engine.pause("abort")
    on.engine.sleep(1)
    on.engine.wake()
    on.engine.resume()
    on.engine.submit(asked("b", max_tokens=4))
    assert len(on.ended()["b"].tokens) == 4


@pytest.mark.parametrize(("kind", "path"), [("vllm", "/inference/v1/generate"), ("sglang", "/generate")])
def test_a_server_that_fails_or_is_away_is_told_with_its_own_words(kind: str, path: str, tmp_path: Path) -> None:
    with served(kind, tmp_path) as (on, fake):
        fake.fails = path
        on.engine.submit(asked("a"))
        with pytest.raises(EngineServerFailed, match=r"500: .*out of memory"):
            on.ended()
        assert on.engine.stats().running == 0
    engine = SERVERS[kind][1](
        fake.url, positions=8, vocab_size=8, shapes={}, write=lambda state, to: None, folder=tmp_path
    )
    with pytest.raises(EngineServerFailed, match="Connect"):
        engine.pause("abort")
    engine.close()


@pytest.mark.parametrize(("kind", "path"), [("vllm", "/inference/v1/generate"), ("sglang", "/generate")])
def test_what_is_cancelled_or_paused_before_the_server_has_heard_of_it_ends(
    kind: str, path: str, tmp_path: Path
) -> None:
    with served(kind, tmp_path) as (on, fake):
        on.let(0)
        fake.overtaken = path
        on.engine.submit(asked("a"))
        cancelled = on.engine.cancel("a")
        assert cancelled is not None
        assert cancelled.segment.ending is Ending.ABORTED
        fake.answered.clear()
        on.engine.submit(asked("b"))
        [paused] = on.engine.pause("abort")
        assert (paused.request_id, paused.segment.ending) == ("b", Ending.PAUSED)
