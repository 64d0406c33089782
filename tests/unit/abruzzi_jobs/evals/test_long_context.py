"""recipes/long-context.toml from its texts to its two heat maps, shortened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_lab import RecipeLab

from abruzzi.contracts.toml import load_recipe
from abruzzi_jobs.data import needles
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.evals.suites.needle import heat_map

RECIPE = Path(__file__).parents[4] / "recipes" / "long-context.toml"
LENGTHS = [40, 200]
SHORT = {
    "stage.corpus.data.sources": ["needles"],
    "stage.tokenize.tokenizer.vocab_size": 600,
    "stage.pretrain.schedule.tokens": 8192,
    "stage.pretrain.schedule.anneal": [
        {"tokens": 4096, "end_lr_ratio": 0.08},
        {"tokens": 4096, "end_lr_ratio": 0.035, "sequence_length": 1024, "sequences": 2},
    ],
    "stage.needle.suites.needle.options": {"lengths": LENGTHS, "items": 1},
    "stage.needle-yarn.suites.needle.options": {"lengths": LENGTHS, "items": 1},
}


@pytest.mark.slow
def test_the_recipe_plays_to_its_end_and_each_cell_of_both_maps_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needles, "_DOCUMENTS", 200)
    recipe = load_recipe(RECIPE.read_text(), SHORT)
    lab = RecipeLab(tmp_path, recipe, {})
    lab.run()

    state = json.loads((lab.folder("pretrain", "checkpoint") / "state.json").read_text())
    assert (state["step"], state["tokens"], state["phase"]) == (5, 16384, "anneal-2")
    told = [lab.made[stage, "report"][1].meta["target"] for stage in ("needle", "needle-yarn")]
    assert [(one["trained_length"], one["trained_yarn"], one.get("yarn")) for one in told] == [
        (1024, None, None), (1024, None, "4x1024"),
    ]  # fmt: skip
    for stage in ("needle", "needle-yarn"):
        folder = lab.folder(stage, "report")
        found = heat_map(read_rows(folder, "answers"))
        assert (found["words"], found["depths"], found["texts_a_cell"]) == (LENGTHS, [0, 25, 50, 75, 100], 1)
        assert found["tokens"][0] > 40
        assert all(share is not None for line in found["right"] for share in line)
