"""A pretrain stage without the platform: a store, a dataset, specs, and ranks as processes that a test may kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ports import free_port

from abruzzi.contracts.artifact import ArtifactRef, Manifest
from abruzzi.contracts.recipe import PretrainStage
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import (
    Setback,
    blob_key,
    checkpoint_after_divergences,
    commit_artifact,
    data_to_pass_over,
    list_manifests,
    open_store,
)
from abruzzi_jobs.checkpoint.tensor_file import read_tensors
from abruzzi_jobs.data.shards import DatasetInfo, Shard, write_info, write_shard

HELD_STAGE = Path(__file__).parent / "held_stage.py"
GO = "go"
PATIENCE_SECONDS = 900.0
"""These tests run in the gaps that others leave on the machine (scripts/test)."""
VOCABULARY = 64
END_OF_TEXT = 0
NANO: dict[str, Any] = {
    "id": "pretrain",
    "kind": "pretrain",
    "model": {"preset": "nano", "vocab_size": VOCABULARY, "max_position": 64},
    "optimizer": {"peak_lr": 2e-3},
    "schedule": {"tokens": 12_288, "warmup_steps": 4},
    "batch": {"sequences": 8, "sequence_length": 32, "micro_sequences": 2},
    "checkpoint": {"every_steps": 5, "every": None, "min_free_bytes": 0},
    "telemetry": {"spectral_every_steps": 20, "held_out_every_steps": 10, "held_out_sequences": 4},
    "resources": {"threads": 1},
}
"""48 steps of 256 tokens, well under two seconds of them."""


def write_dataset(folder: Path, *, tokens: int = 40_000) -> None:
    """A language of 64 tokens in which each mostly follows from the one before; documents of 20 to 90 tokens."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    successors = rng.integers(2, VOCABULARY, size=(VOCABULARY, 3))
    shards = []
    for split, wanted in (("train", tokens), ("heldout", tokens // 10)):
        documents: list[np.ndarray] = []
        while sum(map(len, documents)) < wanted:
            document = [END_OF_TEXT, int(rng.integers(2, VOCABULARY))]
            for _ in range(int(rng.integers(20, 90))):
                document.append(int(successors[document[-1], rng.choice(3, p=[0.7, 0.2, 0.1])]))
            documents.append(np.array(document))
        total = sum(map(len, documents))
        shard = Shard(
            name=f"{split}-00000", split=split, domain="", tokens=total, documents=len(documents),
            text_bytes=total - len(documents),
        )  # fmt: skip
        write_shard(folder, shard, documents=documents, dtype="uint16")
        shards.append(shard)
    write_info(
        folder,
        DatasetInfo(
            dtype="uint16", vocab_size=VOCABULARY, end_of_text=END_OF_TEXT, pad=1,
            tokenizer_digest="sha256:" + "0" * 64, bytes_per_token=1.0,
            token_bytes=(0, 0) + (1,) * (VOCABULARY - 2), shards=tuple(shards),
        ),
    )  # fmt: skip


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in changes.items():
        found[key] = merged(found[key], value) if isinstance(value, dict) and key in found else value
    return found


class Ranks:
    """The processes of one attempt."""

    def __init__(self, directory: Path, processes: list[subprocess.Popen[bytes]]) -> None:
        self.directory, self.processes = directory, processes

    def step(self, rank: int = 0) -> int:
        """By the heartbeat file; -1 before the first."""
        try:
            return int(json.loads((self.directory / f"rank-{rank}" / "heartbeat.json").read_text())["step"])
        except FileNotFoundError:
            return -1

    def phase(self, rank: int = 0) -> str:
        """By the heartbeat file; empty before the first."""
        try:
            return str(json.loads((self.directory / f"rank-{rank}" / "heartbeat.json").read_text())["phase"])
        except FileNotFoundError:
            return ""

    def until_held(self, step: int, condition: Callable[[], object] = lambda: True) -> None:
        """All ranks stand at the step that `Lab.start` was told, and `condition` holds."""
        self.until(lambda: all(self.step(rank) >= step for rank in range(len(self.processes))) and condition())

    def until(self, condition: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not true after {seconds:.0f} s\n{self.log()}"
            assert any(p.poll() is None for p in self.processes) or condition(), f"all ranks ended\n{self.log()}"
            time.sleep(0.005)

    def signal(self, number: int, *, rank: int | None = None) -> None:
        """Held ranks go on then."""
        for index, process in enumerate(self.processes):
            if rank in (None, index) and process.poll() is None:
                os.kill(process.pid, number)
        (self.directory / GO).touch()

    def wait(self, *, seconds: float = PATIENCE_SECONDS) -> list[int]:
        """Exit codes."""
        deadline = time.monotonic() + seconds
        try:
            return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]
        finally:
            self.signal(signal.SIGKILL)

    def log(self, rank: int = 0) -> str:
        return (self.directory / f"rank-{rank}" / "output.log").read_text()

    def points(self, rank: int = 0) -> dict[str, dict[int, float]]:
        """What was logged: {key: {step: value}}, from the spool (there is no API here)."""
        found: dict[str, dict[int, float]] = {}
        for segment in sorted((self.directory / f"rank-{rank}" / "spool").glob("*.jsonl")):
            for line in segment.read_text().splitlines():
                for key, series in json.loads(line)["series"].items():
                    found.setdefault(key, {}).update(zip(series["steps"], series["values"], strict=True))
        return found


class Lab:
    stage_id = "pretrain"
    """Of the stage that is tried."""
    environment: ClassVar[dict[str, str]] = {}
    """Of every process."""

    def __init__(self, root: Path, *, run_id: str = "0123456789", dataset: Path | None = None) -> None:
        self.root, self.run_id = root, run_id
        self.store_config = DirectoryConfig(root=str(root / "store"))
        self.store = open_store(self.store_config)
        folder = dataset or root / "dataset"
        if dataset is None:
            write_dataset(folder)
        maker = self._spec("tokenize", {}, epoch=1)
        self.dataset = self.committed(maker, ArtifactKind.DATASET, "dataset", folder)

    def spec(
        self,
        changes: dict[str, Any] | None = None,
        *,
        epoch: int = 1,
        resume: bool = True,
        diverged: int = 0,
        setbacks: Sequence[Setback] = (),
    ) -> StageSpec:
        """The spec of attempt `epoch`, resuming from what the platform would pick after so many divergences in a row."""
        stage = PretrainStage.model_validate(merged(NANO, changes or {}))
        spec = self._spec("pretrain", stage.model_dump(mode="json"), epoch=epoch)
        spec = spec.model_copy(update={"inputs": {"dataset": self.dataset}, "world_size": stage.resources.ranks})
        return self.resuming(spec, diverged=diverged, setbacks=setbacks) if resume else spec

    def resuming(self, spec: StageSpec, *, diverged: int = 0, setbacks: Sequence[Setback] = ()) -> StageSpec:
        """From what the platform would pick after so many divergences in a row."""
        found = checkpoint_after_divergences(
            self.store, spec.output_prefix, max_epoch=spec.epoch, in_a_row=diverged, setbacks=setbacks
        )
        data_step = data_to_pass_over(self.store, spec.output_prefix, found.manifest, max_epoch=spec.epoch)
        reference = None
        if found.key is not None and found.manifest is not None:
            reference = ArtifactRef(
                kind=ArtifactKind.CHECKPOINT, manifest_key=found.key, digest=found.manifest.digest()
            )
        return spec.model_copy(update={"resume": reference, "data_step": data_step})

    def committed(self, maker: StageSpec, kind: ArtifactKind, name: str, folder: Path) -> ArtifactRef:
        files = {path.name: path for path in folder.iterdir()}
        key, manifest = commit_artifact(self.store, maker, kind=kind, name=name, files=files)
        return ArtifactRef(kind=kind, manifest_key=key, digest=manifest.digest())

    def start(
        self,
        spec: StageSpec,
        *,
        environment: dict[str, str] | None = None,
        hold_at: int | None = None,
        program: Path | None = None,
    ) -> Ranks:
        """`hold_at`: the step at which each rank waits for a signal of the test (held_stage.py). `program`: what runs instead of the stage's own."""
        directory = self.root / "attempts" / spec.attempt_id
        directory.mkdir(parents=True)
        (directory / "spec.json").write_text(spec.model_dump_json())
        port = free_port()
        program = program if hold_at is None else HELD_STAGE
        arguments = ["-m", "abruzzi_jobs.entrypoints.main"] if program is None else [str(program)]
        hold = {} if hold_at is None else {"HOLD_AT": str(hold_at), "HOLD_UNTIL": str(directory / GO)}
        processes = []
        for rank in range(spec.world_size):
            rank_dir = directory / f"rank-{rank}"
            rank_dir.mkdir()
            with (rank_dir / "output.log").open("wb") as log:
                variables = {
                    "ABRUZZI_SPEC": str(directory / "spec.json"), "ABRUZZI_ATTEMPT_DIR": str(directory),
                    "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(spec.world_size),
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
                    "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "",
                }  # fmt: skip
                clean = {k: v for k, v in os.environ.items() if not k.startswith("ABRUZZI_")}
                processes.append(
                    subprocess.Popen(
                        [sys.executable, *arguments],
                        env=clean | variables | hold | self.environment | (environment or {}),
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        process_group=0,  # in this session, whose share of the machine it has (scripts/test)
                    )
                )
        return Ranks(directory, processes)

    def run(self, spec: StageSpec) -> Ranks:
        """To its end, which must be a good one."""
        ranks = self.start(spec)
        codes = ranks.wait()
        assert codes == [0] * spec.world_size, ranks.log()
        return ranks

    def checkpoints(self) -> list[Manifest]:
        """Newest first."""
        return self.kept(ArtifactKind.CHECKPOINT)

    def kept(self, kind: ArtifactKind) -> list[Manifest]:
        """What the stage has made of a kind, newest first."""
        prefix = self._spec(self.stage_id, {}, epoch=1).output_prefix
        found = [m for _, m in list_manifests(self.store, prefix) if m.kind is kind]
        return sorted(found, key=lambda m: (m.step or 0, m.epoch), reverse=True)

    def digests(self, manifest: Manifest | None = None) -> dict[str, str]:
        """{file: digest} of a checkpoint, the newest by default."""
        return {entry.path: entry.digest for entry in (manifest or self.checkpoints()[0]).files}

    def weights(self, manifest: Manifest | None = None, *, file: str = "model.safetensors") -> dict[str, np.ndarray]:
        """Whole, whoever has saved which part."""
        manifest = manifest or self.checkpoints()[0]
        files = {entry.path: self.blob(manifest, entry.path) for entry in manifest.files}
        return {name: tensor.numpy() for name, tensor in read_tensors(files, file.partition(".")[0]).items()}

    def blob(self, manifest: Manifest, file: str) -> Path:
        entry = next(e for e in manifest.files if e.path == file)
        prefix = f"projects/default/runs/{manifest.run_id}/{manifest.stage_id}/"
        return Path(self.store_config.root) / blob_key(prefix, entry.digest)

    def _spec(self, stage_id: str, config: dict[str, Any], *, epoch: int) -> StageSpec:
        return StageSpec(
            project_id="default",
            run_id=self.run_id,
            stage_id=stage_id,
            attempt_id=f"{self.run_id}-{stage_id}-{epoch}",
            epoch=epoch,
            kind=stage_id,  # type: ignore[arg-type]
            config=config,
            store=self.store_config,
            output_prefix=f"projects/default/runs/{self.run_id}/{stage_id}/",
        )
