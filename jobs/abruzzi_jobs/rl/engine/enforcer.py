"""The enforcer (paper appendix B): what an assistant's turn may say, token by token, so that its calls follow the chat template, name a tool that was
declared, have the id that is next, and have arguments that the tool's JSON Schema allows.

    text … | section_begin (call_begin functions.NAME:NUMBER argument_begin {…} call_end)+ section_end | end

Arguments are JSON by a grammar (`grammars.py`); what is here is the frame around them. A turn that was begun without it and broke its rules is left alone.

Shapes: V vocabulary of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from abruzzi_jobs.data.encoding import special_id
from abruzzi_jobs.data.token_text import special_ids, token_contents
from abruzzi_jobs.rl.engine.grammars import Grammars, JsonText
from abruzzi_jobs.sft.conversation import call_id
from abruzzi_jobs.sft.markers import Markers

Choice = Literal["auto", "required"]


class Enforcer:
    """Of one model and its tokenizer. Makes a Constraint a turn."""

    def __init__(self, tokenizer: Tokenizer, markers: Markers, *, vocab_size: int, end_of_text: int) -> None:
        """`vocab_size`: the model's, which may have room for more tokens than the tokenizer knows."""
        self.markers = {name: special_id(tokenizer, getattr(markers, name)) for name in _FRAME}
        self.vocab_size, self.size = vocab_size, tokenizer.get_vocab_size()
        self.ends = (self.markers["end"], end_of_text)
        self.grammars = Grammars(tokenizer, end=self.markers["call_end"])
        contents = token_contents(tokenizer)
        special = set(special_ids(tokenizer))
        self.by_content: dict[bytes, list[int]] = {}
        for token, content in enumerate(contents):
            if token not in special and content:
                self.by_content.setdefault(content, []).append(token)
        self.contents, self.longest = contents, max(map(len, self.by_content))
        self._text_V = torch.ones(vocab_size, dtype=torch.bool)
        self._text_V[[*special, *range(self.size, vocab_size)]] = False

    def turn(
        self, tools: Sequence[Mapping[str, Any]], *, calls_before: int = 0, choice: Choice = "auto", calls_at_most: int | None = None,
        said: Sequence[int] = (), is_exact: bool = False,
    ) -> TurnConstraint:  # fmt: skip
        """`tools`: those that may be called ({"name", "parameters"}). `required`: a call comes first of all. `said`: what the turn has of tokens already.

        Raises AbruzziError unsupported_schema."""
        for tool in tools:
            self.arguments(tool, is_exact)
        made = TurnConstraint(self, tools, calls_before, choice, calls_at_most, is_exact)
        for token in said:
            made.accept(token)
        return made

    def arguments(self, tool: Mapping[str, Any], is_exact: bool) -> JsonText:
        schema = {"type": "object", **tool["parameters"]}
        return self.grammars.json(schema, what=f"The tool {tool['name']}", is_exact=is_exact)

    def answer(self, schema: Mapping[str, Any]) -> AnswerConstraint:
        """A turn that is nothing but JSON. Raises AbruzziError unsupported_schema."""
        text = self.grammars.json(schema, what="response_format", is_exact=True)
        return AnswerConstraint(self.vocab_size, text, self.markers["call_end"], self.markers["end"])

    def text_and(self, *tokens: int) -> Tensor:
        """bool [V]: any text, and these."""
        allowed_V = self._text_V.clone()
        allowed_V[list(tokens)] = True
        return allowed_V

    def only(self, tokens: Sequence[int]) -> Tensor:
        allowed_V = torch.zeros(self.vocab_size, dtype=torch.bool)
        allowed_V[list(tokens)] = True
        return allowed_V


_FRAME = ("end", "section_begin", "section_end", "call_begin", "argument_begin", "call_end")


class _Place(Enum):
    TEXT = 0
    SECTION = 1
    """Between two calls."""
    ID = 2
    ARGUMENTS = 3
    CLOSED = 4
    """After the section: only the end may come."""
    LOST = 5


