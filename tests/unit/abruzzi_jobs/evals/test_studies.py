"""Studies of losses: recipes that are fair by construction, claims held against intervals, and one from its corpus to its picture in seconds.

The golden picture is written anew by `ABRUZZI_UPDATE_GOLDEN=1 .venv/bin/pytest tests/unit/abruzzi_jobs/evals/test_studies.py`.
"""

from __future__ import annotations

import json
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from recipe_lab import RecipeLab

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import ContainerStage, PretrainStage
from abruzzi.contracts.toml import load_recipe
from abruzzi.plan.flops import flops_per_token
from abruzzi.plan.parameters import count_parameters
from abruzzi_jobs.evals.comparison.__main__ import drawn, parse
from abruzzi_jobs.evals.comparison.claims import AGAINST, AGREES, PARTLY, UNKNOWN, judged, verdict
from abruzzi_jobs.evals.comparison.findings import Claim, Finding, findings
from abruzzi_jobs.evals.comparison.losses import compare_losses
from abruzzi_jobs.evals.comparison.trainings import Training, training_of

STUDIES = Path(__file__).parents[4] / "recipes" / "studies"
GOLDEN = Path(__file__).parent / "golden"
LOSSES = ("sparsity", "heads", "optimizers")
LABELS = {"few": "8 <experts>", "some": "16 experts", "many": "32 experts"}


def written(*words: str) -> str:
    script: dict[str, Any] = runpy.run_path(str(STUDIES / "losses.py"))
    return script["recipe"](script["parse"](list(words)))


def trainings(
    loss: Callable[[int, int, int], float], *, seeds: int = 3, logit: Callable[[int, int], float] | None = None
) -> list[Training]:
    """Of LABELS at three budgets; `loss` of (arm, budget, seed), each from 0."""
    return [
        Training(
            arm=key, seed=str(seed), tokens=1000 << budget, flops=1e9 * (1 << budget), optimizer_flops=2e8,
            loss=loss(arm, budget, seed), parameters=1000, active_parameters=500, max_logit=logit and logit(arm, seed),
        )
        for arm, key in enumerate(LABELS)
        for budget in range(3)
        for seed in range(seeds)
    ]  # fmt: skip


def falling(arm: int, budget: int, seed: int) -> float:
    """Each doubling of tokens divides the loss by 1.25, each arm lies a factor 1.1 below the one before; seeds shift all alike."""
    return (4.0 + 0.1 * seed) * 1.25**-budget * 1.1**-arm


def finding(*claims: Claim) -> Finding:
    return Finding(title="t", section="2.3", finding="f", conditions="c", claims=claims)


@pytest.mark.parametrize("name", LOSSES)
def test_a_recipe_is_what_its_script_writes_and_its_arms_differ_in_what_they_are_about(name: str) -> None:
    text = (STUDIES / f"{name}.toml").read_text(encoding="utf-8")
    assert text == written(name)
    recipe = load_recipe(text)
    trained = [stage for stage in recipe.stage if isinstance(stage, PretrainStage)]
    about = {
        "sparsity": {"num_experts"},
        "heads": {"num_heads"},
        "optimizers": {"kind", "peak_lr", "qk_clip_threshold"},
    }
    first = trained[0]
    for stage in trained:
        for table in ("model", "optimizer", "batch", "telemetry", "memory"):
            mine, other = (getattr(s, table).model_dump() for s in (stage, first))
            assert {key for key in mine if mine[key] != other[key]} <= about[name]
        assert stage.schedule.model_copy(update={"tokens": 1}) == first.schedule.model_copy(update={"tokens": 1})
    *_, compare = recipe.stage
    assert isinstance(compare, ContainerStage)
    arms = [key for key, _, _ in parse(list(compare.container.command[3:])).arm]
    budgets = sorted({stage.schedule.tokens for stage in trained})
    assert len(trained) == len(arms) * len(budgets) * 3
    assert sorted(stage.seed for stage in trained) == sorted([0, 1, 2] * (len(arms) * len(budgets)))
    assert {claim.of for claim in findings()[name].claims} | {claim.over for claim in findings()[name].claims} <= {
        "",
        *arms,
    }


