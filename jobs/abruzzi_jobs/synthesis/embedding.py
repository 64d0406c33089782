"""Tools as vectors: TF-IDF of words and pairs of words, reduced by a truncated SVD (latent semantic analysis). No model is loaded and nothing
fetched; it knows words, not meanings: two tools are near when they are said alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from abruzzi.contracts.tool import ToolSpec

EMBEDDER = "tfidf-svd-192"
_DIMENSIONS = 192
NEAR = 0.95
"""Cosine from which a tool says too little new. Chosen by reading pairs: just above it the same operation on a part and on its whole is common
(`delete_repository`, `delete_repository_incident`), just below it operations differ."""


def text_of(tool: ToolSpec) -> str:
    """Name and description without its list of needs, which repeat the name, and the arguments' names."""
    arguments = " ".join(tool.input_schema.get("properties", {}))
    said = tool.description.split(" Needs: ")[0]
    return f"{tool.name} {said} {arguments}".replace("_", " ")


def embed(tools: Sequence[ToolSpec]) -> np.ndarray:
    """[n, d] unit vectors, fitted on these tools alone; rounded, so that the last bits of a machine's BLAS decide nothing."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=20_000, dtype=np.float64)
    matrix: Any = words.fit_transform([text_of(tool) for tool in tools])
    size = min(_DIMENSIONS, *(n - 1 for n in matrix.shape))
    if size < 2:
        return normalize(matrix.toarray())
    reduced = TruncatedSVD(size, n_iter=2, random_state=0).fit_transform(matrix)
    return np.round(normalize(reduced), 6)


def distinct(tools: Sequence[ToolSpec], near: float = NEAR) -> tuple[list[ToolSpec], list[tuple[str, str, float]]]:
    """Those kept, in their order, and those dropped: (its name, the kept tool that it resembles, cosine)."""
    vectors = embed(tools)
    kept: list[int] = []
    held = np.empty_like(vectors)
    dropped = []
    for number, vector in enumerate(vectors):
        if kept:
            likeness = held[: len(kept)] @ vector
            nearest = int(likeness.argmax())
            if likeness[nearest] >= near:
                other = tools[kept[nearest]]
                dropped.append(
                    (
                        f"{tools[number].source}#{tools[number].name}",
                        f"{other.source}#{other.name}",
                        round(float(likeness[nearest]), 4),
                    )
                )
                continue
        held[len(kept)] = vector
        kept.append(number)
    return [tools[number] for number in kept], dropped