class TurnConstraint:
    """A Constraint of the engine protocol."""

    def __init__(
        self, enforcer: Enforcer, tools: Sequence[Mapping[str, Any]], calls_before: int, choice: Choice,
        calls_at_most: int | None, is_exact: bool,
    ) -> None:  # fmt: skip
        self._enforcer, self._tools = enforcer, {tool["name"]: tool for tool in tools}
        self._number, self._first, self._at_most = calls_before, calls_before, calls_at_most
        self._choice, self._is_exact = choice, is_exact
        self._place = _Place.TEXT
        self._has_said = False
        self._rest: dict[str, bytes] = {}
        """Of the ids that may come: what is missing of each."""
        self._arguments: JsonText | None = None

    def mask(self, logits_V: Tensor) -> None:
        allowed_V = self._allowed()
        if allowed_V is not None:
            logits_V.masked_fill_(~allowed_V.to(logits_V.device), float("-inf"))

    def accept(self, token: int) -> None:
        at = self._enforcer.markers
        match self._place:
            case _Place.TEXT:
                self._place = _Place.SECTION if token == at["section_begin"] and self._tools else self._place
                self._has_said = True
            case _Place.SECTION:
                if token == at["call_begin"]:
                    self._place = _Place.ID
                    self._rest = {name: call_id(name, self._number).encode() for name in self._tools}
                else:
                    self._place = _Place.CLOSED if token == at["section_end"] else _Place.LOST
            case _Place.ID:
                self._accept_id(token)
            case _Place.ARGUMENTS if token == at["call_end"]:
                self._number, self._place = self._number + 1, _Place.SECTION
            case _Place.ARGUMENTS:
                assert self._arguments is not None
                if not self._arguments.accept(token):
                    self._place = _Place.LOST
            case _:
                pass

    def _accept_id(self, token: int) -> None:
        whole = [name for name, rest in self._rest.items() if not rest]
        if token == self._enforcer.markers["argument_begin"] and whole:
            self._arguments = self._enforcer.arguments(self._tools[whole[0]], self._is_exact)
            self._place = _Place.ARGUMENTS
            return
        said = self._enforcer.contents[token] if token < self._enforcer.size else b""
        self._rest = {name: rest[len(said) :] for name, rest in self._rest.items() if said and rest.startswith(said)}
        if not self._rest:
            self._place = _Place.LOST

    def _allowed(self) -> Tensor | None:
        """bool [V]; None: all."""
        enforcer, at = self._enforcer, self._enforcer.markers
        match self._place:
            case _Place.TEXT if self._choice == "required" and not self._has_said:
                return enforcer.only([at["section_begin"]])
            case _Place.TEXT:
                return enforcer.text_and(*enforcer.ends, *([at["section_begin"]] if self._tools else []))
            case _Place.SECTION:
                made = self._number - self._first
                may_go_on = self._at_most is None or made < self._at_most
                return enforcer.only([at["call_begin"]] * may_go_on + [at["section_end"]] * (made > 0))
            case _Place.ID:
                return enforcer.only(self._id_tokens())
            case _Place.ARGUMENTS:
                assert self._arguments is not None
                return _padded(self._arguments, enforcer.vocab_size)
            case _Place.CLOSED:
                return enforcer.only([at["end"]])
            case _:
                return None

    def _id_tokens(self) -> list[int]:
        enforcer = self._enforcer
        found = [enforcer.markers["argument_begin"]] if any(not rest for rest in self._rest.values()) else []
        beginnings = {rest[:n] for rest in self._rest.values() for n in range(1, min(len(rest), enforcer.longest) + 1)}
        return found + [token for beginning in beginnings for token in enforcer.by_content.get(beginning, ())]


class AnswerConstraint:
    """A text that is JSON, and its end."""

    def __init__(self, vocab_size: int, text: JsonText, whole: int, end: int) -> None:
        """`whole`: the token by which the grammar says that the JSON may end; `end`: what is to be said then."""
        self._vocab_size, self._text, self._whole, self._end = vocab_size, text, whole, end

    def mask(self, logits_V: Tensor) -> None:
        allowed_V = _padded(self._text, self._vocab_size)
        may_end = bool(allowed_V[self._whole])
        allowed_V[self._whole] = False
        allowed_V[self._end] = may_end
        logits_V.masked_fill_(~allowed_V.to(logits_V.device), float("-inf"))

    def accept(self, token: int) -> None:
        if token != self._end and not self._text.accept(token):
            raise ValueError(f"token {token} was drawn, which the grammar does not allow")


def _padded(text: JsonText, vocab_size: int) -> Tensor:
    allowed_V = torch.zeros(vocab_size, dtype=torch.bool)
    found = torch.from_numpy(text.allowed())
    allowed_V[: len(found)] = found
    return allowed_V