def test_more_experts_leave_active_parameters_alone_but_for_the_router() -> None:
    recipe = load_recipe((STUDIES / "sparsity.toml").read_text(encoding="utf-8"))
    models = {s.model.num_experts: s.model for s in recipe.stage if isinstance(s, PretrainStage)}
    few, many = models[8], models[128]
    router = 120 * few.hidden_size * (few.num_layers - few.num_dense_layers)
    assert count_parameters(many).active - count_parameters(few).active == router
    assert count_parameters(many).total > 2 * count_parameters(few).total
    assert flops_per_token(many, 128) / flops_per_token(few, 128) < 1.2


def test_differences_are_taken_seed_by_seed_and_savings_between_the_budgets() -> None:
    comparison = compare_losses(LABELS, trainings(falling))
    assert comparison["budgets"] == [1000, 2000, 4000]
    (last,) = [e for e in comparison["differences"] if (e["of"], e["over"], e["tokens"]) == ("many", "few", 4000)]
    assert last["value"] == pytest.approx(100 * (1 / 1.21 - 1))
    assert last["high"] - last["low"] == pytest.approx(0, abs=1e-9), "seeds shift all alike, so nothing is left of them"
    factor = 2 ** (2 * 0.0953102 / 0.2231436)  # two arms' distance, in doublings of FLOPs
    assert comparison["savings"][0] == {"of": "many", "over": "few", "value": pytest.approx(factor, rel=1e-5), "low": pytest.approx(factor, rel=1e-5),
                                        "high": pytest.approx(factor, rel=1e-5), "seeds": pytest.approx([factor] * 3, rel=1e-5)}  # fmt: skip
    flat = compare_losses(LABELS, trainings(lambda arm, budget, seed: 4.0 + arm))
    assert [e["value"] for e in flat["savings"]] == [None, None], "what no budget reaches is not guessed"


def test_claims_are_held_against_intervals() -> None:
    falls, saving = Claim(says="It falls.", kind="falls"), Claim(says="It saves.", kind="saving")
    lower, same = (Claim(says=kind, kind=kind, of="some", over="few") for kind in ("lower", "same"))
    told = {c["claim"]: c["verdict"] for c in judged(finding(falls, saving, lower, same), compare_losses(LABELS, trainings(falling)))}  # fmt: skip
    assert told == {"It falls.": AGREES, "It saves.": AGREES, "lower": AGREES, "same": AGAINST}
    noisy = compare_losses(LABELS, trainings(lambda arm, budget, seed: 4.0 - budget + 0.1 * ((arm * 7 + seed * 5) % 3)))
    assert [c["verdict"] for c in judged(finding(lower, same), noisy)] == [UNKNOWN, AGREES]
    turned = compare_losses(LABELS, trainings(lambda arm, budget, seed: falling(-arm, budget, seed)))
    assert [c["verdict"] for c in judged(finding(falls, lower), turned)] == [AGAINST, AGAINST]
    lone = compare_losses(LABELS, trainings(falling, seeds=1))
    assert [c["verdict"] for c in judged(finding(falls, same), lone)] == [UNKNOWN, UNKNOWN]
    assert "one seed" in judged(finding(falls), lone)[0]["ours"]


def test_a_verdict_that_holds_here_and_there_says_so() -> None:
    def interval(low: float, high: float) -> dict[str, float]:
        return {"value": (low + high) / 2, "low": low, "high": high}

    assert verdict([interval(-3, -1), interval(-2, 1)]) == PARTLY
    assert verdict([interval(-3, -1), interval(1, 2)]) == AGAINST
    assert verdict([]) == UNKNOWN


