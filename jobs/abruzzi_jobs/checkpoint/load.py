"""Loading: the platform has picked the checkpoint; here its files become tensors again, digests verified on the way.

Each file is read from the store by one rank, once, into memory (arrival.py); `exchange.py` gives the rows to whoever needs them, whatever layout saved them.
What has been damaged since is passed over for the one before it; all ranks take the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from abruzzi.client.stage import StageContext
from abruzzi.contracts.artifact import FileEntry, Manifest
from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import CorruptArtifact, blob_key, list_manifests, prefix_of
from abruzzi_jobs.checkpoint import randomness
from abruzzi_jobs.checkpoint.arrival import Arrived, receive
from abruzzi_jobs.checkpoint.exchange import check, distribute
from abruzzi_jobs.checkpoint.state import STATE_FILE, TrainingState, targets_of
from abruzzi_jobs.checkpoint.tensor_file import OPTIMIZER, WEIGHTS, saver_of, tensors_of_folder
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.distributed.ownership import longest_first
from abruzzi_jobs.distributed.whole import WholeModel, WholeOptimizer
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.models.streams import stream
from abruzzi_jobs.optim import MuonClip

logger = logging.getLogger(__name__)

_FRESH_STD = 0.02
"""Of rows for new tokens; the models' default init_std."""
_AT_ONCE = 4
"""Files that a rank reads: its weights and its optimizer state, or as many of other ranks'."""


@dataclass(frozen=True, slots=True)
class OpenCheckpoint:
    """Its files, verified, each read by one rank."""

    manifest: Manifest
    readers: Mapping[str, int]
    """File → rank."""
    files: Mapping[str, Arrived]
    """This rank's."""


def open_checkpoint(context: StageContext, ranks: Ranks) -> OpenCheckpoint | None:
    """The platform's choice, or where that is damaged the newest before it that verifies. None: start afresh. A collective.

    Raises AbruzziError bad_data when the checkpoint that a branch stands on is damaged (it was chosen by a person: no other will do),
    `try_again` when ranks disagree.
    """
    reference = context.spec.resume
    if reference is None:
        return None
    prefix = prefix_of(reference.manifest_key)
    chosen_name = reference.manifest_key.split("/")[-2]
    found, error = _tried(lambda: _read(context, *_chosen(context), ranks), ranks)
    if error is not None:
        if prefix != context.spec.output_prefix:
            raise AbruzziError(
                "bad_data",
                f"The checkpoint that this run was branched from is damaged or gone: {error}",
                hint="Branch from another checkpoint.",
            )
        logger.warning("%s Looking for the checkpoint before it.", error)
        for key, manifest in _older(context, prefix, chosen_name):
            found, error = _tried(lambda key=key, manifest=manifest: _read(context, key, manifest, ranks), ranks)
            if error is None:
                break
            logger.warning("%s", error)
        else:
            logger.warning("No checkpoint of this stage verifies: starting afresh.")
    step = -1 if found is None else found.manifest.step or 0
    if ranks.world_size > 1:
        both = ranks.max_(torch.tensor([step, -step], device=ranks.device)).tolist()
        if both[0] != -both[1]:
            raise AbruzziError(
                "try_again", f"Ranks found different checkpoints (steps {-both[1]} and {both[0]}).", status=503
            )
    return found


def load_checkpoint(
    opened: OpenCheckpoint, model: Decoder | WholeModel, optimizer: MuonClip | WholeOptimizer, *, ranks: Ranks
) -> TrainingState:
    """What was saved, after model, optimizer and random states are restored. A collective. Raises AbruzziError bad_data when they do not fit together."""
    try:
        state = TrainingState.from_bytes(_state(opened, ranks))
        distribute(opened.files, WEIGHTS, targets_of(model), ranks)
        try:
            distribute(opened.files, OPTIMIZER, targets_of(optimizer), ranks)
        except ValueError as error:
            raise ValueError(
                f"optimizer state: {error}; it was saved by another model, optimizer kind or dtype"
            ) from error
        if isinstance(optimizer, WholeOptimizer):
            optimizer.taken()
        else:
            optimizer.give_masters()
        if ranks.rank < len(state.random):
            randomness.restore(state.random[ranks.rank])
    except (ValueError, TypeError, KeyError) as error:
        raise AbruzziError(
            "bad_data",
            f"Checkpoint {opened.manifest.name} does not fit this stage: {' '.join(str(error).split())[:300]}.",
            hint="Model, optimizer kind and dtype must be those that it was saved with.",
        ) from error
    return state


