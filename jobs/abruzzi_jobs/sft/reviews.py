"""People's verdicts on rows: asked for once, by the first attempt, and kept, so that later attempts learn from the same conversations."""

from __future__ import annotations

import json
from typing import Any

from abruzzi.client.stage import StageContext, read_reviews
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import blob_key, list_manifests
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.sft.rows import Verdicts

NAME = "reviews"
_FILE = "reviews.json"


def settled_reviews(context: StageContext, ranks: Ranks, nouns: tuple[str, ...]) -> dict[str, Verdicts]:
    """{noun: verdicts} of those inputs that there are. Rank 0 asks; all ranks call it. Raises AbruzziError `unreachable`."""
    digests = {noun: context.spec.inputs[noun].digest for noun in nouns if noun in context.spec.inputs}
    if ranks.rank == 0:
        known = _kept(context)
        asked = {
            digest: {review.row_id: review.verdict.value for review in read_reviews(context, noun)}
            for noun, digest in digests.items()
            if digest not in known
        }
        if asked:
            file = context.scratch / _FILE
            file.write_text(json.dumps({"version": 1, "reviews": asked}, sort_keys=True), encoding="utf-8")
            counts = {"reviews": sum(map(len, asked.values()))}
            context.commit(ArtifactKind.FILES, NAME, {_FILE: file}, counts)
    ranks.barrier()
    kept = _kept(context)
    return {noun: kept[digest] for noun, digest in digests.items()}


def _kept(context: StageContext) -> dict[str, Any]:
    """{input's digest: {row id: verdict}} of this stage's attempts up to this one; the first word on an input stays."""
    prefix = context.spec.output_prefix
    found: dict[str, Any] = {}
    manifests = [
        m for _, m in list_manifests(context.store, prefix) if m.name == NAME and m.epoch <= context.spec.epoch
    ]
    for manifest in sorted(manifests, key=lambda m: m.epoch):
        content = json.loads(context.store.get(blob_key(prefix, manifest.files[0].digest)))
        found = {**content["reviews"], **found}
    return found
