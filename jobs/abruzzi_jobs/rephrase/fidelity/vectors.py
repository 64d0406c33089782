"""Likeness by an embedding model, where the recipe has one: it knows meanings, where hashed letters know forms."""

from __future__ import annotations

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.chat.embeddings import Embedder, EmbeddingRequest
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind

LAYER = "embeddings"


async def likeness_faults(embedder: Embedder, source: str, text: str, config: FidelityConfig) -> list[Fault]:
    """Of a part as a whole. Fails closed: no vectors are a fault. Raises what the embedder raises, but for CallRejected."""
    try:
        found = await embedder.embed(EmbeddingRequest(texts=(source, text)))
    except CallRejected as rejected:
        return [Fault(FaultKind.LIKENESS, LAYER, f"no vectors: {rejected.message}")]
    cosine = found.cosine(0, 1)
    if cosine >= config.min_similarity:
        return []
    return [Fault(FaultKind.LIKENESS, LAYER, f"cosine {cosine:.2f} by {found.model}")]