@torch.no_grad()
def load_weights(folder: Path, model: Decoder | WholeModel, *, name: str, seed_of_growth: int | None = None) -> None:
    """Of another stage's checkpoint, to begin with; before the optimizer is built, which takes its masters from them. `name`: what errors call it.
    `seed_of_growth`: a vocabulary that has grown since gets rows drawn from it. A collective where the model is laid out.

    Raises AbruzziError bad_data where they are another model's.
    """
    try:
        tensors = tensors_of_folder(folder, WEIGHTS)
        if seed_of_growth is not None:
            for key in ("embed_tokens.weight", "lm_head.weight"):
                if key in tensors:
                    tensors[key] = _grown(tensors[key], model.config.vocab_size, seed_of_growth, key)
        shapes = model.shapes if isinstance(model, WholeModel) else _shapes(model.state_dict())
        check(_shapes(tensors), shapes)
        for part in targets_of(model):
            whole = tensors[part.name]
            part.tensor.copy_(whole[part.first : part.last] if whole.ndim else whole)
        if isinstance(model, WholeModel):
            model.taken()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise AbruzziError(
            "bad_data",
            f"The checkpoint {name} does not fit this stage's model: {' '.join(str(error).split())[:300]}.",
            hint="Give both stages the same model table.",
        ) from error


def _grown(weight_VD: torch.Tensor, vocab_size: int, seed: int, name: str) -> torch.Tensor:
    more = vocab_size - len(weight_VD)
    if more <= 0:
        return weight_VD
    fresh = torch.randn(more, weight_VD.shape[1], generator=stream(seed, f"{name}.grown")).mul_(_FRESH_STD)
    return torch.cat([weight_VD, fresh.to(weight_VD.dtype)])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _chosen(context: StageContext) -> tuple[str, Manifest]:
    found = context.resume_manifest()
    assert found is not None  # who calls this has looked
    return found


def _older(context: StageContext, prefix: str, name: str) -> list[tuple[str, Manifest]]:
    """Of this stage, before the one of that name; newest first."""
    found = [
        (manifest.step or 0, manifest.epoch, key, manifest)
        for key, manifest in list_manifests(context.store, prefix)
        if manifest.kind is ArtifactKind.CHECKPOINT and manifest.epoch <= context.spec.epoch and manifest.name < name
    ]
    return [(key, manifest) for *_, key, manifest in sorted(found, key=lambda item: item[:2], reverse=True)]


def _tried(read: Callable[[], OpenCheckpoint], ranks: Ranks) -> tuple[OpenCheckpoint, None] | tuple[None, str]:
    """What was read, or what one of the ranks found damaged or gone. A collective."""
    found = said = None
    try:
        found = read()
    except AbruzziError as error:
        if not isinstance(error, CorruptArtifact | NotFound) and error.code != "corrupt_manifest":
            raise
        said = error.message
    told = [said] * ranks.world_size
    if ranks.world_size > 1:
        dist.all_gather_object(told, said)
    damage = next((other for other in told if other is not None), None)
    if damage is not None:
        return None, damage
    assert found is not None
    return found, None


def _read(context: StageContext, key: str, manifest: Manifest, ranks: Ranks) -> OpenCheckpoint:
    """This rank's share of the files. Raises CorruptArtifact."""
    readers = _readers(manifest.files, ranks.world_size)
    prefix = prefix_of(key)
    own = [entry for entry in manifest.files if readers[entry.path] == ranks.rank]
    shared = ranks.world_size > 1
    with ThreadPoolExecutor(min(len(own), _AT_ONCE) or 1) as pool:  # a digest is one core's work
        came = list(pool.map(lambda entry: _arrived(context, prefix, manifest, entry, shared=shared), own))
    return OpenCheckpoint(manifest, readers, {entry.path: file for entry, file in zip(own, came, strict=True)})


def _readers(files: Sequence[FileEntry], ranks: int) -> dict[str, int]:
    """File → rank: who saved it, where as many ranks load (in the same layout, none then needs another's); else about as many bytes for each."""
    savers = {entry.path: saver_of(entry.path) for entry in files}
    if {saver[1] for saver in savers.values() if saver is not None} == {ranks}:
        return {path: 0 if saver is None else saver[0] for path, saver in savers.items()}
    return longest_first({entry.path: entry.size_bytes for entry in files}, ranks)


def _arrived(context: StageContext, prefix: str, manifest: Manifest, entry: FileEntry, *, shared: bool) -> Arrived:
    """A file, hashed as it comes."""
    try:
        with context.store.open(blob_key(prefix, entry.digest)) as stream:
            found = receive(stream, entry.size_bytes, shared=shared)
    except NotFound:
        raise CorruptArtifact(manifest, entry.path, "is gone") from None
    if found is None or f"sha256:{found[1]}" != entry.digest:
        raise CorruptArtifact(manifest, entry.path, "does not hash to its digest")
    return found[0]


def _state(opened: OpenCheckpoint, ranks: Ranks) -> bytes:
    """`state.json`, from the rank that has read it. Raises KeyError where there is none."""
    reader = opened.readers[STATE_FILE]
    found: list[bytes] = [b""]
    if reader == ranks.rank:
        found = [opened.files[STATE_FILE].content.numpy().tobytes()]
    if ranks.world_size > 1:
        dist.broadcast_object_list(found, src=reader)
    return found[0]
