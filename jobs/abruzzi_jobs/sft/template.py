"""The chat template (paper appendix B; docs/chat-template.md): a conversation as markers and texts, as tokens with a loss mask, and back.

    <|im_system|>tool_declare<|im_middle|>…<|im_end|>
    <|im_system|>system<|im_middle|>…<|im_end|><|im_user|>user<|im_middle|>…<|im_end|>
    <|im_assistant|>assistant<|im_middle|>…<|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>
    <|tool_calls_section_end|><|im_end|><|im_system|>tool<|im_middle|>## Return of functions.NAME:0
    …<|im_end|>

(without line breaks between them). A marker is one token that no text encodes to, so that nobody's text can forge structure: what is read back is
read off tokens, never off text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.encoding import special_id
from abruzzi_jobs.data.shards import END_OF_TEXT
from abruzzi_jobs.data.token_text import token_contents
from abruzzi_jobs.sft.conversation import CALL_ID, Conversation, Message, arguments_object, call_id, compact
from abruzzi_jobs.sft.declarations import Style, declared
from abruzzi_jobs.sft.markers import Markers

RESULT_HEADING = "## Return of "
_DECLARE = "tool_declare"
_UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()
"""For a token that the model has room for and the tokenizer does not know: a policy draws such ones before it has learned not to."""


class MalformedTurn(AbruzziError):
    """What a model wrote does not follow the template. `reason` is a word to count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__("malformed_turn", message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Piece:
    """A marker, or a text between two."""

    marker: str | None
    text: str = ""
    is_learned: bool = False
    """Whether the loss counts its tokens: the assistant's words, calls and end."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Of one conversation, <|endoftext|> first, as every document begins."""

    tokens: NDArray[np.int64]
    is_learned: NDArray[np.bool_]


class ChatTemplate:
    """With a tokenizer that knows the markers. Raises AbruzziError bad_data for one that does not."""

    def __init__(self, tokenizer: Tokenizer, markers: Markers) -> None:
        self.tokenizer, self.markers = tokenizer, markers
        missing = [name for name in markers.names() if tokenizer.token_to_id(name) is None]
        if missing:
            raise AbruzziError(
                "bad_data",
                f"The tokenizer does not know {', '.join(missing[:3])}.",
                hint="Use the `tokenizer` output of the sft stage that made the checkpoint.",
            )
        self._ids = {name: special_id(tokenizer, name) for name in (*markers.names(), END_OF_TEXT)}
        self._names = {number: name for name, number in self._ids.items()}
        self._bytes = token_contents(tokenizer)

    @property
    def end(self) -> int:
        """The token that ends a turn."""
        return self._ids[self.markers.end]

    @property
    def end_of_text(self) -> int:
        """The token between documents."""
        return self._ids[END_OF_TEXT]

    def is_marker(self, token: int) -> bool:
        return token in self._names

    # A conversation as tokens

    def encode(self, conversation: Conversation, style: Style = "typescript") -> Encoded:
        return self._encoded(list(self.pieces(conversation, style)))

    def prompt(self, conversation: Conversation, style: Style = "typescript") -> list[int]:
        """Tokens after which the assistant speaks."""
        opened = self._opening(self.markers.assistant, "assistant")
        return self._encoded([*self.pieces(conversation, style), *opened]).tokens.tolist()

    def continuation(self, messages: Sequence[Message]) -> list[int]:
        """What stands between the end of an assistant's turn and the beginning of its next one, where `messages` came in between. So a dialogue grows by
        its tokens: the prompt of the whole is the prompt before, the turn as it was generated, and this."""
        pieces = [piece for message in messages for piece in self._message(message)]
        return self._encoded([*pieces, *self._opening(self.markers.assistant, "assistant")]).tokens[1:].tolist()

    def pieces(self, conversation: Conversation, style: Style = "typescript") -> Iterator[Piece]:
        if conversation.tools:
            yield from self._opening(self.markers.system, _DECLARE)
            yield Piece(None, declared(conversation.tools, style))
            yield Piece(self.markers.end)
        for message in conversation.messages:
            yield from self._message(message)

    def text(self, pieces: Iterable[Piece]) -> str:
        """For people to read. Where a text spells a marker it cannot be told from one here."""
        return "".join(piece.marker or piece.text for piece in pieces)

    def _message(self, message: Message) -> Iterator[Piece]:
        role, content = message["role"], message["content"]
        if role == "tool":
            content = f"{RESULT_HEADING}{message['tool_call_id']}\n{content}"
        said = role == "assistant"
        opening = {"user": self.markers.user, "assistant": self.markers.assistant}.get(role, self.markers.system)
        yield from self._opening(opening, role)
        if content:
            yield Piece(None, content, said)
        calls = message.get("tool_calls", ())
        if calls:
            yield Piece(self.markers.section_begin, is_learned=said)
            for call in calls:
                yield Piece(self.markers.call_begin, is_learned=said)
                yield Piece(None, call["id"], said)
                yield Piece(self.markers.argument_begin, is_learned=said)
                yield Piece(None, call["function"]["arguments"], said)
                yield Piece(self.markers.call_end, is_learned=said)
            yield Piece(self.markers.section_end, is_learned=said)
        yield Piece(self.markers.end, is_learned=said)

    def _opening(self, marker: str, role: str) -> tuple[Piece, ...]:
        return Piece(marker), Piece(None, role), Piece(self.markers.middle)

    def _encoded(self, pieces: Sequence[Piece]) -> Encoded:
        texts = [piece.text for piece in pieces if piece.marker is None]
        encodings = iter(self.tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        tokens, is_learned = [self._ids[END_OF_TEXT]], [False]
        for piece in pieces:
            more = [self._ids[piece.marker]] if piece.marker is not None else next(encodings).ids
            tokens += more
            is_learned += [piece.is_learned] * len(more)
        return Encoded(np.asarray(tokens, dtype=np.int64), np.asarray(is_learned, dtype=np.bool_))

    # Tokens as a conversation

    def read(self, tokens: Sequence[int]) -> tuple[str, list[Message]]:
        """(the declaration's text, messages) of a whole conversation. Raises MalformedTurn."""
        reader = _Reader(self._split(tokens), self.markers)
        reader.skip(END_OF_TEXT)
        declaration, messages, calls = "", [], 0
        while not reader.at_end():
            role, opening = reader.opening()
            if role == _DECLARE and not messages and opening == self.markers.system:
                declaration = reader.text()
                reader.expect(self.markers.end)
                continue
            if opening != {"user": self.markers.user, "assistant": self.markers.assistant}.get(
                role, self.markers.system
            ):
                raise MalformedTurn("bad_role", f"the role {role!r} stands behind the marker of another.")
            message = reader.turn(role, calls)
            calls += len(message.get("tool_calls", ()))
            messages.append(message)
        return declaration, messages

    def read_turn(self, tokens: Sequence[int], *, calls_before: int | None = None) -> Message:
        """The assistant's message in what a model wrote, up to and with its end. `calls_before`: of the conversation, where the counter
        is to be the next one. Raises MalformedTurn."""
        return _Reader(self._split(tokens), self.markers).turn("assistant", calls_before)

    def shown(self, tokens: Sequence[int]) -> str:
        """As `text`, of any tokens."""
        return self.text(self._split(tokens))

    def _split(self, tokens: Sequence[int]) -> list[Piece]:
        pieces: list[Piece] = []
        said = bytearray()
        for token in tokens:
            marker = self._names.get(token)
            if marker is None:
                said += self._bytes[token] if token < len(self._bytes) else _UNKNOWN
                continue
            if said:
                pieces.append(Piece(None, said.decode("utf-8", "replace")))
                said.clear()
            pieces.append(Piece(marker))
        return [*pieces, Piece(None, said.decode("utf-8", "replace"))] if said else pieces


class _Reader:
    def __init__(self, pieces: Sequence[Piece], markers: Markers) -> None:
        self._pieces, self._markers, self._at = pieces, markers, 0

    def at_end(self) -> bool:
        return self._at >= len(self._pieces)

    def skip(self, marker: str) -> bool:
        if self.at_end() or self._pieces[self._at].marker != marker:
            return False
        self._at += 1
        return True

    def expect(self, marker: str) -> None:
        if not self.skip(marker):
            reason = "not_ended" if self.at_end() else "misplaced_marker"
            found = "nothing more" if self.at_end() else repr(self._pieces[self._at].marker or "text")
            raise MalformedTurn(reason, f"{marker} is expected, but there is {found}.")

    def text(self) -> str:
        """The text here; empty where a marker stands."""
        if self.at_end() or self._pieces[self._at].marker is not None:
            return ""
        self._at += 1
        return self._pieces[self._at - 1].text

    def opening(self) -> tuple[str, str]:
        """(role, the marker before it)"""
        opening = self._pieces[self._at].marker or ""
        if opening not in (self._markers.system, self._markers.user, self._markers.assistant):
            raise MalformedTurn("misplaced_marker", f"a message begins with {opening or 'text'!r}.")
        self._at += 1
        role = self.text()
        self.expect(self._markers.middle)
        return role, opening

    def turn(self, role: str, calls_before: int | None) -> Message:
        content = self.text()
        message: Message = {"role": role}
        if role == "tool":
            heading, _, content = content.partition("\n")
            given = heading.removeprefix(RESULT_HEADING)
            if not heading.startswith(RESULT_HEADING) or CALL_ID.fullmatch(given) is None:
                raise MalformedTurn("bad_result", "a tool's message does not begin with the id of its call.")
            message["tool_call_id"] = given
        message["content"] = content
        if role == "assistant" and self.skip(self._markers.section_begin):
            calls: list[dict[str, Any]] = []
            while not self.skip(self._markers.section_end):
                calls.append(self._call(None if calls_before is None else calls_before + len(calls)))
            if not calls:
                raise MalformedTurn("no_call", "a section of calls has none.")
            message["tool_calls"] = calls
        self.expect(self._markers.end)
        return message

    def _call(self, number: int | None) -> dict[str, Any]:
        self.expect(self._markers.call_begin)
        given = self.text()
        match = CALL_ID.fullmatch(given)
        if match is None or (number is not None and given != call_id(match[1], number)):
            raise MalformedTurn(
                "bad_call_id", f"{given[:80]!r} is not the id functions.NAME:{'COUNTER' if number is None else number}."
            )
        self.expect(self._markers.argument_begin)
        text = self.text()
        arguments = arguments_object(text) if text else None
        if arguments is None:
            raise MalformedTurn("bad_arguments", f"the arguments of {given} are no JSON object.")
        self.expect(self._markers.call_end)
        return {"id": given, "type": "function", "function": {"name": match[1], "arguments": compact(arguments)}}
