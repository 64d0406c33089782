"""The layer between rules and judge, where a recipe has an embedder: it sees what the rules have passed, and only adds faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from chat_server import Behaviour, chat_server, vectors
from rephrase_lab import STANDIN, Lab, described, small_corpus

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.chat.embeddings import EmbeddingRequest, Embeddings
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, Usage
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind
from abruzzi_jobs.rephrase.fidelity.verifier import Verifier

SENTENCES = ("The bridge was opened in 1871.", "It is 240 metres long.")
SOURCE = " ".join(SENTENCES)
GOOD = "In 1871 the bridge was opened; its length is 240 metres."
BAD = "In 1871 the bridge was opened; its length is 310 metres."


@dataclass
class Points:
    """Gives the source's two sentences and the rewrite's one these vectors, or raises."""

    what: Any
    asked: list[tuple[str, ...]] = field(default_factory=list)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.asked.append(tuple(request.texts))
        if isinstance(self.what, Exception):
            raise self.what
        return Embeddings(vectors_ND=np.array(self.what, dtype=np.float32), usage=Usage(1, 0), model="points")


@dataclass
class Judge:
    asked: int = 0

    async def complete(self, request: ChatRequest) -> ChatResponse:
        self.asked += 1
        text = '{"verdict": "pass", "reasons": []}'
        return ChatResponse(text=text, usage=Usage(1, 1), model="m", generator="m", is_llm=True)


async def checked(text: str, embedder: Points, judge: Judge, **config: float) -> list[Fault]:
    verify = Verifier(FidelityConfig(**config), judge, embedder)
    return await verify(SOURCE, text, context=SOURCE)


async def test_texts_that_are_like_enough_go_on_to_the_judge() -> None:
    embedder, judge = Points([[1.0, 1.0], [0.0, 1.0], [1.0, 0.9]]), Judge()
    assert await checked(GOOD, embedder, judge) == []
    assert (embedder.asked, judge.asked) == ([(*SENTENCES, GOOD)], 1)


async def test_texts_that_are_not_are_a_fault_and_the_judge_is_not_asked() -> None:
    embedder, judge = Points([[1.0, 0.0], [-1.0, 0.0], [0.5, 1.0]]), Judge()
    (fault,) = await checked(GOOD, embedder, judge, min_similarity=0.6)
    assert (fault.kind, fault.layer, fault.detail) == (
        FaultKind.LIKENESS,
        "embeddings",
        "cosine 0.45 with what is nearest, by points",
    )
    assert fault.source_span is not None
    assert fault.text_span is not None
    assert (SOURCE[slice(*fault.source_span)], GOOD[slice(*fault.text_span)]) == (SENTENCES[0], GOOD)
    assert judge.asked == 0
    assert await checked(GOOD, embedder, judge, min_similarity=0.4) == []


async def test_what_the_rules_find_is_not_asked_about_and_texts_without_vectors_do_not_pass() -> None:
    embedder, judge = Points(CallRejected("too_long", "The text is too long.")), Judge()
    assert {f.kind for f in await checked(BAD, embedder, judge)} == {FaultKind.NUMBER}
    assert embedder.asked == []
    (fault,) = await checked(GOOD, embedder, judge)
    assert (fault.layer, fault.detail, judge.asked) == ("embeddings", "no vectors: The text is too long.", 0)


def each(last: list[float]) -> Behaviour:
    """All texts of a request get the same vector, but for the last one."""
    return Behaviour(answers=lambda request: vectors(*[[1.0, 0.0]] * (len(request["input"]) - 1), last).body)


async def test_a_stage_asks_the_embedder_of_its_recipe_and_keeps_what_it_said(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus", max_bytes=6000)
    async with chat_server(each([0.0, 1.0]), each([1.0, 0.1])) as server:
        stage = {
            "roles": {**STANDIN["roles"], "embedder": "vectors"},
            "endpoint": {**STANDIN["endpoint"], "vectors": {"kind": "openai", "base_url": server.url, "model": "v"}},
            "rephrase": {
                "max_rejected": 1.0,
                "retries": 0,
                "fidelity": {"min_novelty": 0.0},
                "decontamination": {"against": ["cloze"]},
            },
        }
        out = await Lab(tmp_path, corpus).run_async(stage)
    rows = list(read_rows(out, "rewrites"))
    fates = Counter(row["fate"] for row in rows)
    (unlike,) = [row for row in rows if row["fate"] == "likeness"]
    assert unlike["faults"][0]["layer"] == "embeddings"
    assert fates["kept"] > 1
    assert set(server.paths) == {"/v1/embeddings"}
    assert described(out, "calls.json")["roles"]["embedder"]["calls"] == len(server.requests) >= fates["kept"]
