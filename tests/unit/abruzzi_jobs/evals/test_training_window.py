"""The window of an evaluation is what the checkpoint was trained on, phase by phase."""

from __future__ import annotations

import pytest

from abruzzi_jobs.evals.checkpoint_model import training_window
from abruzzi_jobs.models import LlamaConfig

MODEL = LlamaConfig(
    vocab_size=8,
    hidden_size=8,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=8,
    intermediate_size=8,
    max_position=512,
)
ANNEAL = [{"tokens": 1}, {"tokens": 1, "sequence_length": 256}, {"tokens": 1, "sequence_length": 4096}]


@pytest.mark.parametrize(
    ("phase", "window"), [("train", 64), ("anneal-1", 64), ("anneal-2", 256), ("anneal-3", 512), ("", 64)]
)
def test_a_checkpoint_is_scored_in_the_longest_sequences_that_it_has_seen(phase: str, window: int) -> None:
    state = {"phase": phase, "config": {"batch": {"sequence_length": 64}, "schedule": {"anneal": ANNEAL}}}
    assert training_window(state, MODEL) == window


def test_where_the_state_names_none_it_is_the_models_own() -> None:
    assert training_window({"config": {"model": {}}}, MODEL) == 512
