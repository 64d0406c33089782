"""From which checkpoint a stage goes on, and after which of the data (design section 4.5).

After a divergence it goes back: what was saved after the point that it went back to is a line that was given up and never chosen again, and the
batches up to the one that the divergence came with are not shown again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store.commit import CorruptArtifact, list_manifests, verify_manifest
from abruzzi.store.objects import ObjectStore

DIVERGENCE = "divergence"
"""Name of the note (kind `files`) that a diverging attempt leaves. Its meta:"""
DATA_STEP = "data_step"
"""Step whose batch, in the order of an undisturbed run, is the first that may be shown again."""


@dataclass(frozen=True, slots=True)
class Resume:
    """What the platform found to resume from, and what it passed over."""

    key: str | None
    manifest: Manifest | None
    corrupt: dict[str, str] = field(default_factory=dict)
    """{manifest key: sentence} of damaged checkpoints."""


@dataclass(frozen=True, slots=True)
class Setback:
    """From `epoch` on the stage went on from `step`: what earlier epochs saved beyond it was given up."""

    epoch: int
    step: int
    """-1: from the beginning, or from where the run was branched."""


def newest_verified_checkpoint(
    store: ObjectStore,
    output_prefix: str,
    *,
    max_epoch: int,
    skip: int = 0,
    setbacks: Sequence[Setback] = (),
    accept: Callable[[Manifest], bool] = lambda manifest: True,
) -> Resume:
    """The newest checkpoint of the stage (by step, then epoch) that is acceptable, not given up, and whose digests verify.

    `skip` good steps are passed over, where there are as many: two epochs' checkpoints of one step are one step.
    """
    found = [
        (manifest.step or 0, manifest.epoch, key, manifest)
        for key, manifest in list_manifests(store, output_prefix)
        if manifest.kind is ArtifactKind.CHECKPOINT
        and manifest.epoch <= max_epoch
        and not any(manifest.epoch < back.epoch and (manifest.step or 0) > back.step for back in setbacks)
        and accept(manifest)
    ]
    corrupt: dict[str, str] = {}
    last: tuple[str, Manifest] | None = None
    for step, _, key, manifest in sorted(found, key=lambda f: f[:2], reverse=True):
        if last is not None and last[1].step == step:
            continue
        try:
            verify_manifest(store, manifest, output_prefix)
        except CorruptArtifact as error:
            corrupt[key] = error.message
            continue
        last = (key, manifest)
        if skip == 0:
            break
        skip -= 1
    return Resume(*last, corrupt) if last else Resume(None, None, corrupt)


def checkpoint_after_divergences(
    store: ObjectStore,
    output_prefix: str,
    *,
    max_epoch: int,
    in_a_row: int,
    setbacks: Sequence[Setback] = (),
    accept: Callable[[Manifest], bool] = lambda manifest: True,
) -> Resume:
    """Where to go on after so many divergences at about the same point: none, the newest; the first, one step back; another, further back than
    the time before, where there is anything further back. `setbacks` in the order of their epochs."""

    def find(*more: Setback, skip: int = 0) -> Resume:
        return newest_verified_checkpoint(
            store, output_prefix, max_epoch=max_epoch, skip=skip, setbacks=[*setbacks, *more], accept=accept
        )

    if in_a_row < 2 or not setbacks:
        return find(skip=in_a_row)
    before = setbacks[-1].step
    further = find(Setback(max_epoch, before - 1))
    return further if further.manifest is not None or before < 0 else find(Setback(max_epoch, before))


def data_to_pass_over(
    store: ObjectStore,
    output_prefix: str,
    resume: Manifest | None,
    *,
    max_epoch: int,
    accept: Callable[[Manifest], bool] = lambda manifest: True,
) -> int | None:
    """Step whose batch is the first to be shown when the stage goes on from `resume` (None, or another run's: from its beginning), by the notes
    that the attempts have left which diverged after that. None: nothing happened."""
    since = resume.epoch if resume is not None and output_prefix.endswith(f"/{resume.run_id}/{resume.stage_id}/") else 0
    steps = [
        int(manifest.meta[DATA_STEP])
        for _, manifest in list_manifests(store, output_prefix)
        if manifest.name == DIVERGENCE and since <= manifest.epoch <= max_epoch and accept(manifest)
    ]
    return max(steps, default=None)
