"""One rewrite of one document: part after part, each with the outline of its excerpt and the parts rewritten before it in view; checked
as it comes, asked for again where it fails, stitched at the end."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from abruzzi.contracts.rephrase import RephraseConfig
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest, ChatResponse
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind
from abruzzi_jobs.rephrase.grid import TRANSLATION, Cell, Grid
from abruzzi_jobs.rephrase.parts import Part, outline, parts_of, stitched, tokens

_LEAST_ANSWER_TOKENS = 64
_SAMPLES_A_CELL = 1000
"""Rewrites of the same cell ask with other samples, and so do the tries of a part."""
_STOP = ("</text>", "\nRewrite this part", "\nTranslate this part")
"""Where small models begin to ask themselves the next question."""
_PREAMBLE = re.compile(
    r"^(?:(?:sure|certainly|of course)[,!.:]?\s+)?(?:here(?:'s| is| are)|below is|the following is)\b[^\n:]{0,80}:\s*",
    re.IGNORECASE,
)
_TAGS = re.compile(r"^<text>\s*|\s*</text>$", re.IGNORECASE)


class Verify(Protocol):
    """Faults of a rewritten part; `context`: the whole document, from which a rewrite may take what a name or a pronoun stands for."""

    async def __call__(self, source: str, text: str, *, context: str) -> list[Fault]: ...


@dataclass(kw_only=True)
class RewrittenPart:
    part: Part
    source: str
    text: str
    tries: int
    faults: list[Fault]
    call_ids: list[str]
    generator: str = ""
    is_llm: bool = False


@dataclass(kw_only=True)
class Rewrite:
    """`faults` in the coordinates of document and text; empty where every part passed."""

    cell: Cell
    parts: list[RewrittenPart] = field(default_factory=list)
    text: str = ""
    faults: list[Fault] = field(default_factory=list)

    @property
    def call_ids(self) -> list[str]:
        return [call_id for part in self.parts for call_id in part.call_ids]


async def rewrite(
    document: str,
    cell: Cell,
    *,
    grid: Grid,
    backend: ChatBackend,
    config: RephraseConfig,
    verify: Verify,
    language: str = "en",
) -> Rewrite:
    """Ends with the first part that fails every try: a document with a hole is of no use, and the rest would cost for nothing.

    Raises what the backend raises, but for CallRejected.
    """
    parts = parts_of(document, excerpt_tokens=config.excerpt_tokens, part_tokens=config.part_tokens)
    outlines = _outlines(document, parts)
    done = Rewrite(cell=cell)
    retries_left = config.document_retries
    for part in parts:
        before = [p.text for p in done.parts if p.part.excerpt == part.excerpt][-config.context_parts :]
        before = before if config.context_parts else []
        source = document[part.start : part.end]
        if cell.style == TRANSLATION:
            messages = grid.translation(source, language=language, before=before)
        else:
            messages = grid.messages(cell, source, outline=outlines[part.excerpt], before=before)
        request = ChatRequest(messages=messages, max_tokens=_room(source, config, backend), stop=_STOP)
        written = await _written(
            part,
            source,
            request,
            backend=backend,
            tries=1 + min(config.retries, retries_left),
            first_sample=cell.sample * _SAMPLES_A_CELL,
            verify=lambda text, source=source: verify(source, text, context=document),
        )
        retries_left -= written.tries - 1
        done.parts.append(written)
        if written.faults:
            break
    _finish(done)
    return done


async def _written(
    part: Part,
    source: str,
    request: ChatRequest,
    *,
    backend: ChatBackend,
    tries: int,
    first_sample: int,
    verify: Callable[[str], Awaitable[list[Fault]]],
) -> RewrittenPart:
    """The first try without a fault, else the whole answer with the fewest, which says most about what the model gets wrong."""
    best: RewrittenPart | None = None
    call_ids: list[str] = []
    for number in range(tries):
        try:
            answer = await backend.complete(replace(request, sample=first_sample + number))
        except CallRejected as rejected:
            tried = _failed(part, source, Fault(FaultKind.NO_ANSWER, "endpoint", rejected.message))
        else:
            call_ids.append(answer.call_id)
            tried = await _tried(part, source, answer, verify)
        tried.tries = number + 1
        if best is None or _badness(tried) < _badness(best):
            best = tried
        if not tried.faults:
            break
    assert best is not None  # there is one try at least
    best.call_ids, best.tries = call_ids, tried.tries
    return best


def _badness(tried: RewrittenPart) -> tuple[bool, int]:
    return any(fault.layer == "endpoint" for fault in tried.faults), len(tried.faults)


async def _tried(
    part: Part, source: str, answer: ChatResponse, verify: Callable[[str], Awaitable[list[Fault]]]
) -> RewrittenPart:
    text = tidied(answer.text)
    if answer.finish_reason == "length":
        faults = [Fault(FaultKind.TRUNCATED, "endpoint", f"cut after {answer.usage.completion_tokens} tokens")]
    elif not text:
        faults = [Fault(FaultKind.EMPTY, "endpoint", "the answer has no text")]
    else:
        faults = await verify(text)
    return RewrittenPart(
        part=part, source=source, text=text, tries=1, faults=faults, call_ids=[], generator=answer.generator,
        is_llm=answer.is_llm,
    )  # fmt: skip


def _failed(part: Part, source: str, fault: Fault) -> RewrittenPart:
    return RewrittenPart(part=part, source=source, text="", tries=1, faults=[fault], call_ids=[])


def tidied(text: str) -> str:
    """Without what models say before they answer, and without the marks of the question."""
    text = _TAGS.sub("", text.strip())
    text = _PREAMBLE.sub("", text, count=1).strip()
    if len(text) > 1 and text[0] == '"' and text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1].strip()
    return text


def _outlines(document: str, parts: Sequence[Part]) -> dict[int, str]:
    """{excerpt: outline}; a document of one part needs none."""
    if len(parts) == 1:
        return {0: ""}
    spans: dict[int, tuple[int, int]] = {}
    for part in parts:
        start = spans.get(part.excerpt, (part.start, 0))[0]
        spans[part.excerpt] = start, part.end
    return {number: outline(document[start:end]) for number, (start, end) in spans.items()}


def _room(source: str, config: RephraseConfig, backend: Any) -> int | None:
    """Tokens of the answer: a half more than a rewrite may have, so that none is cut that would pass. The role's own setting wins."""
    if getattr(getattr(backend, "config", None), "max_tokens", None) is not None:
        return None
    return max(_LEAST_ANSWER_TOKENS, round(1.5 * config.fidelity.max_length_ratio * tokens(source)))


def _finish(done: Rewrite) -> None:
    """Stitches what there is, and moves the parts' faults to where they are in the whole."""
    done.text = stitched([p.part for p in done.parts], [p.text for p in done.parts])
    at = 0
    for written in done.parts:
        done.faults += [fault.moved(written.part.start, at) for fault in written.faults]
        at += len(written.text) + len(written.part.after)
