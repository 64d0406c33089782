"""Saving: the step's tensors are copied (the stall), then a thread writes and commits them.

Files: `model.safetensors` (logical names, experts as [E, out, in]), `optimizer.safetensors`, `rng.safetensors`, and `state.json` with the
step, the loader's position, the schedule and the configuration. The name is `step-<8 digits>`.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from abruzzi.client.stage import StageContext
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.training import CheckpointConfig
from abruzzi.store import check_free_space, list_manifests, remove_artifact
from abruzzi_jobs.models import KimiK2
from abruzzi_jobs.optim import MuonClip

logger = logging.getLogger(__name__)
_NEVER_REMOVED = 2


@dataclass(frozen=True, slots=True)
class TrainingState:
    """All that resumes training bit for bit, beside the tensors."""

    step: int
    """Steps done."""
    tokens: int
    loader: Mapping[str, Any]
    divergence: Mapping[str, Any]
    config: Mapping[str, Any]
    """The stage's resolved table."""


class Checkpointer:
    """Used on rank 0 only. One save is in flight at a time."""

    def __init__(self, context: StageContext, config: CheckpointConfig) -> None:
        self._context, self._config = context, config
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._saved_at = time.monotonic()
        self.last_step: int | None = None
        self.stored_bytes = 0
        self.last_stall_seconds = 0.0

    def is_due(self, step: int) -> bool:
        """After `step` steps: by steps, or by wall time since the last one began."""
        every = self._config.every_steps
        if every is not None and step % every == 0:
            return True
        return self._config.every is not None and time.monotonic() - self._saved_at >= self._config.every

    def save(self, model: KimiK2, optimizer: MuonClip, state: TrainingState, *, wait: bool = False) -> float:
        """Begin to save; returns the seconds that training stood still. `wait`: return when it is committed. Raises what the last save met."""
        began = time.monotonic()
        self.finish()
        files = {
            "model.safetensors": {
                name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()
            },
            "optimizer.safetensors": {
                name: tensor.detach().clone().contiguous() for name, tensor in optimizer.state_dict().items()
            },
            "rng.safetensors": {"torch": torch.get_rng_state().clone()},
        }
        needed = sum(t.numel() * t.element_size() for tensors in files.values() for t in tensors.values())
        check_free_space(self._context.attempt_dir, self._config.min_free_bytes, 2 * needed)
        self._saved_at = time.monotonic()
        self.last_step = state.step
        self._thread = threading.Thread(target=self._write, args=(files, state), name="abruzzi-checkpoint")
        self._thread.start()
        if wait:
            self.finish()
        self.last_stall_seconds = time.monotonic() - began
        return self.last_stall_seconds

    def finish(self) -> None:
        """Wait for a save in flight. Raises what it met."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, files: Mapping[str, Mapping[str, Tensor]], state: TrainingState) -> None:
        folder = self._context.scratch / f"step-{state.step:08d}"
        try:
            folder.mkdir(exist_ok=True)
            for name, tensors in files.items():
                save_file(dict(tensors), folder / name)
            body = {
                "step": state.step,
                "tokens": state.tokens,
                "loader": state.loader,
                "divergence": state.divergence,
                "config": state.config,
            }
            (folder / "state.json").write_text(json.dumps(body, sort_keys=True))
            paths = {path.name: path for path in folder.iterdir()}
            meta = {"step": state.step, "tokens": state.tokens}
            manifest = self._context.commit(ArtifactKind.CHECKPOINT, f"step-{state.step:08d}", paths, meta, state.step)
            logger.info("checkpoint %s: %.1f MB", manifest.name, manifest.size_bytes / 1e6)
            self._retain()
        except BaseException as error:
            self._error = error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _retain(self) -> None:
        """Remove all but the newest `keep_last` and the milestones. The newest two are never removed: one of them may prove damaged."""
        prefix = self._context.spec.output_prefix
        found = [
            (key, m) for key, m in list_manifests(self._context.store, prefix) if m.kind is ArtifactKind.CHECKPOINT
        ]
        found.sort(key=lambda item: (item[1].step or 0, item[1].epoch), reverse=True)
        kept = max(_NEVER_REMOVED, self._config.keep_last)
        for key, manifest in found[kept:]:
            if not self._is_milestone(manifest):
                remove_artifact(self._context.store, key, manifest)
        self.stored_bytes = sum(m.size_bytes for _, m in found[:kept]) + sum(
            m.size_bytes for _, m in found[kept:] if self._is_milestone(m)
        )

    def _is_milestone(self, manifest: Manifest) -> bool:
        every = self._config.keep_every_steps
        return every is not None and manifest.step is not None and manifest.step % every == 0
