"""A checkpoint behind OpenAI's protocol: the numbers are the model's, the answer depends on the request alone, bad requests are told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
import torch
from safetensors.torch import save_file

from abruzzi.contracts.endpoint import ChatRole, CheckpointEndpoint, RoleConfig
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import TokenizerConfig
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.chat.roles import open_roles
from abruzzi_jobs.chat.servers.loopback import loopback_server
from abruzzi_jobs.data.text_shards import TextRecord, TextShardWriter
from abruzzi_jobs.data.tokenizer import END_OF_TEXT, train_tokenizer
from abruzzi_jobs.evals.checkpoint_model import load_model
from abruzzi_jobs.models import KimiK2, ModelConfig, YarnConfig, generate
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.serve.asked import BadRequest, read_asked
from abruzzi_jobs.serve.engine import Engine
from abruzzi_jobs.serve.server import Handler

VOCABULARY = 300
MODEL = {
    "vocab_size": VOCABULARY + 12, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 16,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "intermediate_size": 64, "moe_intermediate_size": 16, "num_experts": 4,
    "num_experts_per_token": 2, "max_position": 64,
}  # fmt: skip
"""More rows than the tokenizer has tokens, as a vocabulary that is padded to a round size."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("served")
    corpus, tokenizer, checkpoint = (root / name for name in ("corpus", "tokenizer", "checkpoint"))
    for folder in (corpus, tokenizer, checkpoint):
        folder.mkdir()
    writer = TextShardWriter(corpus, "train")
    for number in range(40):
        writer.write(
            TextRecord(
                id=str(number), text=f"The cat number {number} sat on the mat, très bien. " * 4, source="s", domain="d"
            )
        )
    described = {"shards": writer.close(), "train_bytes": 8000, "heldout_bytes": 0}
    (corpus / "corpus.json").write_text(json.dumps(described))
    train_tokenizer(corpus, TokenizerConfig(vocab_size=VOCABULARY), out=tokenizer)
    model = KimiK2(ModelConfig.from_dict(MODEL), seed=0)
    with torch.no_grad():
        model.lm_head.weight.mul_(40)  # so that temperature matters
    save_file(model.state_dict(), checkpoint / "model.safetensors")
    (checkpoint / "state.json").write_text(json.dumps({"config": {"model": MODEL}, "step": 1}))
    return {"own.checkpoint": checkpoint, "own.tokenizer": tokenizer}


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path]) -> Engine:
    return Engine.load(folders["own.checkpoint"], folders["own.tokenizer"], thread_count=1)


def asked(text: str = "The cat number 3", **more):
    return read_asked({"messages": [{"role": "user", "content": text}], "max_tokens": 12, "seed": 5, **more})


def test_greedy_text_and_logprobs_are_the_models(engine: Engine, folders: dict[str, Path]) -> None:
    answer = engine.answer(asked(temperature=0, logprobs=True, top_logprobs=3))
    model, _ = load_model(folders["own.checkpoint"])
    tokenizer = engine.tokenizer
    end = tokenizer.token_to_id(END_OF_TEXT)
    prompt = [end, *tokenizer.encode("The cat number 3", add_special_tokens=False).ids]
    for token, entry in zip(answer.tokens, answer.logprobs, strict=False):
        logits_V = model.logits(torch.tensor([prompt]), last_only=True)[0]
        logits_V[[tokenizer.token_to_id("<|pad|>") or 1, *range(tokenizer.get_vocab_size(), MODEL["vocab_size"])]] = (
            float("-inf")
        )
        expected_V = torch.log_softmax(logits_V, -1)
        assert token == int(expected_V.argmax())
        assert entry["logprob"] == pytest.approx(float(expected_V[token]), abs=1e-3)
        assert [t["logprob"] for t in entry["top_logprobs"]] == pytest.approx(
            expected_V.topk(3).values.tolist(), abs=1e-3
        )
        assert bytes(entry["top_logprobs"][0]["bytes"]) == bytes(entry["bytes"])
        prompt.append(token)
    assert answer.prompt_tokens == len(prompt) - len(answer.tokens)
    assert answer.text == tokenizer.decode([t for t in answer.tokens if t != end])
    assert b"".join(bytes(entry["bytes"]) for entry in answer.logprobs or ()).decode("utf-8", "replace") == answer.text


