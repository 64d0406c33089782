"""Answers from a checkpoint: prompt → tokens → text and tool calls, cut at stop texts, with log-probabilities. One request at a time, in the caller's thread.

The answer depends on the request alone (seed included), not on what is asked beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.encoding import special_id
from abruzzi_jobs.data.shards import PAD
from abruzzi_jobs.data.token_text import token_contents
from abruzzi_jobs.data.tokenizer import end_of_text_id, load_tokenizer
from abruzzi_jobs.evals.checkpoint_model import load_model, threads
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.models.generate import token_stream
from abruzzi_jobs.serve.asked import Asked, BadRequest, prompt_of
from abruzzi_jobs.sft.declarations import Style
from abruzzi_jobs.sft.markers import Markers, read_markers
from abruzzi_jobs.sft.template import ChatTemplate, MalformedTurn


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


@dataclass(kw_only=True)
class Answer:
    text: str
    finish_reason: str
    """`stop`: the model ended its text, or a stop text came. `tool_calls`: it ended its turn with calls. `length`: cut at max_tokens, or at the
    model's last position."""
    prompt_tokens: int
    completion_tokens: int
    logprobs: list[dict[str, Any]] | None = None
    tokens: list[int] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)


class Engine:
    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, markers: Markers | None = None, declarations: Style = "typescript"
    ) -> None:
        """`markers`, `declarations`: of the chat template that the model was fine-tuned with."""
        self.model, self.tokenizer = model, tokenizer
        self.template = ChatTemplate(tokenizer, markers) if markers is not None else None
        self._declarations: Style = declarations
        self._end = end_of_text_id(tokenizer)
        self._ends = {self._end, *([self.template.end] if self.template else [])}
        self._bytes = token_contents(tokenizer)
        known = tokenizer.get_vocab_size()
        pad = special_id(tokenizer, PAD)
        self._never = torch.tensor([pad, *range(known, model.config.vocab_size)], dtype=torch.int64)

    @classmethod
    def load(cls, checkpoint: Path, tokenizer: Path, *, thread_count: int | None = None) -> Engine:
        """From artifacts' folders. Raises AbruzziError bad_data where they cannot be read or do not fit together."""
        threads(thread_count)
        model, _ = load_model(checkpoint)
        encoder = load_tokenizer(tokenizer)
        if encoder.get_vocab_size() > model.config.vocab_size:
            raise AbruzziError(
                "bad_data",
                f"The tokenizer has {encoder.get_vocab_size()} tokens, the model {model.config.vocab_size}.",
                hint="Serve a checkpoint with the tokenizer that it was trained with.",
            )
        described = read_markers(tokenizer)
        return cls(model, encoder, *described) if described is not None else cls(model, encoder)

    def answer(self, asked: Asked, cancelled: threading.Event | None = None) -> Answer:
        """Raises BadRequest where the prompt leaves no room, Cancelled."""
        prompt = self._prompt(asked)
        room = self.model.config.max_position - len(prompt)
        if room < 1:
            raise BadRequest(
                f"messages: {len(prompt)} tokens leave no room for an answer; this model has {self.model.config.max_position} positions."
            )
        limit = min(asked.max_tokens, room)
        stops = [stop.encode() for stop in asked.stop]
        said, tokens = bytearray(), []
        logprobs: list[dict[str, Any]] | None = [] if asked.logprobs else None
        starts: list[int] = []
        finish, cut = "length", None
        for token, logits_V in self._stream(prompt, asked):
            if cancelled is not None and cancelled.is_set():
                raise Cancelled
            tokens.append(token)
            if token in self._ends:
                finish = "stop"
                break
            starts.append(len(said))
            said += self._bytes[token]
            if logprobs is not None:
                logprobs.append(self._logprob(token, logits_V, asked.top_logprobs))
            cut = _first_stop(said, stops, since=starts[-1])
            if cut is not None:
                finish = "stop"
                break
            if len(tokens) >= limit:
                break
        if cut is not None:
            del said[cut:]
            if logprobs is not None:
                logprobs = [entry for entry, start in zip(logprobs, starts, strict=True) if start < cut]
        answer = Answer(
            text=said.decode("utf-8", "replace"),
            finish_reason=finish,
            prompt_tokens=len(prompt),
            completion_tokens=len(tokens),
            logprobs=logprobs,
            tokens=tokens,
        )
        if asked.conversation is not None and cut is None:
            self._take_turn(answer)
        return answer

    def _prompt(self, asked: Asked) -> list[int]:
        if asked.conversation is not None and self.template is not None:
            return self.template.prompt(asked.conversation, self._declarations)
        return [self._end, *self.tokenizer.encode(prompt_of(asked), add_special_tokens=False).ids]

    def _take_turn(self, answer: Answer) -> None:
        """Calls out of the tokens. What does not follow the template is left as text, markers and all, for the caller to see."""
        assert self.template is not None
        try:
            message = self.template.read_turn(answer.tokens)
        except MalformedTurn:
            ended = bool(answer.tokens) and answer.tokens[-1] in self._ends
            answer.text = self.template.shown(answer.tokens[:-1] if ended else answer.tokens)
            return
        answer.text, answer.tool_calls = message["content"], message.get("tool_calls", [])
        if answer.tool_calls:
            answer.finish_reason = "tool_calls"

    def _stream(self, prompt: list[int], asked: Asked) -> Iterator[tuple[int, Tensor]]:
        generator = torch.Generator()
        if asked.seed is None:
            generator.seed()
        else:
            generator.manual_seed(asked.seed)
        stream = token_stream(
            self.model,
            torch.tensor([prompt], dtype=torch.int64),
            temperature=asked.temperature,
            top_p=asked.top_p,
            generator=generator,
            never=self._never,
        )
        for next_B, logits_BV in stream:
            yield int(next_B[0]), logits_BV[0]

    def _logprob(self, token: int, logits_V: Tensor, rivals: int) -> dict[str, Any]:
        """Under the model itself: at temperature 1, whatever the answer was drawn with."""
        logprobs_V = torch.log_softmax(logits_V, -1)
        entry = self._entry(token, float(logprobs_V[token]))
        top = torch.topk(logprobs_V, rivals) if rivals else None
        entry["top_logprobs"] = (
            [self._entry(i, v) for v, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)] if top else []
        )
        return entry

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        content = self._bytes[token]
        return {"token": content.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(content)}


def _first_stop(said: bytearray, stops: list[bytes], *, since: int) -> int | None:
    """Where the first stop text begins that the bytes from `since` on may have completed."""
    found = [said.find(stop, max(0, since - len(stop) + 1)) for stop in stops]
    return min((place for place in found if place >= 0), default=None)
