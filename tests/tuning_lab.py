"""An sft stage without the platform: a small checkpoint with fresh weights, a tokenizer, conversations in files and artifacts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from training_lab import Lab, merged

from abruzzi.contracts.artifact import ArtifactRef
from abruzzi.contracts.recipe import SftStage, TokenizerConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.training import ModelConfig as ModelTable
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.data.text_shards import TextRecord, TextShardWriter
from abruzzi_jobs.data.tokenizer import train_tokenizer
from abruzzi_jobs.models import KimiK2, ModelConfig

VOCABULARY = 300
TUNING: dict[str, Any] = {
    "id": "sft",
    "kind": "sft",
    "data": {"held_out_fraction": 0.1, "decontamination": {"against": ["humaneval"]}},
    "schedule": {"epochs": 2.0, "warmup_steps": 2},
    "batch": {"sequences": 4, "sequence_length": 255, "micro_sequences": 2},
    "checkpoint": {"every_steps": 4, "every": None, "min_free_bytes": 0},
    "telemetry": {"spectral_every_steps": 0, "held_out_every_steps": 8, "held_out_sequences": 2},
    "resources": {"threads": 1},
}
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a town.",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


def chat(number: int) -> dict[str, Any]:
    """One question, one call, its result, one answer."""
    town = f"{('Chamonix', 'Zermatt', 'Skardu', 'Lukla')[number % 4]} {number}"
    call = {
        "id": f"call-{number}",
        "type": "function",
        "function": {"name": "get_weather", "arguments": {"town": town}},
    }
    return {
        "messages": [
            {"role": "user", "content": f"Weather in {town}?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call-{number}", "content": f"snow, {number} cm"},
            {"role": "assistant", "content": f"It snows in {town}."},
        ],
        "tools": [WEATHER],
    }


def small_tokenizer(folder: Path) -> Tokenizer:
    """Trained on a few sentences; both files in `folder`."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    writer = TextShardWriter(corpus, "train")
    for number in range(40):
        text = json.dumps(chat(number)["messages"])
        writer.write(TextRecord(id=str(number), text=text, source="lab", domain="own"))
    shards = writer.close()
    size = sum(shard["text_bytes"] for shard in shards)
    (corpus / "corpus.json").write_text(json.dumps({"shards": shards, "train_bytes": size}))
    made = folder / "tokenizer"
    made.mkdir()
    return train_tokenizer(corpus, TokenizerConfig(vocab_size=VOCABULARY), out=made)


class TuningLab(Lab):
    stage_id = "sft"

    def __init__(self, root: Path, *, made: Path) -> None:
        """`made`: a folder with `checkpoint` and `tokenizer`, as `make_inputs` leaves it."""
        super().__init__(root, dataset=made / "dataset")
        maker = self._spec("pretrain", {}, epoch=1)
        self.inputs = {
            "checkpoint": self.committed(maker, ArtifactKind.CHECKPOINT, "step-00000001", made / "checkpoint"),
            "tokenizer": self.committed(maker, ArtifactKind.TOKENIZER, "tokenizer", made / "tokenizer"),
        }

    def tuning(
        self, changes: dict[str, Any] | None = None, *, epoch: int = 1, inputs: Mapping[str, ArtifactRef] | None = None
    ) -> StageSpec:
        """The spec of attempt `epoch`, resuming from what the platform would pick."""
        stage = SftStage.model_validate(merged(TUNING, changes or {}))
        spec = self._spec("sft", stage.model_dump(mode="json"), epoch=epoch)
        update = {"inputs": {**self.inputs, **(inputs or {})}, "world_size": stage.resources.ranks}
        return self.resuming(spec.model_copy(update=update))

    def chats(self, rows: Iterable[Mapping[str, Any]], *, name: str = "chats.jsonl") -> str:
        """Path of a file with these lines."""
        path = self.root / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def made(self, noun: str, rows: Iterable[Mapping[str, Any]]) -> ArtifactRef:
        """An artifact with rows of a noun."""
        folder = self.root / f"made-{noun}"
        folder.mkdir()
        writer = RowShardWriter(folder, noun)
        for row in rows:
            writer.write(row)
        writer.close()
        return self.committed(self._spec("container", {}, epoch=1), ArtifactKind(noun), noun, folder)


def make_inputs(folder: Path, *, room: int = 0) -> Path:
    """Once for many labs: fresh weights (with `room` for more tokens), their tokenizer, and an empty dataset folder, which a lab wants."""
    small_tokenizer(folder)
    table = ModelTable.model_validate(
        {"preset": "nano", "vocab_size": VOCABULARY + room, "max_position": 512}
    ).model_dump()
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    save_file(KimiK2(ModelConfig.from_dict(table), seed=0).state_dict(), checkpoint / "model.safetensors")
    (checkpoint / "state.json").write_text(json.dumps({"config": {"model": table}}))
    (folder / "dataset").mkdir()
    (folder / "dataset" / "dataset.json").write_text("{}")
    return folder
