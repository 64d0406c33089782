"""A base from elsewhere as artifacts of ours: loaded, served and exported like any checkpoint. The weights here are small and random, the format is SmolLM2's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from base_lab import TURNS, small_base

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.evals.checkpoint_model import load_model
from abruzzi_jobs.export import import_huggingface
from abruzzi_jobs.export.bases import build_model, read_base, write_base
from abruzzi_jobs.export.command import export_checkpoint
from abruzzi_jobs.export.gguf import GgufModel
from abruzzi_jobs.serve.asked import read_asked
from abruzzi_jobs.serve.engine import Engine


@pytest.fixture
def base() -> GgufModel:
    return small_base()


@pytest.fixture
def folders(base: GgufModel, tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "checkpoint", tmp_path / "tokenizer"
    for folder in made:
        folder.mkdir()
    write_base(base, *made)
    return made


def test_the_checkpoint_is_the_same_model_with_a_row_for_padding(base: GgufModel, folders: tuple[Path, Path]) -> None:
    model, state = load_model(folders[0])
    original = build_model(base)
    tokens = torch.tensor([[5, 9, 17, 40, 3]])
    assert model.config.vocab_size == base.config.vocab_size + 1
    torch.testing.assert_close(model.logits(tokens)[..., :-1], original.logits(tokens))
    assert (state["base"], state["licence"]) == ("small", "apache-2.0")


def test_it_is_served_and_its_chat_template_goes_along(folders: tuple[Path, Path]) -> None:
    engine = Engine.load(*folders)
    asked = read_asked({"messages": [{"role": "user", "content": "the sea"}], "max_tokens": 4, "temperature": 0})
    assert engine.answer(asked).completion_tokens in range(1, 5)
    assert json.loads((folders[1] / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"


def test_it_is_exported_with_its_own_special_tokens(
    base: GgufModel, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    export_checkpoint(folders[0], tmp_path / "out", folders[1])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    numbers = [base.tokenizer.token_to_id(TURNS[i]) for i in (1, 2)]
    assert [config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]] == [
        *numbers,
        base.config.vocab_size,
    ]
    _, state = import_huggingface(tmp_path / "out")
    assert all(torch.equal(state[name], tensor) for name, tensor in base.state.items() if "embed" not in name)


def test_another_name_is_refused() -> None:
    with pytest.raises(AbruzziError, match="No base is called 'gpt'"):
        read_base("gpt")
