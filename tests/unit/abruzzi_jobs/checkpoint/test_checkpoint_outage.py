"""The object store goes away in the middle of a save: the save waits for it, and when it stays away the stage asks to be tried again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import pytest
import torch
from s3_server import S3Server

from abruzzi.client.stage import StageContext, exit_code_of
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import AttemptState, Cause, ExitCode, StageKind
from abruzzi.contracts.training import CheckpointConfig
from abruzzi.engine.classify import classify
from abruzzi.engine.policy import RULES
from abruzzi.engine.view import AttemptView, Phase, Seen
from abruzzi.store import list_manifests, verify_manifest
from abruzzi.store.s3 import S3Store
from abruzzi_jobs.checkpoint import Checkpointer, TrainingState
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import MuonClip, OptimizerConfig, build_optimizer

pytestmark = pytest.mark.s3

PREFIX = "projects/default/runs/abcdefghjk/pretrain/"
SMALL = ModelConfig(
    vocab_size=64, hidden_size=32, num_layers=2, num_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8,
    qk_rope_head_dim=8, v_head_dim=8, intermediate_size=64, moe_intermediate_size=16, num_experts=4, num_experts_per_token=2,
)  # fmt: skip


class Failing(S3Store):
    """A real store whose server goes away at a chosen write, for good or until that write has failed."""

    server: S3Server
    breaks_at = 0
    comes_back = True
    failures = 0

    def __init__(self, config: S3Config) -> None:
        super().__init__(config)
        self._turn = Lock()
        """A rank's files are written at once."""
        self._is_away = False

    def put(self, key: str, content: bytes | Path) -> None:
        with self._turn:
            self.breaks_at -= 1
            if self.breaks_at == 0:
                self.server.stop()
                self._is_away = True
        try:
            super().put(key, content)
        except AbruzziError:
            with self._turn:
                self.failures += 1
                if self.comes_back and self._is_away:
                    self.server.start()
                    self._is_away = False
            raise


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server(real=True) as server:
        yield server


@pytest.fixture
def store(server: S3Server) -> Iterator[Failing]:
    store = Failing(server.new_bucket())
    store.server = server
    yield store
    server.stop()
    server.start()


@pytest.fixture
def context(store: Failing, server: S3Server, tmp_path: Path) -> StageContext:
    spec = StageSpec(
        project_id="default", run_id="abcdefghjk", stage_id="pretrain", attempt_id="abcdefghjk-pretrain-1", epoch=1,
        kind=StageKind.PRETRAIN, config={}, store={"kind": "s3", "endpoint": server.endpoint, "bucket": store.bucket},  # type: ignore[arg-type]
        output_prefix=PREFIX,
    )  # fmt: skip
    return StageContext(spec, 0, 1, tmp_path, store)


def trained() -> tuple[KimiK2, MuonClip]:
    model = KimiK2(SMALL, seed=0)
    return model, build_optimizer(model.named_parameters(), OptimizerConfig(), model=SMALL)


def at(step: int) -> TrainingState:
    return TrainingState(step=step, tokens=step, phase="train", lr_scale=1.0, loader={}, divergence={}, config={})


def checkpointer(context: StageContext) -> Checkpointer:
    return Checkpointer(context, CheckpointConfig(min_free_bytes=0), pause_seconds=0.01)


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_server_that_restarts_during_a_save_costs_nothing(context: StageContext, store: Failing, write: int) -> None:
    model, optimizer = trained()
    saving = checkpointer(context)
    saving.begin(model, optimizer, resumed_step=None)
    store.breaks_at = write
    saving.save(model, optimizer, at(10))
    saving.finish()
    assert store.failures >= 1  # of the writes that were under way
    ((_, manifest),) = list_manifests(store, PREFIX)
    assert manifest.step == 10
    verify_manifest(store, manifest, PREFIX)
    (report,) = saving.take_reports()
    assert report.step == 10


def test_a_server_that_stays_away_makes_the_stage_ask_to_be_tried_again_free_of_charge(
    context: StageContext, store: Failing
) -> None:
    model, optimizer = trained()
    saving = checkpointer(context)
    saving.begin(model, optimizer, resumed_step=None)
    store.breaks_at, store.comes_back = 2, False
    saving.save(model, optimizer, at(10))
    with torch.no_grad():
        model.embed_tokens.weight.add_(1)  # training goes on meanwhile
    with pytest.raises(AbruzziError) as away:
        saving.finish()
    assert away.value.status == 503
    code = exit_code_of(away.value)
    assert code == ExitCode.TRY_AGAIN
    attempt = AttemptView(id="a", number=1, epoch=1, state=AttemptState.RUNNING, created_at=0.0)
    outcome = classify(attempt, Seen(Phase.EXITED, exit_code=code))
    assert outcome.cause is Cause.INFRASTRUCTURE
    assert RULES[outcome.cause].free
    store.server.start()
    assert list(list_manifests(store, PREFIX)) == []
