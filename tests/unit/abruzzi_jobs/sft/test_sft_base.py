"""Fine-tuning from weights of others: what comes out is a checkpoint of ours, served with its template and exported as a Llama."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from base_lab import small_base
from tuning_lab import TuningLab, chat

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import SftStage
from abruzzi.contracts.toml import load_recipe, parse_recipe
from abruzzi.plan import plan_recipe
from abruzzi.store import list_manifests
from abruzzi_jobs.entrypoints import sft
from abruzzi_jobs.export.command import export_checkpoint
from abruzzi_jobs.models import Llama
from abruzzi_jobs.serve.asked import read_asked
from abruzzi_jobs.serve.engine import Engine
from abruzzi_jobs.sft import tuning

RECIPE = """\
version = 1
name = "own-words"
[[stage]]
id = "sft"
kind = "sft"
base = "smollm2"
[stage.data]
sources = ["./chats/*.jsonl"]
[stage.batch]
sequences = 4
sequence_length = 512
"""


def test_a_recipe_with_a_base_needs_no_checkpoint() -> None:
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe.stage[0], SftStage)
    assert recipe.stage[0].base == "smollm2"
    assert plan_recipe(recipe)["stages"][0]["id"] == "sft"
    without, found = parse_recipe(RECIPE.replace('base = "smollm2"\n', ""))
    assert without is None
    assert "no checkpoint" in str(found[0])


def test_it_is_trained_served_and_exported(lab: TuningLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tuning, "read_base", lambda name: small_base(max_position=512))
    chats = lab.chats(chat(number) for number in range(20))
    spec = lab.tuning({"base": "smollm2", "data": {"sources": [chats]}, "batch": {"sequence_length": 511}})
    spec = spec.model_copy(update={"inputs": {}})
    folder = tmp_path / "attempt"
    folder.mkdir()
    (folder / "spec.json").write_text(spec.model_dump_json())
    context = StageContext(spec, 0, 1, folder, lab.store)
    with Reporter.from_context(context) as reporter:
        sft.run(context, reporter)
    made = {name: _files(lab, name, tmp_path / name) for name in ("checkpoint", "tokenizer")}
    engine = Engine.load(made["checkpoint"], made["tokenizer"])
    assert isinstance(engine.model, Llama)
    assert engine.template is not None
    asked = {"messages": [{"role": "user", "content": "Weather?"}], "max_tokens": 4, "temperature": 0}
    assert engine.answer(read_asked(asked, has_template=True)).completion_tokens >= 1
    export_checkpoint(made["checkpoint"], tmp_path / "out", made["tokenizer"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"


def _files(lab: TuningLab, name: str, folder: Path) -> Path:
    """Of the stage's newest output of that name."""
    named = (m for _, m in list_manifests(lab.store, lab.tuning().output_prefix) if m.name == name)
    manifest = lab.checkpoints()[0] if name == "checkpoint" else next(named)
    folder.mkdir()
    for entry in manifest.files:
        (folder / entry.path).write_bytes(lab.blob(manifest, entry.path).read_bytes())
    return folder
