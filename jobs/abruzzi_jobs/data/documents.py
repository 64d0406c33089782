"""Documents, their identity, and the decisions that hang on it alone: duplicate, held out, cut.

Every decision is a function of the normalised text, so that it stays the same when other documents come and go.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field

_SPLIT = slice(0, 8)
_CUT = slice(8, 16)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A relation that a document states in words, such as ("element.symbol", "Iron", "Fe")."""

    relation: str
    subject: str
    answer: str
    wording: int
    """Which of the relation's wordings the document uses; questions use another."""


@dataclass(frozen=True, kw_only=True)
class Document:
    name: str
    """Inside its source: a module, a file, a file and line."""
    text: str
    domain: str
    facts: tuple[Fact, ...] = field(default=())
    near_duplicate: bool = False
    """Of a document before it, as curation has found."""


def clean(text: str) -> str:
    """Line ends to \\n, no NUL, no byte-order mark, no blank edge."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").lstrip("\ufeff").strip()


def fingerprint(text: str) -> bytes:
    """32 bytes, equal for texts that differ only in white space or in Unicode composition."""
    normalised = text if text.isascii() else unicodedata.normalize("NFC", text)
    return hashlib.sha256(" ".join(normalised.split()).encode("utf-8", "surrogatepass")).digest()


def document_id(print_32: bytes) -> str:
    return print_32[:12].hex()


def split_score(print_32: bytes) -> float:
    """In [0, 1): held out when below the fraction."""
    return int.from_bytes(print_32[_SPLIT], "big") / 2**64


def cut_score(print_32: bytes) -> int:
    """64 bits, independent of the split: a cut keeps the documents with the lowest."""
    return int.from_bytes(print_32[_CUT], "big")


def choice(key: str, options: int) -> int:
    """A fixed choice of 0 … options - 1 by name."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % options
