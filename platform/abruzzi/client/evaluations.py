"""Evaluations in the SDK."""

from __future__ import annotations

from collections.abc import Iterator

from abruzzi.client.transport import Transport
from abruzzi.contracts.evaluation import EvaluationOut, PairedOut


class Evaluations:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def list(
        self, *, suite: str | None = None, target: str | None = None, run_id: str | None = None
    ) -> Iterator[EvaluationOut]:
        """Newest first. `target`: a checkpoint's digest, or `kind:model`."""
        return self._http.pages(EvaluationOut, "evaluations", suite=suite, target=target, run=run_id)

    def get(self, evaluation_id: str) -> EvaluationOut:
        return self._http.get(EvaluationOut, f"evaluations/{evaluation_id}")

    def compare(self, evaluation_id: str, other_id: str) -> PairedOut:
        """The first minus the other, on the items that both have a score of."""
        return self._http.get(PairedOut, f"evaluations/{evaluation_id}/against/{other_id}")
