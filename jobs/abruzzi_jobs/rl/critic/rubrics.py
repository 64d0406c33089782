"""Which rubrics a stage compares by: asked for once, by the first attempt, and kept, so that later attempts compare by the same."""

from __future__ import annotations

from abruzzi.client.stage import StageContext, read_rubrics
from abruzzi.contracts.rubric import RubricSet
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import blob_key, list_manifests
from abruzzi_jobs.distributed import Ranks

NAME = "rubrics"
_FILE = "rubrics.json"


def settled_rubrics(context: StageContext, name: str, ranks: Ranks) -> RubricSet:
    """The newest version of when the stage first began, also an artifact of its own. Rank 0 asks; all ranks call it.

    Raises AbruzziError `not_found`, `unreachable`.
    """
    if ranks.rank == 0 and _kept(context, name) is None:
        found = read_rubrics(context, name)
        file = context.scratch / _FILE
        file.write_text(found.model_dump_json(indent=1), encoding="utf-8")
        context.commit(ArtifactKind.FILES, NAME, {_FILE: file}, {"name": found.name, "version": found.version})
    ranks.barrier()
    kept = _kept(context, name)
    assert kept is not None
    return kept


def _kept(context: StageContext, name: str) -> RubricSet | None:
    """Of this stage's attempts up to this one, the first."""
    prefix = context.spec.output_prefix
    manifests = [
        m for _, m in list_manifests(context.store, prefix) if m.name == NAME and m.epoch <= context.spec.epoch
    ]
    for manifest in sorted(manifests, key=lambda m: m.epoch):
        kept = RubricSet.model_validate_json(context.store.get(blob_key(prefix, manifest.files[0].digest)))
        if kept.name == name:
            return kept
    return None
