"""lm-eval's `LM` interface: `abruzzi-checkpoint` (a checkpoint's own likelihoods and continuations) and `abruzzi-endpoint` (any endpoint, by chat).

Texts are what lm-eval gives, token for token: no template is put around them, unless it applies one (`--apply_chat_template`, for endpoints).

Legend: R rows (a request each), L positions, V tokens of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.request import ChatRequest, Message
from abruzzi_jobs.evals.harnesses.target import target
from abruzzi_jobs.serve.answering import Answering
from abruzzi_jobs.serve.asked import read_asked
from abruzzi_jobs.serve.engine import Engine

MAX_TOKENS = 256
"""Of an answer whose task names no cap: lm-eval's own."""
_BATCH_TOKENS = 4096
_Row = tuple[list[int], list[int]]
"""(tokens before, tokens that are scored)."""


@register_model("abruzzi-checkpoint")
class CheckpointLM(LM):
    """Model arguments: `checkpoint` and `tokenizer`, folders of pulled artifacts; `threads`."""

    def __init__(self, checkpoint: str, tokenizer: str, threads: int | None = None, **passed: Any) -> None:
        """`passed` (batch size, device) is lm-eval's own and changes nothing. Raises AbruzziError bad_data."""
        super().__init__()
        self._engine = Engine.load(Path(checkpoint), Path(tokenizer), thread_count=threads)
        self._model, self._window = self._engine.model, self._engine.model.config.max_position

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(nats of the continuation behind its context, whether each of its tokens is the likeliest). A context keeps its end where both do not fit."""
        return self._scored([self._row(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Nats of whole texts, each token once, through lm-eval's own windows."""
        rows: list[_Row] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            end, *tokens = self._engine.tokens_of(request.args[0])
            windows = get_rolling_token_windows(tokens, prefix_token=end, max_seq_len=self._window, context_len=1)
            for before, after in map(make_disjoint_window, windows):
                rows.append((list(before), list(after)))
                owners.append(number)
        found = [0.0] * len(requests)
        for number, (nats, _) in zip(owners, self._scored(rows), strict=True):
            found[number] += nats
        return found

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Continuations without the texts that end them. A cap is at most half of the model's positions."""
        takings: dict[str, Answering] = {}
        inference = self._engine.inference
        for number, request in enumerate(requests):
            context, settings = request.args
            asked = read_asked(
                {
                    "messages": [{"role": "user", "content": context}],
                    "max_tokens": min(_cap(settings), self._window // 2),
                    "stop": _stops(settings),
                    "temperature": _temperature(settings),
                    "top_p": settings.get("top_p") if _temperature(settings) else None,
                    "seed": number,
                }
            )
            drawing, taking = self._engine.prepare_text(context, asked)
            takings[drawing.id] = taking
            inference.submit(drawing)
        waiting = set(takings)
        while waiting:
            ended = {generated.request_id for generated in inference.step()}
            for drawn in inference.drawn():
                taking = takings[drawn.request_id]
                if drawn.request_id in waiting and not taking.is_over:
                    taking.take(drawn)
                    if taking.is_over:
                        inference.cancel(drawn.request_id)
                        ended.add(drawn.request_id)
            waiting -= ended
        return [taking.answer().text for taking in takings.values()]

    def _row(self, context: str, continuation: str) -> _Row:
        """Blanks between the two belong to the continuation, whose words begin with them."""
        blanks = len(context) - len(context.rstrip())
        if blanks:
            context, continuation = context[:-blanks], context[-blanks:] + continuation
        before, after = self._engine.tokens_of(context), self._engine.tokens_of(continuation)[1:]
        if context:  # where a token reaches over the seam, the one of the whole text counts
            whole = self._engine.tokens_of(context + continuation)
            if whole[: len(before)] == before:
                after = whole[len(before) :]
        after = after[-self._window :]
        return before[-max(1, self._window + 1 - len(after)) :], after

    def _scored(self, rows: Sequence[_Row]) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        # Rows of like length together: little padding.
        order = sorted((n for n, (_, after) in enumerate(rows) if after), key=lambda n: -sum(map(len, rows[n])))
        while order:
            width = max(1, _BATCH_TOKENS // sum(map(len, rows[order[0]])))
            batch, order = order[:width], order[width:]
            for number, scored in zip(batch, self._batch([rows[n] for n in batch]), strict=True):
                found[number] = scored
        return found

    def _batch(self, rows: Sequence[_Row]) -> list[tuple[float, bool]]:
        longest = max(len(before) + len(after) for before, after in rows) - 1
        tokens_RL = torch.zeros(len(rows), longest, dtype=torch.int64)
        for number, (before, after) in enumerate(rows):
            line = [*before, *after][:-1]
            tokens_RL[number, : len(line)] = torch.tensor(line)
        logprobs_RLV = self._model.logits(tokens_RL).log_softmax(-1)
        found = []
        for number, (before, after) in enumerate(rows):
            logprobs_TV = logprobs_RLV[number, len(before) - 1 : len(before) - 1 + len(after)]
            wanted_T = torch.tensor(after)
            nats = logprobs_TV.gather(1, wanted_T.unsqueeze(1)).double().sum().item()
            found.append((nats, bool((logprobs_TV.argmax(-1) == wanted_T).all())))
        return found


class Turns(str):
    """A conversation as lm-eval carries it: JSON in a text."""


@register_model("abruzzi-endpoint")
class EndpointLM(LM):
    """Model arguments: those of `target`: `base_url` and `model`, `checkpoint` and `tokenizer` (served, with its chat template), or `model=smollm2`."""

    def __init__(
        self,
        base_url: str | None = None,
        model: str | None = None,
        checkpoint: str | None = None,
        tokenizer: str | None = None,
        api_key: str | None = None,
        concurrency: int = 8,
        **passed: Any,
    ) -> None:
        """`passed` is lm-eval's own and changes nothing. Raises AbruzziError `no_target`."""
        super().__init__()
        self._target = target(
            checkpoint=checkpoint, tokenizer=tokenizer, base_url=base_url, model=model, api_key=api_key, concurrency=concurrency,
        )  # fmt: skip

    @property
    def tokenizer_name(self) -> str:
        return "abruzzi-endpoint"

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The server's own: turns stay turns."""
        return Turns(json.dumps(chat_history, ensure_ascii=False))

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Raises what the endpoint raises: nothing is scored that was not answered."""
        given: list[tuple[Any, ...]] = [request.args for request in requests]
        asked = [_request(text, settings, number) for number, (text, settings, *_) in enumerate(given)]
        return [response.text for response in self._target.complete_all(asked)]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise self._unable()

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise self._unable()

    def _unable(self) -> AbruzziError:
        return AbruzziError(
            "no_likelihoods",
            "This task asks for likelihoods of given texts, which chats do not tell.",
            hint="Use --model abruzzi-checkpoint with a checkpoint's folder, or a task that generates.",
        )


def _request(context: str, settings: Mapping[str, Any], number: int) -> ChatRequest:
    messages: list[Message] = [{"role": "user", "content": context}]
    if isinstance(context, Turns):
        messages = json.loads(context)
    return ChatRequest(
        messages=messages,
        temperature=_temperature(settings),
        max_tokens=_cap(settings),
        stop=_stops(settings),
        sample=number if _temperature(settings) else 0,
    )


def _cap(settings: Mapping[str, Any]) -> int:
    return int(settings.get("max_gen_toks") or settings.get("max_tokens") or MAX_TOKENS)


def _stops(settings: Mapping[str, Any]) -> list[str]:
    until = settings.get("until") or []
    return [text for text in ([until] if isinstance(until, str) else until) if text][:16]


def _temperature(settings: Mapping[str, Any]) -> float:
    """Greedy unless the task asks for samples."""
    return float(settings.get("temperature", 1.0)) if settings.get("do_sample") else 0.0