def test_a_clip_is_told_by_the_largest_logits() -> None:
    clip = Claim(says="It clips.", kind="clipped", of="many", over="few")
    held = compare_losses(LABELS, trainings(falling, logit=lambda arm, seed: 300.0 - 130 * arm + seed))
    assert judged(finding(clip), held)[0]["verdict"] == AGREES
    assert "301.0 (300 301 302)" in judged(finding(clip), held)[0]["ours"]
    assert judged(finding(clip), compare_losses(LABELS, trainings(falling)))[0]["verdict"] == UNKNOWN


def test_the_planner_counts_what_the_paper_counts_for_twice_the_heads() -> None:
    (claim,) = [claim for claim in findings()["heads"].claims if claim.kind == "inference"]
    (told,) = judged(finding(claim), {"arms": {}})
    assert told["verdict"] == AGREES
    assert "77 % more over a prompt of 131,072 tokens, and 86 % more for the token after it" in told["ours"]


def test_arms_that_were_trained_unlike_are_refused_and_named() -> None:
    short = [t for t in trainings(falling) if not (t.arm == "many" and t.tokens == 4000)]
    with pytest.raises(AbruzziError, match="'few' and 'many' were not trained alike"):
        compare_losses(LABELS, short)
    with pytest.raises(AbruzziError, match=r"two trainings of 1,000 tokens with seed 0"):
        compare_losses(LABELS, [*trainings(falling), trainings(falling)[0]])
    with pytest.raises(AbruzziError, match="speaks of an arm 'muonclip'; there are few, some, many"):
        judged(findings()["optimizers"], compare_losses(LABELS, trainings(falling)))
    with pytest.raises(AbruzziError, match="no held-out loss"):
        training_of("few.1k.0", {"tokens": 1, "step": 1, "valid_loss": None, "config": {"model": {"preset": "nano"}, "optimizer": {}}})  # fmt: skip


def test_the_picture_is_what_it_was_and_well_formed_whatever_the_labels_are() -> None:
    comparison = compare_losses(LABELS, trainings(falling))
    comparison |= {"title": "Arms & <losses>", "published": "", "study": None, "claims": []}
    made = drawn(comparison)["svg"]
    path = GOLDEN / "losses.svg"
    if os.environ.get("ABRUZZI_UPDATE_GOLDEN"):
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")
    texts = ["".join(e.itertext()) for e in ElementTree.fromstring(made).iter("{http://www.w3.org/2000/svg}text")]
    assert {"8 <experts>", "Arms & <losses>"} <= set(texts)


def test_a_study_runs_from_its_corpus_to_its_picture_beside_the_paper(tmp_path: Path) -> None:
    small = ("optimizers", "--seeds", "2", "--tokens", "1k", "--sequences", "2", "--sources", "fact-sheets")
    model = ("--model", "vocab_size=400", "num_layers=2", "num_heads=2", "hidden_size=32", "num_experts=4")
    package = "abruzzi_jobs.evals.comparison"
    lab = RecipeLab(tmp_path, load_recipe(written(*small, *model)), {package: f"{package}.__main__"})
    lab.run()
    files = lab.folder("compare", "files")
    comparison = json.loads((files / "comparison.json").read_text(encoding="utf-8"))
    assert comparison["study"]["key"] == "optimizers"
    assert [len(arm["points"]) for arm in comparison["arms"].values()] == [1, 1, 1]
    first = comparison["arms"]["muonclip"]["points"][0]
    assert (first["tokens"], len(first["seeds"])) == (768, 2)
    assert first["optimizer_flops"] > 0 == comparison["arms"]["adamw"]["points"][0]["optimizer_flops"]
    assert first["max_logit"]["value"] < 30
    assert len(comparison["claims"]) == 3
    told = (files / "comparison.md").read_text(encoding="utf-8")
    assert "## Beside the paper" in told
    assert "largest logit" in told
    assert lab.made["compare", "files"][1].meta["comparison"] == findings()["optimizers"].title
