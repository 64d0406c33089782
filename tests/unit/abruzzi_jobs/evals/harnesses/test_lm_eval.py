"""lm-eval's own evaluator, over tasks of a local file, against a checkpoint and an endpoint of ours."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_server import Behaviour, chat_server, said
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.evals.harnesses.lm_eval_models import CheckpointLM, EndpointLM

QUIET: dict[str, Any] = {"bootstrap_iters": 0, "log_samples": True}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def task(items: Path, **more: Any) -> dict[str, Any]:
    return {
        "task": "local", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(items)}}, "test_split": "test",
        "doc_to_text": "{{question}}", **more,
    }  # fmt: skip


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=a, idx=n) for n, a in enumerate(arguments)]


def test_a_task_of_choices_is_scored_by_the_checkpoints_own_likelihoods(checkpoint: Any, items: Path) -> None:
    chosen = task(
        items, output_type="multiple_choice", doc_to_choice="choices", doc_to_target="answer", target_delimiter=""
    )
    lm = CheckpointLM(**checkpoint, threads=1)
    found = simple_evaluate(model=lm, tasks=[chosen], task_manager=TaskManager(include_defaults=False), **QUIET)
    samples = found["samples"]["local"]
    assert len(samples) == 3
    for sample in samples:
        assert len(sample["arguments"]) == 2
        for (context, continuation), (nats, _) in zip(sample["arguments"], sample["filtered_resps"], strict=True):
            assert float(nats) == pytest.approx(by_hand(lm, context, continuation), rel=1e-4)


def by_hand(lm: CheckpointLM, context: str, continuation: str) -> float:
    before, whole = lm._engine.tokens_of(context), lm._engine.tokens_of(context + continuation)
    logprobs_LV = lm._engine.model.logits(torch.tensor([whole]))[0].log_softmax(-1)
    return sum(logprobs_LV[place - 1, whole[place]].item() for place in range(len(before), len(whole)))


def test_a_whole_text_is_the_sum_of_its_windows(checkpoint: Any) -> None:
    lm = CheckpointLM(**checkpoint, threads=1)
    short, long = "Question 3: yes", "Question 3: yes or no? " * 20
    of_short, of_long = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (short,), (long,)))
    assert of_short == pytest.approx(lm.loglikelihood(requests("loglikelihood", ("", short)))[0][0], rel=1e-5)
    assert -math.inf < of_long < of_short < 0


def test_the_likeliest_continuation_is_greedy_and_another_is_not(checkpoint: Any) -> None:
    lm = CheckpointLM(**checkpoint, threads=1)
    context = "Question 3:"
    tokens = lm._engine.tokens_of(context)
    best = lm._engine.model.logits(torch.tensor([tokens]), last_only=True)[0]
    ranked = [lm._engine.tokenizer.decode([t]) for t in best.argsort(descending=True).tolist() if 30 < t < 90]
    likely, unlikely = (" yes", ranked[-1]) if ranked[0] == " yes" else (ranked[0], ranked[-1])
    first, second = lm.loglikelihood(requests("loglikelihood", (context, likely), (context, unlikely)))
    assert first[0] > second[0]
    assert second[1] is False


def test_continuations_end_at_the_tasks_own_mark_and_do_not_depend_on_their_neighbours(checkpoint: Any) -> None:
    lm = CheckpointLM(**checkpoint, threads=1)
    settings = {"until": ["\x00never"], "max_gen_toks": 8}
    alone = lm.generate_until(requests("generate_until", ("Question 3:", settings)))
    beside = lm.generate_until(requests("generate_until", ("", settings), ("Question 3:", settings)))
    assert beside[1] == alone[0]
    mark = next(char for char in alone[0][1:] if char.isascii())
    cut = lm.generate_until(requests("generate_until", ("Question 3:", {**settings, "until": mark})))
    assert cut == [alone[0].split(mark)[0]]


class Serving:
    """A chat server in a thread of its own: lm-eval blocks the one that it is called from."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours, self._up, self._over = behaviours, threading.Event(), asyncio.Event()

    def __enter__(self) -> Any:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._up.wait()
        return self.server

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with chat_server(*self._behaviours) as self.server:
            self._up.set()
            await self._over.wait()


GENERATING = {
    "output_type": "generate_until", "doc_to_target": "{{choices[answer]}}", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5},
    "metric_list": [{"metric": "exact_match", "ignore_case": True}], "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
}  # fmt: skip


def test_an_endpoint_is_asked_by_chat_in_the_tasks_own_words(items: Path) -> None:
    def answer(asked: dict[str, Any]) -> bytes:
        number = int(asked["messages"][-1]["content"].removeprefix("Question ").removesuffix(":"))
        return said([" yes", " no"][0 if number == 2 else number]).body

    with Serving(Behaviour(answers=answer)) as server:
        lm = EndpointLM(base_url=server.url, model="real-1")
        given = task(items, **GENERATING)
        found = simple_evaluate(
            model=lm, tasks=[given], task_manager=TaskManager(include_defaults=False), apply_chat_template=True, **QUIET
        )
        lm._target.close()
    assert [request["stop"] for request in server.requests] == [["\n"]] * 3
    assert {request["max_tokens"] for request in server.requests} == {5}
    assert len(found["samples"]["local"]) == 3
    assert [sample["resps"][0][0] for sample in found["samples"]["local"]] == [" yes", " no", " yes"]


def test_likelihoods_are_refused_to_who_names_an_endpoint(items: Path) -> None:
    lm = EndpointLM(base_url="http://127.0.0.1:9/v1", model="m")
    with pytest.raises(AbruzziError, match="likelihoods") as told:
        lm.loglikelihood(requests("loglikelihood", ("a", "b")))
    assert "abruzzi-checkpoint" in (told.value.hint or "")
    lm._target.close()


def test_nobody_named_is_said_at_once() -> None:
    with pytest.raises(AbruzziError) as told:
        EndpointLM()
    assert told.value.code == "no_target"
