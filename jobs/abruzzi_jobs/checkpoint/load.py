"""Loading: the platform has picked the checkpoint; here its files become tensors again, digests verified on the way.

What has been damaged since is passed over for the one before it; every rank comes to the same answer from the same files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from abruzzi.client.stage import LocalArtifact, StageContext
from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import CorruptArtifact, list_manifests, prefix_of
from abruzzi_jobs.checkpoint import randomness
from abruzzi_jobs.checkpoint.save import OPTIMIZER_FILE, WEIGHTS_FILE
from abruzzi_jobs.checkpoint.state import STATE_FILE, Loading, LoadingOptimizer, TrainingState
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.distributed.whole import WholeModel
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.models.streams import stream

logger = logging.getLogger(__name__)

_FRESH_STD = 0.02
"""Of rows for new tokens; the models' default init_std."""


def open_checkpoint(context: StageContext, ranks: Ranks) -> LocalArtifact | None:
    """The platform's choice, or where that is damaged the newest before it that verifies. None: start afresh.

    Raises AbruzziError bad_data when the checkpoint that a branch stands on is damaged (it was chosen by a person: no other will do),
    `try_again` when ranks disagree.
    """
    found = _choose(context)
    step = -1 if found is None else found.manifest.step or 0
    ranks.barrier()
    if ranks.world_size > 1:
        both = ranks.max_(torch.tensor([step, -step], device=ranks.device)).tolist()
        if both[0] != -both[1]:
            raise AbruzziError(
                "try_again", f"Ranks found different checkpoints (steps {-both[1]} and {both[0]}).", status=503
            )
    return found


def load_checkpoint(
    artifact: LocalArtifact, model: Loading, optimizer: LoadingOptimizer, *, rank: int
) -> TrainingState:
    """What was saved, after model, optimizer and random states are restored. Raises AbruzziError bad_data when they do not fit together."""
    try:
        state = TrainingState.read(artifact.path(STATE_FILE))
        _load_weights(load_file(artifact.path(WEIGHTS_FILE)), model)
        optimizer.load_state_dict(load_file(artifact.path(OPTIMIZER_FILE)))
        if rank < len(state.random):
            randomness.restore(state.random[rank])
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise AbruzziError(
            "bad_data",
            f"Checkpoint {artifact.manifest.name} does not fit this stage: {' '.join(str(error).split())[:300]}.",
            hint="Model, optimizer kind and dtype must be those that it was saved with.",
        ) from error
    return state


def load_weights(folder: Path, model: Decoder | WholeModel, *, name: str, seed_of_growth: int | None = None) -> None:
    """Of another stage's checkpoint, to begin with; before the optimizer is built, which takes its masters from them. `name`: what errors call it.
    `seed_of_growth`: a vocabulary that has grown since gets rows drawn from it.

    Raises AbruzziError bad_data where they are another model's.
    """
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        if seed_of_growth is not None:
            for key in ("embed_tokens.weight", "lm_head.weight"):
                if key in tensors:
                    tensors[key] = _grown(tensors[key], model.config.vocab_size, seed_of_growth, key)
        _load_weights(tensors, model)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise AbruzziError(
            "bad_data",
            f"The checkpoint {name} does not fit this stage's model: {' '.join(str(error).split())[:300]}.",
            hint="Give both stages the same model table.",
        ) from error


def _load_weights(tensors: Mapping[str, torch.Tensor], model: Loading) -> None:
    missing, unknown = model.load_state_dict(tensors, strict=False)
    if missing or unknown:
        raise ValueError(
            f"missing {', '.join(missing[:3]) or 'nothing'}, unknown {', '.join(unknown[:3]) or 'nothing'}"
        )


def _grown(weight_VD: torch.Tensor, vocab_size: int, seed: int, name: str) -> torch.Tensor:
    more = vocab_size - len(weight_VD)
    if more <= 0:
        return weight_VD
    fresh = torch.randn(more, weight_VD.shape[1], generator=stream(seed, f"{name}.grown")).mul_(_FRESH_STD)
    return torch.cat([weight_VD, fresh.to(weight_VD.dtype)])


def _choose(context: StageContext) -> LocalArtifact | None:
    reference = context.spec.resume
    if reference is None:
        return None
    prefix = prefix_of(reference.manifest_key)
    try:
        return context.resume()
    except AbruzziError as error:
        if not isinstance(error, CorruptArtifact | NotFound) and error.code != "corrupt_manifest":
            raise
        if prefix != context.spec.output_prefix:
            raise AbruzziError(
                "bad_data",
                f"The checkpoint that this run was branched from is damaged or gone: {error.message}",
                hint="Branch from another checkpoint.",
            ) from error
        logger.warning("%s Looking for the checkpoint before it.", error.message)
    chosen_name = reference.manifest_key.split("/")[-2]
    older = [
        (manifest.step or 0, manifest.epoch, key, manifest)
        for key, manifest in list_manifests(context.store, prefix)
        if manifest.kind is ArtifactKind.CHECKPOINT
        and manifest.epoch <= context.spec.epoch
        and manifest.name < chosen_name
    ]
    for step, epoch, key, manifest in sorted(older, key=lambda item: item[:2], reverse=True):
        try:
            return context.fetch(f"resume-{step}-e{epoch}", key, manifest)
        except CorruptArtifact as error:
            logger.warning("%s", error.message)
    logger.warning("No checkpoint of this stage verifies: starting afresh.")
    return None
