"""A document in parts: excerpts, each with an outline, each cut into parts between paragraphs or sentences. Nothing is lost: the parts
with what stands between them are the document, character by character. Pure.

A token is four bytes of UTF-8, rounded up: the rule by which chat limits are counted too, and no tokenizer is loaded for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LINE = re.compile(r"\n\s*")
_SENTENCE = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)\]]))\s+(?=[\"'“‘(\[]?[^\Wa-z_])|(?<=[。！？])")
_WORD = re.compile(r"\s+")
_OUTLINE_TOKENS = 192
_OUTLINE_LINE = 120


@dataclass(frozen=True)
class Part:
    """text[start:end] of the document, without white space at its edges; `after` stands between it and the next one."""

    start: int
    end: int
    after: str
    excerpt: int
    """Which excerpt of the document it belongs to."""


def tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // 4)


def parts_of(text: str, *, excerpt_tokens: int, part_tokens: int) -> list[Part]:
    """In their order. No part has more than `part_tokens`, no excerpt more than `excerpt_tokens` by more than its last part."""
    spans = list(_cut(text, 0, len(text), part_tokens, 0))
    found: list[Part] = []
    excerpt = used = 0
    for (start, end), following in pairwise([*spans, (len(text), len(text))]):
        size = tokens(text[start:end])
        if used and used + size > excerpt_tokens:
            excerpt, used = excerpt + 1, 0
        used += size
        found.append(Part(start, end, text[end : following[0]], excerpt))
    return found


def stitched(parts: list[Part], rewritten: list[str]) -> str:
    """The rewritten parts with what stood between the parts."""
    return "".join(text + part.after for part, text in zip(parts, rewritten, strict=True)).strip()


def outline(text: str) -> str:
    """Headings and first sentences of the paragraphs, shortened so that all of them have a place."""
    paragraphs = [p.strip() for p in _PARAGRAPH.split(text) if p.strip()]
    if len(paragraphs) < 2:
        paragraphs = [p.strip() for p in _LINE.split(text) if p.strip()]
    if len(paragraphs) < 2:
        return ""
    firsts = [" ".join(_SENTENCE.split(p, maxsplit=1)[0].split()) for p in paragraphs]
    room = _OUTLINE_TOKENS * 4
    step = max(1, -(-len(firsts) * 24 // room))  # a long text shows every step-th paragraph
    chosen = firsts[::step]
    length = max(20, min(_OUTLINE_LINE, room // len(chosen) - 3))
    return "\n".join(f"- {line if len(line) <= length else line[: length - 1].rstrip() + '…'}" for line in chosen)


def _cut(text: str, start: int, end: int, limit: int, level: int) -> Iterator[tuple[int, int]]:
    """Spans of at most `limit` tokens, as long as they can be, cut at the coarsest places that do."""
    start, end = _trimmed(text, start, end)
    if start == end:
        return
    if tokens(text[start:end]) <= limit:
        yield start, end
        return
    if level == len(_LEVELS):
        size = max(
            1, limit
        )  # a character has a byte at least, so four times as many may fit; one token each always does
        for at in range(start, end, size):
            yield at, min(at + size, end)
        return
    pending: tuple[int, int] | None = None
    for piece in _pieces(text, start, end, _LEVELS[level]):
        if pending is not None and tokens(text[pending[0] : piece[1]]) <= limit:
            pending = pending[0], piece[1]
            continue
        if pending is not None:
            yield from _cut(text, *pending, limit, level + 1)
        pending = piece
    if pending is not None:
        yield from _cut(text, *pending, limit, level + 1)


def _pieces(text: str, start: int, end: int, between: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    at = start
    for match in between.finditer(text, start, end):
        if match.start() > at:
            yield at, match.start()
        at = match.end()
    if at < end:
        yield at, end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), start + len(inner.rstrip())


_LEVELS = (_PARAGRAPH, _LINE, _SENTENCE, _WORD)
