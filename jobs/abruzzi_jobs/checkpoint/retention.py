"""Which checkpoints may go. Pure, but for the question whether one verifies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from abruzzi.contracts.artifact import Manifest

NEVER_REMOVED = 2
"""Of the newest that verify: one of them may yet prove damaged."""


def choose_removals(
    found: Sequence[tuple[str, Manifest]],
    *,
    epoch: int,
    base_step: int,
    keep_last: int,
    keep_every_steps: int | None,
    verifies: Callable[[str, Manifest], bool],
) -> list[tuple[str, Manifest]]:
    """Those with at least `keep_last` (and two) newer verified steps, milestones excepted.

    A damaged one never counts as kept, and is removed like any other once enough good ones are newer. `epoch` resumed at `base_step`: what
    earlier epochs saved beyond it is a line of training that was given up (a divergence, say), and goes once enough good ones are there.
    """
    removable: list[tuple[str, Manifest]] = []
    good: set[int] = set()
    needed = max(NEVER_REMOVED, keep_last)
    line = [item for item in found if item[1].epoch == epoch or (item[1].step or 0) <= base_step]
    for key, manifest in sorted(line, key=lambda item: (item[1].step or 0, item[1].epoch), reverse=True):
        step = manifest.step or 0
        enough = len(good - {step}) >= needed
        if enough and not (keep_every_steps and step % keep_every_steps == 0):
            removable.append((key, manifest))
        elif not enough and verifies(key, manifest):
            good.add(step)
    if len(good) >= needed:
        kept = {key for key, _ in line}
        removable += [item for item in found if item[0] not in kept]
    return removable