def test_tokens_are_those_of_the_generator_that_evaluations_use(engine: Engine) -> None:
    never = set(engine._never.tolist())
    answer = engine.answer(asked(temperature=0))
    end = engine.tokenizer.token_to_id(END_OF_TEXT)
    prompt = torch.tensor([[end, *engine.tokenizer.encode("The cat number 3", add_special_tokens=False).ids]])
    tokens = generate(engine.model, prompt, max_new_tokens=12, temperature=0, end_token=end)[0].tolist()
    same = next((i for i, t in enumerate(tokens) if t in never), len(answer.tokens))
    assert same
    assert answer.tokens[:same] == tokens[:same]


def test_a_checkpoint_may_be_served_with_other_positions_than_it_was_trained_with(
    engine: Engine, folders: dict[str, Path]
) -> None:
    yarn = YarnConfig(factor=8.0, original_max_position=8)
    turned = Engine.load(folders["own.checkpoint"], folders["own.tokenizer"], thread_count=1, yarn=yarn)
    said = asked("The cat number 3 sat on the mat, très bien. " * 2, temperature=0, logprobs=True, max_tokens=1)
    model, _ = load_model(folders["own.checkpoint"])
    model.set_yarn(yarn)
    request, _ = turned.prepare(said)
    logits_V = model.logits(torch.tensor([request.tokens]), last_only=True)[0].index_fill(
        0, turned._never, float("-inf")
    )
    found, plain = turned.answer(said), engine.answer(said)
    assert found.tokens == [int(logits_V.argmax())]
    assert found.logprobs[0]["logprob"] == pytest.approx(float(torch.log_softmax(logits_V, -1).max()), abs=1e-5)
    assert found.logprobs[0]["logprob"] != pytest.approx(plain.logprobs[0]["logprob"], abs=1e-5)


def test_a_seed_is_an_answer_and_other_seeds_are_others(engine: Engine) -> None:
    tokens = [engine.answer(asked(temperature=1.5, seed=seed)).tokens for seed in (1, 1, 2, 3)]
    assert tokens[0] == tokens[1]
    assert len({tuple(t) for t in tokens}) == 3
    narrow = engine.answer(asked(temperature=2.0, top_p=1e-6)).tokens
    assert narrow == engine.answer(asked(temperature=0)).tokens  # a nucleus of one token is greedy
    assert all(t < VOCABULARY for t in tokens[0])


def test_stop_texts_cut_the_answer_where_they_begin(engine: Engine) -> None:
    whole = engine.answer(asked(temperature=0, logprobs=True))
    assert (whole.finish_reason, whole.completion_tokens) == ("length", 12)
    stop = next(s for s in (whole.text[i : i + 2] for i in range(2, len(whole.text) - 2)) if "\ufffd" not in s)
    cut = engine.answer(asked(temperature=0, logprobs=True, stop=["never there", stop]))
    assert (cut.text, cut.finish_reason) == (whole.text[: whole.text.index(stop)], "stop")
    assert cut.completion_tokens < 12
    assert len(cut.logprobs) <= cut.completion_tokens
    assert cut.logprobs == whole.logprobs[: len(cut.logprobs)]


