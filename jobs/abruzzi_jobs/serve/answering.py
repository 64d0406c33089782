"""A model's tokens, one after the other, as an answer: text cut at stop texts, log-probabilities, calls of tools; whole, or in pieces as they come. No torch."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from abruzzi_jobs.rl.engine.protocol import Drawn
from abruzzi_jobs.serve.asked import Asked
from abruzzi_jobs.sft.template import ChatTemplate, MalformedTurn


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


class Answering:
    """Fed with `take` until it `is_over`, or nothing more comes; `piece` is what may be shown of it so far, once."""

    def __init__(
        self,
        asked: Asked,
        prompt_tokens: int,
        *,
        contents: Sequence[bytes],
        ends: frozenset[int],
        template: ChatTemplate | None,
    ) -> None:
        self.is_over = False
        self._asked, self._prompt_tokens = asked, prompt_tokens
        self._contents, self._ends, self._template = contents, ends, template
        self._stops = [stop.encode() for stop in asked.stop]
        self._said, self._tokens = bytearray(), list[int]()
        self._starts: list[int] = []
        self._logprobs: list[dict[str, Any]] = []
        self._finish = "length"
        self._cut: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._fed, self._shown, self._is_marked = 0, "", False

    def take(self, drawn: Drawn) -> None:
        token = drawn.token
        self._tokens.append(token)
        if token in self._ends:
            self._finish, self.is_over = "stop", True
            return
        if self._template is not None and self._template.is_marker(token):
            self._is_marked = True
        self._starts.append(len(self._said))
        self._said += self._contents[token]
        if self._asked.logprobs:
            entry = self._entry(token, drawn.logprob)
            entry["top_logprobs"] = [self._entry(*rival) for rival in drawn.top]
            self._logprobs.append(entry)
        self._cut = _first_stop(self._said, self._stops, since=self._starts[-1])
        if self._cut is not None:
            self._finish, self.is_over = "stop", True

    def piece(self) -> str:
        """Text that is certain by now: no stop text begins in it, no call of a tool. "" often."""
        if self._is_marked or self.is_over:
            return ""
        certain = len(self._said) - max((len(stop) - 1 for stop in self._stops), default=0)
        if certain <= self._fed:
            return ""
        text = self._decoder.decode(bytes(self._said[self._fed : certain]))
        self._fed, self._shown = certain, self._shown + text
        return text

    def answer(self) -> Answer:
        said, logprobs = self._said, self._logprobs
        if self._cut is not None:
            said = said[: self._cut]
            logprobs = logprobs[: sum(start < self._cut for start in self._starts)]
        answer = Answer(
            text=said.decode("utf-8", "replace"),
            finish_reason=self._finish,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self._tokens),
            logprobs=logprobs if self._asked.logprobs else None,
            tokens=self._tokens,
        )
        if self._asked.conversation is not None and self._template is not None and self._cut is None:
            self._take_turn(answer, self._template)
        return answer

    def rest(self, answer: Answer) -> str:
        """Of the whole answer's text, what no piece has shown."""
        return answer.text.removeprefix(self._shown)

    def _take_turn(self, answer: Answer, template: ChatTemplate) -> None:
        """Calls out of the tokens. What does not follow the template is left as text, markers and all, for the caller to see."""
        try:
            message = template.read_turn(answer.tokens)
        except MalformedTurn:
            ended = bool(answer.tokens) and answer.tokens[-1] in self._ends
            answer.text = template.shown(answer.tokens[:-1] if ended else answer.tokens)
            return
        answer.text, answer.tool_calls = message["content"], message.get("tool_calls", [])
        if answer.tool_calls:
            answer.finish_reason = "tool_calls"

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        content = self._contents[token]
        return {"token": content.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(content)}


def _first_stop(said: bytearray, stops: list[bytes], *, since: int) -> int | None:
    """Where the first stop text begins that the bytes from `since` on may have completed."""
    found = [said.find(stop, max(0, since - len(stop) + 1)) for stop in stops]
    return min((place for place in found if place >= 0), default=None)
