"""Models of others that training may start from, by the name that a recipe gives them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.servers.smollm2 import weights_path
from abruzzi_jobs.checkpoint.state import STATE_FILE
from abruzzi_jobs.checkpoint.tensor_file import WEIGHTS_FILE
from abruzzi_jobs.data.shards import PAD
from abruzzi_jobs.data.tokenizer import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from abruzzi_jobs.export.gguf import GgufModel, import_gguf
from abruzzi_jobs.models import Llama

SMOLLM2 = "smollm2"
BASES = (SMOLLM2,)


def read_base(name: str) -> GgufModel:
    """Raises AbruzziError: `bad_data` for a name that is none, `no_teacher` where its package is missing."""
    if name != SMOLLM2:
        raise AbruzziError("bad_data", f"No base is called {name!r}.", hint=f"There is {', '.join(BASES)}.")
    return import_gguf(weights_path())


def build_model(base: GgufModel) -> Llama:
    """In float32, ready to be trained."""
    model = Llama(base.config, device="meta").to_empty(device="cpu")
    model.load_state_dict(base.state)
    return model


def write_base(base: GgufModel, checkpoint: Path, tokenizer: Path) -> None:
    """Two folders as artifacts of a training stage have them: weights and their configuration; a tokenizer with our token for padding.

    The embedding has a row more than the original for it, zeros: nothing is ever read from it.
    """
    padded = base.tokenizer.get_vocab_size() + 1
    config = replace(base.config, vocab_size=padded)
    embedding = base.state["embed_tokens.weight"]
    rows = torch.cat((embedding, embedding.new_zeros(1, embedding.shape[1])))
    save_file({**base.state, "embed_tokens.weight": rows}, checkpoint / WEIGHTS_FILE)
    state = {"base": base.name, "licence": base.licence, "config": {"model": config.to_dict()}}
    (checkpoint / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    encoder = Tokenizer.from_str(base.tokenizer.to_str())
    encoder.add_special_tokens([AddedToken(PAD, special=True, normalized=False)])
    encoder.save(str(tokenizer / TOKENIZER_FILE))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": base.beginning,
        "eos_token": base.end_of_turn,
        "pad_token": PAD,
        "model_max_length": base.config.max_position,
        "clean_up_tokenization_spaces": False,
        "chat_template": base.chat_template,
    }
    (tokenizer / TOKENIZER_CONFIG_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
