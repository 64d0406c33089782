"""The data stages as the platform runs them: a spec in, committed artifacts out, in a directory store."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.artifact import ArtifactRef, Manifest
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import CorpusStage, EvaluateStage, TokenizeStage
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.training import MODEL_PRESETS
from abruzzi.store import open_store
from abruzzi_jobs.data.tokens import TokenDataset
from abruzzi_jobs.entrypoints import corpus, evaluate, tokenize
from abruzzi_jobs.entrypoints.progress import StageProgress
from abruzzi_jobs.models import KimiK2, ModelConfig

SOURCES = ("mendeleev", "python-docs")


class Runner:
    """One run's stages, one after the other, with a reporter that has no API to talk to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outputs: dict[str, ArtifactRef] = {}
        self.manifests: dict[str, Manifest] = {}

    def context(self, stage_id: str, config: Any, inputs: tuple[str, ...]) -> StageContext:
        store = DirectoryStore(root=str(self.root / "store"))
        spec = StageSpec(
            project_id="default",
            run_id="0123456789",
            stage_id=stage_id,
            attempt_id=f"0123456789-{stage_id}-1",
            epoch=1,
            kind=config.kind,
            config=config.model_dump(mode="json"),
            inputs={name: self.outputs[name] for name in inputs},
            store=store,
            output_prefix=f"projects/default/runs/0123456789/{stage_id}/",
        )
        attempt = self.root / f"attempt-{stage_id}"
        attempt.mkdir(parents=True, exist_ok=True)
        context = StageContext(spec, 0, 1, attempt, open_store(store))
        context.on_commit.append(self._keep)
        return context

    def run(self, module: Any, context: StageContext) -> None:
        with Reporter.from_context(context) as reporter:
            module.run(context, reporter)

    def _keep(self, key: str, manifest: Manifest) -> None:
        self.outputs[manifest.kind.value] = ArtifactRef(kind=manifest.kind, manifest_key=key, digest=manifest.digest())
        self.manifests[manifest.kind.value] = manifest


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """corpus, tokenize, a checkpoint of an untrained model, evaluate."""
    torch.set_num_threads(1)
    runner = Runner(tmp_path_factory.mktemp("run"))
    stage: Any = CorpusStage.model_validate(
        {"id": "corpus", "kind": "corpus", "data": {"sources": SOURCES, "held_out_fraction": 0.1}}
    )
    runner.run(corpus, runner.context("corpus", stage, ()))
    stage = TokenizeStage.model_validate({"id": "tokenize", "kind": "tokenize", "tokenizer": {"vocab_size": 512}})
    runner.run(tokenize, runner.context("tokenize", stage, ("corpus",)))
    context = runner.context("pretrain", stage, ())
    model = KimiK2(ModelConfig.from_dict(MODEL_PRESETS["nano"]), seed=0)
    save_file(model.state_dict(), context.scratch / "model.safetensors")
    state = {"step": 3, "tokens": 30, "config": {"model": model.config.to_dict(), "batch": {"sequence_length": 64}}}
    (context.scratch / "state.json").write_text(json.dumps(state))
    files = {name: context.scratch / name for name in ("model.safetensors", "state.json")}
    context.commit(ArtifactKind.CHECKPOINT, "step-00000003", files, step=3)
    settings = {"max_bytes": 2000, "cloze_items": 12, "sample_tokens": 4, "ngram_baseline": 2}
    stage = EvaluateStage.model_validate({"id": "evaluate", "kind": "evaluate", "evaluation": settings})
    runner.run(evaluate, runner.context("evaluate", stage, ("checkpoint", "tokenizer", "corpus")))
    return runner


def test_each_stage_commits_its_outputs_with_their_facts(runner: Runner) -> None:
    corpus_meta = runner.manifests["corpus"].meta
    assert corpus_meta["licences"]["mendeleev"] == "MIT"
    assert corpus_meta["train_bytes"] > 100_000
    assert runner.manifests["dataset"].meta["vocab_size"] == 512
    assert {f.path for f in runner.manifests["tokenizer"].files} == {"tokenizer.json", "tokenizer_config.json"}
    report = runner.manifests["report"].meta
    assert {"bits_per_byte", "ngram_bits_per_byte", "cloze_accuracy", "bits_per_byte/web"} <= set(report)
    # An untrained model spreads evenly over 512 tokens.
    assert 3 < report["bits_per_byte"] < 9 / 1.5
    assert {f.path for f in runner.manifests["report"].files} == {"report.json", "report.md"}


