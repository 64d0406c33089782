"""All layers in their order, the dear ones only for what has passed the cheap ones."""

from __future__ import annotations

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.chat.embeddings import Embedder
from abruzzi_jobs.chat.request import ChatBackend
from abruzzi_jobs.rephrase.fidelity.fault import Fault
from abruzzi_jobs.rephrase.fidelity.judge import judge
from abruzzi_jobs.rephrase.fidelity.rules import rules
from abruzzi_jobs.rephrase.fidelity.shape import shape
from abruzzi_jobs.rephrase.fidelity.translation import translation_faults
from abruzzi_jobs.rephrase.fidelity.vectors import likeness_faults


class Verifier:
    """Of rewritten parts. `backend`: the role verifier, `embedder`: the role of this name; None where the recipe gives it to nobody."""

    def __init__(
        self, config: FidelityConfig, backend: ChatBackend | None = None, embedder: Embedder | None = None
    ) -> None:
        self._config, self._backend, self._embedder = config, backend, embedder

    async def __call__(self, source: str, text: str, *, context: str) -> list[Fault]:
        faults = self.cheap(source, text, context=context)
        if not faults and self._embedder is not None:
            faults = await likeness_faults(self._embedder, source, text, self._config)
        if not faults and self._backend is not None:
            faults = await judge(self._backend, source, text)
        return faults

    def cheap(self, source: str, text: str, *, context: str) -> list[Fault]:
        """Rules and likeness, without asking anybody."""
        return [*rules(source, text, context=context, config=self._config), *shape(source, text, self._config)[0]]


class TranslationVerifier:
    """Of translated parts: what is the same in both languages, then the judge."""

    def __init__(self, config: FidelityConfig, backend: ChatBackend | None = None) -> None:
        self._config, self._backend = config, backend

    async def __call__(self, source: str, text: str, *, context: str) -> list[Fault]:
        faults = translation_faults(source, text, self._config)
        if not faults and self._backend is not None:
            faults = await judge(self._backend, source, text)
        return faults
