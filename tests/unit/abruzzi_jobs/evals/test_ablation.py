"""The rephrasing ablation: its recipe is fair by construction, and a minute one runs from the corpus to the picture."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from recipe_lab import RecipeLab

from abruzzi.contracts.graph import bind_inputs
from abruzzi.contracts.recipe import PretrainStage, Recipe, TokenizeStage
from abruzzi.contracts.toml import load_recipe
from abruzzi_jobs.data.cloze import read_items
from abruzzi_jobs.data.shards import read_info
from abruzzi_jobs.data.text_shards import read_split

RECIPES = Path(__file__).parents[4] / "recipes" / "studies"
ARMS = ("raw", "one", "ten")
MINUTE = [
    "--seeds", "2", "--tokens", "3k", "--early-tokens", "3k", "--early-rewrites", "1", "--max-bytes", "6KB", "--vocab-size", "400",
    "--model-table", '{ preset = "nano", vocab_size = 400 }',
]  # fmt: skip


def made_by_script(words: list[str]) -> str:
    script: dict[str, Any] = runpy.run_path(str(RECIPES / "rephrasing.py"))
    return script["recipe"](script["parse"](words))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe((RECIPES / "rephrasing.toml").read_text(encoding="utf-8"))


def test_the_recipe_is_what_its_script_writes(recipe: Recipe) -> None:
    assert (RECIPES / "rephrasing.toml").read_text(encoding="utf-8") == made_by_script([])
    assert len(recipe.stage) <= 64


def test_arms_differ_in_their_text_alone(recipe: Recipe) -> None:
    trained = [s for s in recipe.stage if isinstance(s, PretrainStage) and s.id != "early"]
    assert [s.id for s in trained] == [f"{arm}-{seed}" for arm in ARMS for seed in range(3)]
    settings = [s.model_dump(exclude={"id", "needs", "seed"}) for s in trained]
    assert settings == [settings[0]] * 9, "equal tokens, model, optimizer and batch"
    assert [s.seed for s in trained] == [0, 1, 2] * 3
    bound = {s.id: {n: f"{b.stage_id}.{b.output}" for n, b in bind_inputs(recipe, s).items()} for s in recipe.stage}
    for arm in ARMS:
        text = "corpus" if arm == "raw" else f"rephrase-{arm}"
        assert bound[f"tokens-{arm}"] == {"corpus": f"{text}.corpus", "tokenizer": "tokens-early.tokenizer"}
        for seed in range(3):
            stage = f"{arm}-{seed}"
            assert bound[stage] == {"dataset": f"tokens-{arm}.dataset", "checkpoint": "early.checkpoint"}
            assert bound[f"ask-{stage}"]["checkpoint"] == f"{stage}.checkpoint"
            assert bound[f"ask-{stage}"]["corpus"] == "corpus.corpus", "the same questions for all"
    assert bound["early"] == {"dataset": "tokens-early.dataset"}
    assert bound["tokens-early"] == {"corpus": "early-rephrase.corpus"}
    assert len({s.tokenizer.vocab_size for s in recipe.stage if isinstance(s, TokenizeStage)}) == 1


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> RecipeLab:
    package = "abruzzi_jobs.evals.comparison"
    small = load_recipe(made_by_script(MINUTE))
    lab = RecipeLab(tmp_path_factory.mktemp("run"), small, {package: f"{package}.__main__"})
    lab.run()
    return lab


def test_a_minute_ablation_ends_with_a_table_and_a_picture(ran: RecipeLab) -> None:
    files = ran.folder("compare", "files")
    comparison = json.loads((files / "comparison.json").read_text(encoding="utf-8"))
    assert list(comparison["arms"]) == list(ARMS)
    assert [len(arm["chosen"]["seeds"]) for arm in comparison["arms"].values()] == [2, 2, 2]
    assert [arm["reference"] for arm in comparison["arms"].values()] == [23.76, 27.39, 28.94]
    assert comparison["arms"]["ten"]["rephrase"]["teacher"] == "standin"
    assert comparison["arms"]["raw"]["rephrase"] is None
    tokens = {json.loads((ran.folder(f"ask-{a}-{s}", "report") / "report.json").read_text())["tokens"] for a in ARMS for s in range(2)}  # fmt: skip
    assert tokens == {comparison["tokens"]}
    for arm in ARMS:
        held = read_info(ran.folder(f"tokens-{arm}", "dataset")).tokens("train")
        assert comparison["arms"][arm]["epochs"] == pytest.approx(comparison["tokens"] / held, abs=0.01)
    assert "STAND-IN" in (files / "comparison.md").read_text(encoding="utf-8")
    assert (files / "comparison.svg").read_text(encoding="utf-8").startswith("<svg")
    meta = ran.made["compare", "files"][1].meta
    assert set(meta) == {"comparison", *(f"{a}/{m}" for a in ARMS for m in ("chosen", "answered"))}
    assert [claim["verdict"] for claim in comparison["claims"]], "the paper's claims, whatever a minute says of them"


def test_questions_stand_in_no_training_text_and_their_facts_in_every_arms(ran: RecipeLab) -> None:
    items = read_items(ran.folder("corpus", "corpus") / "cloze.jsonl")
    assert len(items) > 40
    for arm in ARMS:
        texts = [
            r.text for r in read_split(ran.folder("corpus" if arm == "raw" else f"rephrase-{arm}", "corpus"), "train")
        ]
        everything = "\n".join(texts)
        assert not [i.id for i in items if i.prompt in everything or i.prompt.partition("? ")[0] in everything]
        missing = [i.id for i in items if not any(i.id.partition("/")[2] in t and i.answer.strip() in t for t in texts)]
        assert not missing
    early = "\n".join(r.text for r in read_split(ran.folder("early-rephrase", "corpus"), "train"))
    assert not [i.id for i in items if i.prompt in early]


def test_all_arms_go_on_from_the_early_checkpoint_with_its_tokenizer(ran: RecipeLab) -> None:
    early = ran.made["early", "checkpoint"][1].digest()
    tokenizers = {(ran.folder(f"tokens-{a}", "tokenizer") / "tokenizer.json").read_bytes() for a in (*ARMS, "early")}
    assert len(tokenizers) == 1
    for arm in ARMS:
        assert early in ran.made[f"{arm}-0", "checkpoint"][1].parents
        assert ran.made[f"{arm}-0", "checkpoint"][1].digest() != ran.made[f"{arm}-1", "checkpoint"][1].digest()