def test_positions_end_the_answer_and_a_prompt_without_room_is_refused(engine: Engine) -> None:
    long = engine.answer(asked(temperature=1.0, max_tokens=1000))
    assert long.finish_reason == "length" or long.tokens[-1] == engine.tokenizer.token_to_id(END_OF_TEXT)
    assert long.prompt_tokens + long.completion_tokens <= 64
    with pytest.raises(BadRequest, match="leave no room for an answer; this model has 64 positions"):
        engine.answer(asked("word " * 200))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content"),
        ({"stop": [""]}, "stop"),
        ({"tools": [{"type": "function"}]}, "tools: not served"),
        ({"stream": "yes"}, "stream"),
        ({"n": 2}, "n: not served"),
        ({"top_logprobs": 50}, "top_logprobs"),
    ],
)
def test_bad_requests_name_the_parameter(change: dict, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        asked(**change)


def test_a_tokenizer_of_another_model_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(AbruzziError, match="not a tokenizer"):
        Engine.load(folders["own.checkpoint"], tmp_path)


async def test_the_endpoint_serves_it_from_a_process_of_its_own(
    folders: dict[str, Path], engine: Engine, tmp_path: Path
) -> None:
    endpoint = CheckpointEndpoint(kind="checkpoint", checkpoint="a.checkpoint", tokenizer="b.tokenizer", threads=1)
    roles = {ChatRole.AGENT: RoleConfig(endpoint="own", temperature=0.0, max_tokens=12)}
    async with open_roles(roles, {"own": endpoint}, folders=folders, logs=tmp_path) as opened:
        agent = opened["agent"]
        requests = [
            ChatRequest(messages=[{"role": "user", "content": f"The cat number {n}"}], logprobs=2) for n in range(4)
        ]
        answers = await asyncio.gather(*map(agent.complete, requests))
        for number, answer in enumerate(answers):
            expected = engine.answer(asked(f"The cat number {number}", temperature=0, logprobs=True, top_logprobs=2))
            assert (answer.text, answer.finish_reason) == (expected.text, expected.finish_reason)
            assert answer.logprobs == expected.logprobs
            assert answer.usage.total == expected.prompt_tokens + expected.completion_tokens
        with pytest.raises(CallRejected, match="leave no room"):
            await agent.complete(ChatRequest(messages=[{"role": "user", "content": "word " * 200}]))
    with pytest.raises(AbruzziError, match="Endpoint 'own' serves a checkpoint that this stage was not given"):
        async with open_roles(roles, {"own": endpoint}):
            pass


async def test_chats_that_are_asked_together_are_decoded_together_and_stream(engine: Engine) -> None:
    async with (
        AsyncEngine(engine.inference) as front,
        loopback_server(Handler(engine, front), key="k", model="checkpoint") as url,
        aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as session,
    ):

        async def ask(number: int, **more) -> str:
            question = {"role": "user", "content": f"The cat number {number}"}
            body = {"messages": [question], "max_tokens": 12, "seed": number, **more}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                assert response.status == 200
                return await response.text()

        whole = [json.loads(text) for text in await asyncio.gather(*map(ask, range(6)))]
        streams = await asyncio.gather(*(ask(n, stream=True, stream_options={"include_usage": True}) for n in range(6)))
    for number, (answer, stream) in enumerate(zip(whole, streams, strict=True)):
        events = [line.removeprefix("data: ") for line in stream.split("\n\n") if line]
        assert events[-1] == "[DONE]"
        chunks = [json.loads(event) for event in events[:-1]]
        said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
        alone = engine.answer(asked(f"The cat number {number}", seed=number))
        assert said == answer["choices"][0]["message"]["content"] == alone.text
        assert chunks[-2]["choices"][0]["finish_reason"] == alone.finish_reason
        assert chunks[-1]["usage"] == answer["usage"]
        assert len(chunks) > 4


def test_pieces_hold_back_what_may_be_the_beginning_of_a_stop_text(engine: Engine) -> None:
    whole = engine.answer(asked(temperature=0))
    stop = next(s for s in (whole.text[i : i + 3] for i in range(2, len(whole.text) - 3)) if "\ufffd" not in s)
    request, taking = engine.prepare(asked(temperature=0, stop=[stop]))
    shown = ""
    for drawn in engine._draws(request):
        taking.take(drawn)
        shown += taking.piece()
        assert stop not in shown
        if taking.is_over:
            break
    answer = taking.answer()
    assert shown + taking.rest(answer) == answer.text == whole.text[: whole.text.index(stop)]
