"""The rank around a training loop: ranks that find each other, end together, and say what a failure means."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.distributed as dist

from abruzzi.client.stage import Preempted, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import StageBase
from abruzzi_jobs.checkpoint import randomness
from abruzzi_jobs.distributed import Ranks, start_ranks, stop_ranks

_PEER_SECONDS = 8.0
_LOST_PEER = ("connection closed by peer", "connection reset by peer", "broken pipe", "gloo", "nccl", "socket")


def run_training(context: StageContext, stage: StageBase, train: Callable[[Ranks], None]) -> None:
    """`train` on this rank, once all have found each other."""
    torch.set_num_threads(stage.resources.threads or int(os.environ.get("OMP_NUM_THREADS", "1")))
    randomness.seed(context.spec.seed + context.rank)
    try:
        train(start_ranks())
        stop_ranks()
    except Preempted:
        stop_ranks()  # in good order, after a barrier: a rank must not take the other's leaving for a failure
        raise
    except RuntimeError as error:
        if context.world_size > 1 and _is_lost_peer(error):
            _await_the_end(context, error)
        raise _advised(error) from error


def _await_the_end(context: StageContext, error: RuntimeError) -> None:
    """The rank that went knows why. Leave it the first word: the launcher counts what ends by itself, and stops the rest."""
    context.stop_requested.wait(_PEER_SECONDS)
    raise AbruzziError(
        "lost_peer", f"Rank {context.rank} lost another rank: {str(error).splitlines()[0][:200]}.", status=503
    ) from error


def _is_lost_peer(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(sign in text for sign in _LOST_PEER)


def _advised(error: RuntimeError) -> Exception:
    """A model that does not fit is the recipe's: trying again would not make it smaller."""
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return AbruzziError(
            "does_not_fit",
            f"The memory is too small for this step: {str(error).splitlines()[0][:200]}.",
            hint="Set batch.micro_sequences lower, or the model smaller; `abruzzi plan` shows what it takes.",
        )
    return error
