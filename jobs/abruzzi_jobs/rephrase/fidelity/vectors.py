"""Likeness by an embedding model, where the recipe has one: it knows meanings, where hashed letters know forms.

Sentence by sentence: a sentence of the rewrite is told by the sentence of the source that is nearest to it. The cosine of whole texts was
tried, too, and tells faulty from honest rewrites far worse (bench/fidelity_embeddings.py).
"""

from __future__ import annotations

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.chat.embeddings import Embedder, EmbeddingRequest
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind, Span
from abruzzi_jobs.rephrase.fidelity.words import parse

LAYER = "embeddings"
_FEW_WORDS = 3
"""A shorter sentence is a heading or an exclamation."""


async def likeness_faults(embedder: Embedder, source: str, text: str, config: FidelityConfig) -> list[Fault]:
    """A fault for each sentence that is like none of the source's. Fails closed: no vectors are a fault. Raises what the embedder raises,
    but for CallRejected."""
    theirs, ours = _sentences(source), _sentences(text)
    texts = [*(source[slice(*span)] for span in theirs), *(text[slice(*span)] for span in ours)]
    try:
        found = await embedder.embed(EmbeddingRequest(texts=texts))
    except CallRejected as rejected:
        return [Fault(FaultKind.LIKENESS, LAYER, f"no vectors: {rejected.message}")]
    faults = []
    for number, span in enumerate(ours, len(theirs)):
        cosines = [found.cosine(number, other) for other in range(len(theirs))]
        nearest = max(range(len(theirs)), key=cosines.__getitem__)
        if cosines[nearest] < config.min_similarity:
            detail = f"cosine {cosines[nearest]:.2f} with what is nearest, by {found.model}"
            faults.append(Fault(FaultKind.LIKENESS, LAYER, detail, theirs[nearest], span))
    return faults


def _sentences(text: str) -> list[Span]:
    """Of a text without any, the whole."""
    return [s.span for s in parse(text).sentences if len(s.words) >= _FEW_WORDS] or [(0, len(text))]
