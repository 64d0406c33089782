"""A checkpoint that answers chats: requests for the embedded engine, and answers from its tokens.

An answer depends on the request alone (seed included), not on what is asked beside it: the engine's draws and numbers do not (`rl/engine`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.encoding import special_id
from abruzzi_jobs.data.shards import PAD
from abruzzi_jobs.data.token_text import token_contents
from abruzzi_jobs.data.tokenizer import end_of_text_id, load_tokenizer
from abruzzi_jobs.evals.checkpoint_model import load_model, threads
from abruzzi_jobs.models import Decoder, YarnConfig
from abruzzi_jobs.rl.engine.enforcer import Enforcer
from abruzzi_jobs.rl.engine.protocol import Constraint, Drawn, Request
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.serve.answering import Answer, Answering
from abruzzi_jobs.serve.asked import ANY, Asked, BadRequest, prompt_of
from abruzzi_jobs.sft.declarations import Style
from abruzzi_jobs.sft.markers import Markers, read_markers
from abruzzi_jobs.sft.template import ChatTemplate

MAX_RUNNING = 32
"""Chats decoded together; more wait."""


class NoRoom(BadRequest):
    """Longer than the model's positions."""


class Engine:
    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, markers: Markers | None = None, declarations: Style = "typescript"
    ) -> None:
        """`markers`, `declarations`: of the chat template that the model was fine-tuned with."""
        self.model, self.tokenizer = model, tokenizer
        self.inference = TorchEngine(model, max_running=MAX_RUNNING)
        self.template = ChatTemplate(tokenizer, markers) if markers is not None else None
        self._declarations: Style = declarations
        self._end = end_of_text_id(tokenizer)
        self._ends = frozenset({self._end, *([self.template.end] if self.template else [])})
        self._contents = token_contents(tokenizer)
        known = tokenizer.get_vocab_size()
        pad = special_id(tokenizer, PAD)
        self._never = torch.tensor([pad, *range(known, model.config.vocab_size)], dtype=torch.int64)
        self._enforcer = (
            Enforcer(tokenizer, markers, vocab_size=model.config.vocab_size, end_of_text=self._end) if markers else None
        )

    @classmethod
    def load(
        cls, checkpoint: Path, tokenizer: Path, *, thread_count: int | None = None, yarn: YarnConfig | None = None
    ) -> Engine:
        """From artifacts' folders; `yarn` in place of what the checkpoint was trained with. Raises AbruzziError bad_data where they cannot be read or do
        not fit together."""
        threads(thread_count)
        model, _ = load_model(checkpoint)
        if yarn is not None:
            model.set_yarn(yarn)
        encoder = load_tokenizer(tokenizer)
        if encoder.get_vocab_size() > model.config.vocab_size:
            raise AbruzziError(
                "bad_data",
                f"The tokenizer has {encoder.get_vocab_size()} tokens, the model {model.config.vocab_size}.",
                hint="Serve a checkpoint with the tokenizer that it was trained with.",
            )
        described = read_markers(tokenizer)
        return cls(model, encoder, *described) if described is not None else cls(model, encoder)

    def prepare(self, asked: Asked) -> tuple[Request, Answering]:
        """What the inference engine is to draw, and what takes its tokens. Raises BadRequest where the prompt leaves no room (NoRoom), or a schema makes no
        grammar."""
        return self._prepared(self._prompt(asked), asked, self._constraint(asked), self.template)

    def prepare_text(self, text: str, asked: Asked) -> tuple[Request, Answering]:
        """The same for a text that is to go on as it is, without turns; of one that leaves no room for `max_tokens`, its end. Raises BadRequest (NoRoom)."""
        room = max(1, self.model.config.max_position - asked.max_tokens)
        return self._prepared(self.tokens_of(text)[-room:], asked, Never(self._never), None)

    def tokens_of(self, text: str) -> list[int]:
        """As the model was trained: the end of text stands before its beginning."""
        return [self._end, *self.tokenizer.encode(text, add_special_tokens=False).ids]

    def _prepared(
        self, prompt: list[int], asked: Asked, constraint: Constraint, template: ChatTemplate | None
    ) -> tuple[Request, Answering]:
        positions = self.model.config.max_position
        if len(prompt) >= positions:
            raise NoRoom(
                f"messages: {len(prompt)} tokens leave no room for an answer; this model has {positions} positions."
            )
        request = Request(
            id=secrets.token_hex(8),
            tokens=tuple(prompt),
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            seed=secrets.randbits(63) if asked.seed is None else asked.seed,
            stop_tokens=self._ends,
            top_p=asked.top_p,
            constraint=constraint,
            streamed=True,
            top_logprobs=asked.top_logprobs if asked.logprobs else 0,
        )
        taking = Answering(asked, len(prompt), contents=self._contents, ends=self._ends, template=template)
        return request, taking

    def answer(self, asked: Asked) -> Answer:
        """In the caller's thread, with nothing beside it. Raises BadRequest as `prepare` does."""
        request, taking = self.prepare(asked)
        for drawn in self._draws(request):
            taking.take(drawn)
            if taking.is_over:
                break
        return taking.answer()

    def _draws(self, request: Request) -> Iterator[Drawn]:
        self.inference.submit(request)
        try:
            is_over = False
            while not is_over:
                is_over = bool(self.inference.step())
                yield from self.inference.drawn()
        finally:
            self.inference.cancel(request.id)

    def _constraint(self, asked: Asked) -> Constraint:
        """Raises BadRequest for a schema that makes no grammar."""
        if self._enforcer is None or asked.conversation is None:
            return Never(self._never)
        tools, called = asked.conversation.tools, asked.called
        calls_before = sum(len(message.get("tool_calls", ())) for message in asked.conversation.messages)
        try:
            if asked.answer_schema is not None:
                return self._enforcer.answer(asked.answer_schema)
            return self._enforcer.turn(
                [tool for tool in tools if called in (None, ANY, tool["name"])],
                calls_before=calls_before,
                choice="auto" if called is None else "required",
                calls_at_most=None if asked.parallel_tool_calls else 1,
            )
        except AbruzziError as error:
            raise BadRequest(f"{error.message} {error.hint}") from error

    def _prompt(self, asked: Asked) -> list[int]:
        if asked.conversation is not None and self.template is not None:
            return self.template.prompt(asked.conversation, self._declarations)
        return self.tokens_of(prompt_of(asked))


class Never:
    """A Constraint: tokens that no text has."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self._tokens = tokens

    def mask(self, logits_V: torch.Tensor) -> None:
        logits_V.index_fill_(0, self._tokens, float("-inf"))

    def accept(self, token: int) -> None:
        """Nothing follows from a token."""
