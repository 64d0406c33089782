"""Models of others that training may start from, by the name that a recipe gives them."""

from __future__ import annotations

import json
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.servers.smollm2 import weights_path
from abruzzi_jobs.data.shards import END_OF_TEXT
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


def write_tokenizer(base: GgufModel, folder: Path) -> None:
    """As an artifact of kind tokenizer has it; its settings carry the chat template and what ends a turn."""
    base.tokenizer.save(str(folder / TOKENIZER_FILE))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": base.beginning,
        "eos_token": base.end_of_turn,
        "pad_token": base.end_of_turn,
        "unk_token": END_OF_TEXT,
        "model_max_length": base.config.max_position,
        "clean_up_tokenization_spaces": False,
        "chat_template": base.chat_template,
    }
    (folder / TOKENIZER_CONFIG_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