def test_the_dataset_artifact_feeds_the_reader(runner: Runner) -> None:
    context = runner.context("reader", TokenizeStage(id="reader", kind="tokenize"), ("dataset",))
    data = TokenDataset(context.input("dataset").folder, sequence_length=64)
    assert data.next_batch(4).tokens_BL.shape == (4, 65)


def test_heartbeats_tell_phase_share_and_message(runner: Runner) -> None:
    for stage, phase in (("corpus", "corpus"), ("tokenize", "tokenize"), ("evaluate", "evaluate")):
        beat = json.loads((runner.root / f"attempt-{stage}" / "rank-0" / "heartbeat.json").read_text())
        assert beat["phase"] in (phase, "commit"), "the last one, which is the commit's when that takes a moment"
        assert 0 <= (beat["progress"] or 0) <= 1
        assert beat["message"]


def test_a_curated_corpus_says_what_became_of_its_documents_and_two_indices_of_a_job_make_the_same(
    runner: Runner,
) -> None:
    tables = {
        "normalise": True,
        "quality": {},
        "near_dedup": {},
        "decontamination": {"against": ["humaneval"]},
        "mixture": {"web": 1.0},
    }
    data = {"sources": SOURCES, "held_out_fraction": 0.1, **tables}
    stage: Any = CorpusStage.model_validate(
        {"id": "curated", "kind": "corpus", "data": data, "resources": {"threads": 1}}
    )
    before = runner.outputs["corpus"], runner.manifests["corpus"]
    try:
        runner.run(corpus, runner.context("curated", stage, ()))
        single = runner.manifests.pop("corpus")
        indexed = {"framework": "indexed-job", "ranks": 2, "threads": 1}
        stage = CorpusStage.model_validate({"id": "indexed", "kind": "corpus", "data": data, "resources": indexed})
        alone = runner.context("indexed", stage, ())
        for rank in (1, 0):
            runner.run(corpus, replace(alone, rank=rank, world_size=2, attempt_dir=runner.root / f"pod-{rank}"))
            assert ("corpus" in runner.manifests) is (rank == 0), "only index 0 combines and commits"
        together = runner.manifests["corpus"]
    finally:
        runner.outputs["corpus"], runner.manifests["corpus"] = before
    meta = single.meta
    assert [(f.path, f.digest) for f in together.files] == [(f.path, f.digest) for f in single.files]
    assert together.meta == meta
    assert not [key for key in alone.store.list(alone.spec.output_prefix) if "/shards/" in key]
    assert set(meta["domains"]) == {"web"}
    assert meta["fates"]["train"] == meta["train_documents"] > 30
    assert any(reason.startswith("quality.") for reason in meta["fates"])
    beat = json.loads((runner.root / "attempt-curated" / "rank-0" / "heartbeat.json").read_text())
    assert beat["progress"] == 1.0


def test_a_bad_source_ends_the_stage_as_bad_data(runner: Runner) -> None:
    stage: Any = CorpusStage.model_validate({"id": "bad", "kind": "corpus", "data": {"sources": ["sympi"]}})
    with pytest.raises(AbruzziError, match="sympi") as error:
        runner.run(corpus, runner.context("bad", stage, ()))
    assert error.value.code == "bad_data"
    assert "'sympy'" in (error.value.hint or "")


def test_a_request_to_stop_ends_the_stage_as_preempted(runner: Runner) -> None:
    stage: Any = CorpusStage.model_validate({"id": "stopped", "kind": "corpus", "data": {"sources": ["mendeleev"]}})
    context = runner.context("stopped", stage, ())
    context.stop_requested.set()
    with pytest.raises(AbruzziError, match="Told to stop while measuring mendeleev") as stopped:
        runner.run(corpus, context)
    assert stopped.value.code == "preempted"


def test_progress_tells_seldom_and_estimates_the_time_left(runner: Runner) -> None:
    class Heard:
        def __init__(self) -> None:
            self.messages: list[str] = []

        def heartbeat(self, step: int, phase: str, *, message: str, **rest: Any) -> None:
            self.messages.append(message)

    class Context:
        stop_requested = threading.Event()

    heard, now = Heard(), [0.0]
    progress = StageProgress(Context(), heard, "corpus", clock=lambda: now[0])  # type: ignore[arg-type]
    for done in range(101):
        progress(done, 100, "reading sympy")
        now[0] += 0.125
    assert 20 < len(heard.messages) < 30
    assert "reading sympy (80%, about 2 s left)" in heard.messages  # of 12.5 s
    assert heard.messages[-1] == "reading sympy (100%)"
