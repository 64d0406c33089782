"""Vectors of texts: the other question that a server of the protocol answers, at /embeddings. Asked, tried again, counted and kept as chats are."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from abruzzi_jobs.chat.failures import Fate, TryFailed
from abruzzi_jobs.chat.request import BYTES_PER_TOKEN, Usage

_KEPT_AS = "<f4"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    texts: Sequence[str]
    sample: int = 0

    def body(self) -> dict[str, Any]:
        return {"input": list(self.texts), "encoding_format": "float"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    vectors_ND: np.ndarray
    """float32, one row a text, as the server gave them."""
    usage: Usage
    model: str
    seconds: float = 0.0
    tries: int = 1
    call_id: str = ""
    is_llm: bool = True

    def cosine(self, one: int, other: int) -> float:
        """Of two texts by their numbers, in [-1, 1]; 0 where a vector is zero."""
        a, b = self.vectors_ND[one].astype(np.float64), self.vectors_ND[other].astype(np.float64)
        norms = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / norms if norms else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For a record; `from_dict` reads it back."""
        packed = [base64.b64encode(row.astype(_KEPT_AS).tobytes()).decode() for row in self.vectors_ND]
        usage = [self.usage.prompt_tokens, self.usage.completion_tokens, self.usage.is_estimated]
        return {"vectors": packed, "usage": usage, "model": self.model, "generator": self.model, "is_llm": self.is_llm}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], *, call_id: str) -> Embeddings:
        rows = [np.frombuffer(base64.b64decode(row), dtype=_KEPT_AS) for row in found["vectors"]]
        return cls(vectors_ND=np.stack(rows), usage=Usage(*found["usage"]), model=found["model"], call_id=call_id)


class Embedder(Protocol):
    """Raises CallRejected where these texts get no vectors, any other ChatFailure where there is no point in going on."""

    async def embed(self, request: EmbeddingRequest) -> Embeddings: ...


def read_embeddings(content: bytes, request: EmbeddingRequest, *, model: str) -> Embeddings:
    """The vectors in a body of status 200, in the order of the texts. Raises TryFailed `garbage`."""
    try:
        found = json.loads(content)
        rows = sorted(found["data"], key=lambda row: row["index"])
        if [row["index"] for row in rows] != list(range(len(request.texts))):
            raise ValueError(f"{len(rows)} vectors for {len(request.texts)} texts")
        vectors_ND = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
        if vectors_ND.ndim != 2 or not vectors_ND.shape[1] or not np.isfinite(vectors_ND).all():
            raise ValueError("vectors of different lengths, or with numbers that are none")
        said = found.get("model")
        name = said if isinstance(said, str) and said else model
        return Embeddings(vectors_ND=vectors_ND, usage=_usage(found.get("usage"), request), model=name)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise TryFailed("garbage", f"its answer holds no embeddings ({error})", Fate.RETRY) from error


def tokens_of(request: EmbeddingRequest) -> int:
    """An estimate, before the server has counted."""
    return sum(len(text.encode()) for text in request.texts) // BYTES_PER_TOKEN + 1


def _usage(found: Any, request: EmbeddingRequest) -> Usage:
    count = found.get("prompt_tokens") if isinstance(found, dict) else None
    if isinstance(count, int) and count >= 0:
        return Usage(count, 0)
    return Usage(tokens_of(request), 0, is_estimated=True)
