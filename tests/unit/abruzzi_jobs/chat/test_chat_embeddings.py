"""Vectors of texts by a role: in the order of the texts, asked once, counted; whatever is no vector is no answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from chat_server import GARBAGE, Behaviour, chat_server, failed, vectors

from abruzzi.contracts.endpoint import ChatRole, OpenAiEndpoint, RoleConfig
from abruzzi.store import DirectoryStore
from abruzzi_jobs.chat.calls import CallLog
from abruzzi_jobs.chat.check import check_recipe
from abruzzi_jobs.chat.embeddings import EmbeddingRequest
from abruzzi_jobs.chat.failures import BudgetReached, CallRejected, EndpointFailed
from abruzzi_jobs.chat.roles import open_roles

PAIR = EmbeddingRequest(texts=("one text", "another text"))


@asynccontextmanager
async def embedder_at(url: str, folder: Path | None = None, **settings):
    endpoint = OpenAiEndpoint(kind="openai", base_url=url, model="m", max_tries=2)
    log = CallLog(DirectoryStore(folder), "p/calls/", writer="run-stage-1") if folder else None
    config = RoleConfig(endpoint="vectors", **settings)
    roles = open_roles({ChatRole.EMBEDDER: config}, {"vectors": endpoint}, log=log, first_pause_seconds=0.01)
    async with roles as opened:
        yield opened


async def test_texts_get_their_vectors_once_also_in_a_later_attempt_and_are_counted(tmp_path: Path) -> None:
    async with chat_server(vectors([3.0, 4.0], [4.0, 3.0])) as server:
        async with embedder_at(server.url, tmp_path) as roles:
            found = await roles["embedder"].embed(PAIR)
            assert (await roles["embedder"].embed(PAIR)).vectors_ND.tolist() == found.vectors_ND.tolist()
            assert roles.metrics()["chat/embedder/prompt_tokens"] == 9
            assert roles.metrics()["chat/embedder/calls"] == 1
        async with embedder_at(server.url, tmp_path) as roles:
            again = await roles["embedder"].embed(PAIR)
            described = await roles.write_calls(tmp_path)
    assert found.vectors_ND.tolist() == again.vectors_ND.tolist() == [[3.0, 4.0], [4.0, 3.0]]
    assert (found.cosine(0, 1), found.cosine(1, 1)) == (pytest.approx(0.96), pytest.approx(1.0))
    assert server.requests == [{"input": ["one text", "another text"], "encoding_format": "float", "model": "m"}]
    assert server.paths == ["/v1/embeddings"]
    assert described["roles"]["embedder"]["generators"] == {"vectors-1": 1}


NONE_AT_ALL = {
    "one for two texts": vectors([1.0, 2.0]),
    "of different lengths": vectors([1.0, 2.0], [1.0]),
    "of no length": vectors([], []),
    "with what is no number": vectors([1.0, float("nan")], [1.0, 2.0]),
    "twice the same place": Behaviour(json.dumps({"data": [{"index": 0, "embedding": [1.0]}] * 2}).encode()),
    "a list": Behaviour(b"[]"),
    "no JSON": GARBAGE,
}


@pytest.mark.parametrize("answer", NONE_AT_ALL.values(), ids=NONE_AT_ALL)
async def test_what_is_no_vector_is_asked_for_again_and_then_told(answer: Behaviour) -> None:
    async with chat_server(answer) as server, embedder_at(server.url) as roles:
        with pytest.raises(EndpointFailed, match="holds no embeddings"):
            await roles["embedder"].embed(PAIR)
    assert len(server.requests) == 2


async def test_limits_of_the_server_and_of_the_recipe_hold_for_vectors_too() -> None:
    good = vectors([1.0, 0.0], [0.0, 0.0], usage=None)
    async with (
        chat_server(failed("429 Too Many Requests", Retry_After="0"), good, failed("413 Content Too Large")) as server,
        embedder_at(server.url, budget_calls=2) as roles,
    ):
        found = await roles["embedder"].embed(PAIR)
        assert (found.tries, found.usage.is_estimated, found.cosine(0, 1)) == (2, True, 0.0)
        with pytest.raises(CallRejected, match="413"):
            await roles["embedder"].embed(EmbeddingRequest(texts=["too long"]))
        roles["embedder"].account.calls = 2
        with pytest.raises(BudgetReached):
            await roles["embedder"].embed(EmbeddingRequest(texts=["one more"]))
    assert np.isfinite(found.vectors_ND).all()


RECIPE = """
version = 1
name = "vectors"
[endpoint.vectors]
kind = "openai"
base_url = "{url}/embeddings"
model = "m"
[[stage]]
id = "ask"
kind = "container"
container = {{ command = ["true"] }}
[stage.roles]
embedder = "vectors"
"""


async def test_endpoints_check_asks_an_embedder_for_a_vector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "vectors.toml"
    async with chat_server(vectors([1.0, 2.0, 3.0])) as server:
        recipe.write_text(RECIPE.format(url=server.url))
        how = {"only": [], "folders": {}, "question": "Hello?", "max_tokens": 8, "as_json": True}
        assert await asyncio.to_thread(check_recipe, recipe, [], **how)
    (told,) = json.loads(capsys.readouterr().out)["endpoints"]
    assert (told["text"], told["model"], told["error"]) == ("(a vector of 3 numbers)", "vectors-1", None)
    assert server.paths == ["/v1/embeddings"]
