"""What is wrong with a rewrite, and where."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

Span = tuple[int, int]
"""[first, last + 1] in characters."""


class FaultKind(StrEnum):
    """Also a rejected rewrite's fate: that of its first fault."""

    NUMBER = "number"
    """A number is missing, changed or new."""
    ENTITY = "entity"
    """A name, an acronym or a symbol is missing, changed or new."""
    NEGATION = "negation"
    """Something is denied that was said, or said that was denied."""
    CLAIM = "claim"
    """A sentence that nothing in the source supports."""
    OMISSION = "omission"
    """A sentence of the source that nothing in the rewrite tells."""
    LENGTH = "length"
    NOVELTY = "novelty"
    """Too many words that the source does not support."""
    COPY = "copy"
    """Hardly a word has changed."""
    LIKENESS = "likeness"
    ANSWER = "answer"
    """Of a translation: the final answer or a formula is not the same."""
    LANGUAGE = "language"
    """Of a translation: it is in another language than it should be."""
    JUDGE = "judge"
    TRUNCATED = "truncated"
    """The answer was cut at max_tokens."""
    EMPTY = "empty"
    NO_ANSWER = "no_answer"
    """The endpoint rejected the question, or gave nothing usable."""
    CONTAMINATED = "contaminated"
    """It shares a run of words with an evaluation set."""


@dataclass(frozen=True)
class Fault:
    kind: FaultKind
    layer: str
    """rules, likeness, embeddings, judge, endpoint or decontamination."""
    detail: str
    source_span: Span | None = None
    text_span: Span | None = None

    def moved(self, source: int, text: int) -> Fault:
        """The same fault in texts before which so many characters stand."""
        return replace(
            self,
            source_span=self.source_span and (self.source_span[0] + source, self.source_span[1] + source),
            text_span=self.text_span and (self.text_span[0] + text, self.text_span[1] + text),
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "layer": self.layer,
            "detail": self.detail,
            "source_span": list(self.source_span) if self.source_span else None,
            "text_span": list(self.text_span) if self.text_span else None,
        }
