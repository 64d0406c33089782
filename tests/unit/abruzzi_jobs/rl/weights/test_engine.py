"""The checkpoint engine with the real embedded engine: new weights are the trainer's, and an engine generates on while another one is replaced."""

import pytest
from weights_lab import SECONDS, meeting_place

from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.weights.group import Group, WeightUpdateFailed
from abruzzi_jobs.rl.weights.late import PullServer, pull
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.rl.weights.transport import InProcess
from abruzzi_jobs.rl.weights.worker import CheckpointWorker

CONFIG = ModelConfig(
    vocab_size=96, hidden_size=32, num_layers=2, num_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4,
    v_head_dim=8, intermediate_size=64, moe_intermediate_size=16, num_experts=4, num_experts_per_token=2, max_position=256,
)  # fmt: skip
SEQUENCES = [[1, 2, 3, 4, 5], [9, 8, 7]]


def engine_of(seed, version=0):
    return TorchEngine(KimiK2(CONFIG, seed=seed), version=version)


def scores(engine):
    return engine.logprobs(SEQUENCES, temperature=1.0)


@pytest.mark.parametrize("bucket_bytes", [1024, 1 << 20])
def test_the_engine_computes_as_the_trainer_after_an_update(bucket_bytes):
    engine, trainer = engine_of(1), KimiK2(CONFIG, seed=2)
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=engine, bucket_bytes=bucket_bytes)
    worker.register(1, trainer.state_dict(), copy=False)
    engine.pause("abort")
    worker.update()
    engine.resume()
    assert engine.version == 1
    assert scores(engine) == scores(engine_of(2))


def test_weights_that_are_not_whole_are_refused_and_the_engine_computes_as_before():
    engine = engine_of(1)
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=engine)
    tensors = KimiK2(CONFIG, seed=2).state_dict()
    tensors.popitem()
    worker.register(1, tensors)
    engine.pause("abort")
    with pytest.raises(WeightUpdateFailed, match="have not come whole"):
        worker.update()
    engine.resume()
    assert engine.version == 0
    assert scores(engine) == scores(engine_of(1))


def test_an_engine_generates_on_while_a_replaced_one_pulls_the_weights():
    """A step between any two loads of the newcomer: its tokens are those of an engine that is alone."""

    def tokens_of(engine, more=lambda: None):
        engine.submit(
            Request(id="r", tokens=(1, 2, 3), max_tokens=60, temperature=1.0, seed=5, stop_tokens=frozenset())
        )
        more()
        while True:
            for ended in engine.step():
                return ended.segment.tokens, ended.segment.policy_version

    class Newcomer(TorchEngine):
        def load_bucket(self, tensors):
            assert serving.step() == []
            steps.append(serving.version)
            super().load_bucket(tensors)

    steps = []
    trainer = KimiK2(CONFIG, seed=2)
    serving, newcomer = engine_of(2, version=4), Newcomer(KimiK2(CONFIG, seed=1))
    registered = Registered(4, trainer.state_dict(), copy=True)
    newcomer.pause("abort")

    def replace():
        with meeting_place(1) as (address,), PullServer(address, lambda: registered, deadline_seconds=SECONDS):
            pull([address], newcomer, bucket_bytes=8192, deadline_seconds=SECONDS)

    assert tokens_of(serving, replace) == tokens_of(engine_of(2, version=4))
    assert len(steps) > 3
    assert set(steps) == {4}
    assert (newcomer.version, scores(newcomer)) == (4, scores(serving))
