"""What a catalogue of tools covers, as a map: t-SNE of the tools' vectors (the paper's Fig. 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.embedding import EMBEDDER, embed

COVERAGE_FILE = "coverage.json"
LEAST = 8
"""Of fewer tools there is no map to speak of."""
_PERPLEXITY = 30.0
_ITERATIONS = 500


def coverage_of(tools: Sequence[ToolSpec]) -> dict[str, Any] | None:
    """{version, embedder, points: [{x, y, name, source}]}; the same for the same tools. None where there are too few.

    On one thread: more of them wait for each other (400 tools: 0.4 s of CPU on one, 3.2 s on two).
    """
    if len(tools) < LEAST:
        return None
    vectors = embed(tools)
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    with threadpool_limits(1):
        placed = TSNE(
            2, metric="cosine", init="random", random_state=0, perplexity=perplexity, max_iter=_ITERATIONS
        ).fit_transform(vectors)
    points = [
        {"x": round(float(x), 2), "y": round(float(y), 2), "name": tool.name, "source": tool.source}
        for (x, y), tool in zip(placed, tools, strict=True)
    ]
    return {"version": 1, "embedder": EMBEDDER, "points": points}
