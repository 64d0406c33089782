"""From a stage's inputs to arms. Input names: `<arm>.<seed>` (a report), `<arm>.dataset` and `<arm>.corpus` (what it was trained on)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from abruzzi.client.stage import LocalArtifact, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.data.shards import read_info
from abruzzi_jobs.data.text_shards import read_corpus
from abruzzi_jobs.evals.comparison.arms import Arm

REWRITES = "rewrites"


def read_arms(context: StageContext, named: Sequence[tuple[str, str, float | None]]) -> list[Arm]:
    """`named`: (key, label, published figure) in the order of the table. Raises AbruzziError where an input is of no arm."""
    keys = [key for key, _, _ in named]
    for name in context.spec.inputs:
        if name.rpartition(".")[0] not in keys:
            raise AbruzziError(
                "bad_data",
                f"The input {name!r} belongs to no arm; there are {', '.join(keys)}.",
                hint='Inputs are called "<arm>.<seed>", "<arm>.dataset" or "<arm>.corpus".',
            )
    return [_arm(context, key, label, reference) for key, label, reference in named]


def _arm(context: StageContext, key: str, label: str, reference: float | None) -> Arm:
    found = {
        name.rpartition(".")[2]: context.input(name)
        for name in sorted(context.spec.inputs)
        if name.rpartition(".")[0] == key
    }
    reports = {end: _report(a) for end, a in found.items() if a.manifest.kind is ArtifactKind.REPORT}
    dataset, corpus = found.get("dataset"), found.get("corpus")
    return Arm(
        key=key,
        label=label,
        reference=reference,
        reports=reports,
        train_tokens=read_info(dataset.folder).tokens("train") if dataset is not None else None,
        rephrase=rephrasing(corpus.folder) if corpus is not None else None,
    )


def rephrasing(corpus: Path) -> dict[str, Any] | None:
    """{teacher, generators, rewrites, documents} of a corpus that a rephrase stage made, None of another."""
    described = read_corpus(corpus).get("rephrase")
    if described is None:
        return None
    generators = Counter(row["generator"] for row in read_rows(corpus, REWRITES) if row.get("generator"))
    return {
        "teacher": described["teacher"],
        "generators": sorted(generators),
        "rewrites": described["rewrites"],
        "documents": described["documents"],
    }


def _report(artifact: LocalArtifact) -> dict[str, Any]:
    return json.loads(artifact.path("report.json").read_text(encoding="utf-8"))
