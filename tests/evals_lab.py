"""An evaluate stage with suites as the platform runs it: a spec in, a committed report out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.recipe import EvaluateStage
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.store import list_manifests, open_store
from abruzzi_jobs.entrypoints import evaluate

PREFIX = "projects/p/runs/0123456789/evals/"


def stage_of(target: Mapping[str, Any], *, indices: int = 1, **suites: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": "evals",
        "kind": "evaluate",
        "endpoint": {"t": dict(target)},
        "roles": {"target": "t"},
        "suites": suites,
    }
    if indices > 1:
        found["resources"] = {"framework": "indexed-job", "ranks": indices}
    return EvaluateStage.model_validate(found).model_dump(mode="json")


def context_of(root: Path, config: dict[str, Any], attempt: int = 1, *, rank: int = 0) -> StageContext:
    """Of a rank in a folder of its own, as a pod has it."""
    spec = StageSpec(
        project_id="p", run_id="0123456789", stage_id="evals", attempt_id=f"0123456789-evals-{attempt}", epoch=attempt,
        kind="evaluate", config=config, inputs={}, store=DirectoryStore(root=str(root / "store")), output_prefix=PREFIX,
    )  # fmt: skip
    folder = root / f"attempt-{attempt}" / f"pod-{rank}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(spec.model_dump_json())
    return StageContext(spec, rank, config["resources"]["ranks"], folder, open_store(spec.store))


def run_rank(root: Path, config: dict[str, Any], attempt: int = 1, *, rank: int) -> StageContext:
    context = context_of(root, config, attempt, rank=rank)
    with Reporter.from_context(context) as reporter:
        evaluate.run(context, reporter)
    return context


def run_stage(root: Path, config: dict[str, Any], attempt: int = 1) -> tuple[Path, Manifest]:
    """(the output's files, its manifest)."""
    context = run_rank(root, config, attempt, rank=0)
    _, manifest = max(list_manifests(context.store, PREFIX), key=lambda found: found[0])
    return context.scratch / "report", manifest


def start_process(root: Path, config: dict[str, Any], attempt: int = 1, *, rank: int = 0) -> subprocess.Popen[bytes]:
    """The same as a process of its own."""
    context = context_of(root, config, attempt, rank=rank)
    variables = {
        "ABRUZZI_SPEC": str(context.attempt_dir / "spec.json"), "ABRUZZI_ATTEMPT_DIR": str(context.attempt_dir),
        "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(context.world_size), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ABRUZZI_")}
    with (root / "output.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "abruzzi_jobs.entrypoints.main"],
            env=clean | variables, stdout=log, stderr=subprocess.STDOUT, process_group=0,
        )  # fmt: skip
