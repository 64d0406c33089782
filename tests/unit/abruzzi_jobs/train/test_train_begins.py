"""Stages that go on from what another has made: weights to begin with, a tokenizer to encode with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recipe_lab import RecipeLab
from safetensors.torch import save_file

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.toml import load_recipe
from abruzzi.contracts.training import MODEL_PRESETS
from abruzzi_jobs.checkpoint import load_weights
from abruzzi_jobs.models import KimiK2, ModelConfig

TWO_TOKENIZERS = """\
version = 1
name = "two"
[[stage]]
id = "corpus"
kind = "corpus"
data = { sources = ["fact-sheets"], max_bytes = "3KB" }
[[stage]]
id = "first"
kind = "tokenize"
needs = ["corpus"]
tokenizer = { vocab_size = 400 }
[[stage]]
id = "second"
kind = "tokenize"
needs = ["corpus", "first"]
tokenizer = { vocab_size = 300 }
"""


def written(folder: Path, model: KimiK2) -> Path:
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def test_training_begins_with_the_weights_that_it_is_given(tmp_path: Path) -> None:
    config = ModelConfig.from_dict(MODEL_PRESETS["nano"])
    early, model = KimiK2(config, seed=1), KimiK2(config, seed=2)
    load_weights(written(tmp_path, early), model, name="step-00000009 of stage 'early'")
    assert all(torch.equal(a, b) for a, b in zip(early.parameters(), model.parameters(), strict=True))


def test_weights_of_another_model_are_refused_with_the_stage_that_made_them(tmp_path: Path) -> None:
    early = KimiK2(ModelConfig.from_dict(MODEL_PRESETS["nano"]))
    other = KimiK2(ModelConfig.from_dict({**MODEL_PRESETS["nano"], "hidden_size": 32}))
    with pytest.raises(AbruzziError, match="of stage 'early' does not fit") as refused:
        load_weights(written(tmp_path, early), other, name="step-00000009 of stage 'early'")
    assert refused.value.code == "bad_data"


def test_a_given_tokenizer_that_is_larger_than_the_recipe_says_is_refused(tmp_path: Path) -> None:
    lab = RecipeLab(tmp_path, load_recipe(TWO_TOKENIZERS), {})
    with pytest.raises(AbruzziError, match=r"has 400 tokens, more than 300"):
        lab.run()
    assert ("first", "dataset") in lab.made
