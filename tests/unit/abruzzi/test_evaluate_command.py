"""`abruzzi eval`: the recipe that it writes, and what it tells CI."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest

from abruzzi.cli.evaluate import _Recipe, failures_of, junit, markdown, option_line, yarn_line
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import EvaluationOut, Figure, SuiteSettings, SuiteSummary
from abruzzi.contracts.resources import ArtifactOut
from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.toml import load_recipe

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def evaluation(suite: str, value: float, missing: int = 0) -> EvaluationOut:
    summary = SuiteSummary(
        suite=suite, settings=SuiteSettings(), items=10, answers=10, statuses={}, missing=missing,
        score=Figure(value=value, items=10 - missing), truncation_rate=0.0,
    )  # fmt: skip
    return EvaluationOut(
        id="e1", project_id="default", run_id="r1", stage_id="eval", artifact_id="a1", suite=suite, target="standin:standin",
        target_detail={"kind": "standin"}, summary=summary, created_at=NOW,
    )  # fmt: skip


def test_a_suite_that_was_asked_for_and_not_evaluated_is_a_failure_where_ci_watches() -> None:
    found = [evaluation("demo@1", 0.9), evaluation("sums@2", 0.4)]
    asked = ["demo", "sums@2", "words"]
    assert failures_of(asked, found, 0.5) == {
        "sums@2": "40.0% (too few items) is less than 50.0%",
        "words": "It was not evaluated.",
    }
    assert failures_of(asked[:2], found[:1], 0.5) == {"sums@2": "It was not evaluated."}
    assert failures_of(asked, found, None) == {}
    assert failures_of(["demo"], [evaluation("demo@1", 0.9, missing=2)], 0.5) == {"demo@1": "2 items have no score"}


def test_reports_for_ci_show_a_suite_that_was_not_evaluated() -> None:
    found = [evaluation("demo@1", 0.9)]
    failures = failures_of(["demo", "words"], found, 0.5)
    assert markdown(found, failures, None).splitlines()[-2] == "| words | | – | 0 | 0 | It was not evaluated. |"
    told = junit(["demo", "words"], found, failures, None)
    assert 'tests="2" failures="1"' in told
    assert '<failure message="It was not evaluated." />' in told


class Artifacts:
    """A project's artifacts, oldest first; all of them are the lineage of each."""

    def __init__(self, *made: ArtifactOut) -> None:
        self.made = made

    def get(self, artifact_id: str) -> ArtifactOut:
        return next(a for a in self.made if a.id == artifact_id)

    def list(self, run_id: str, *, stage_id: str | None, kind: ArtifactKind) -> list[ArtifactOut]:
        return [a for a in self.made if (a.run_id, a.kind) == (run_id, kind) and stage_id in (None, a.stage_id)]

    def lineage(self, artifact_id: str) -> list[ArtifactOut]:
        return [a for a in self.made if a.id != artifact_id]


class Connection:
    def __init__(self, *made: ArtifactOut) -> None:
        self.artifacts = Artifacts(*made)


def artifact(name: str, kind: str, stage: str = "train", **values: Any) -> ArtifactOut:
    return ArtifactOut.model_validate(
        {
            "id": f"{name:0>20}", "project_id": "default", "run_id": "r1", "stage_id": stage, "attempt_id": "r1-train-1", "kind": kind,
            "name": name, "step": None, "digest": "sha256:1", "manifest_key": "k", "size_bytes": 1, "meta": {}, "parents": [],
            "verified_at": None, "corrupt_at": None, "deleted_at": None, "created_at": NOW, **values,
        }
    )  # fmt: skip


def written(recipe: _Recipe) -> dict[str, Any]:
    return tomllib.loads(recipe.toml(["demo"], {}))


@pytest.mark.parametrize("lost", ["deleted_at", "corrupt_at"])
def test_a_tokenizer_or_corpus_that_is_gone_or_damaged_is_not_chosen(lost: str) -> None:
    recipe = _Recipe(
        Connection(  # type: ignore[arg-type]
            artifact("corpus", "corpus", "corpus"),
            artifact("lostcorpus", "corpus", "corpus", **{lost: NOW}),
            artifact("above", "tokenizer", "tokenize"),
            artifact("lostabove", "tokenizer", "tokenize", **{lost: NOW}),
            artifact("lostown", "tokenizer", **{lost: NOW}),
            artifact("final", "checkpoint"),
        )
    )
    recipe.play("target", f"{'final':0>20}", model=None, api_key=None)
    text = written(recipe)
    assert text["endpoint"]["target"]["tokenizer"] == "artifact:000000000000000above"
    assert text["stage"][0]["inputs"] == {"corpus": "artifact:00000000000000corpus"}


def test_where_the_only_tokenizer_is_damaged_none_is_known() -> None:
    recipe = _Recipe(
        Connection(artifact("own", "tokenizer", corrupt_at=NOW), artifact("final", "checkpoint"))  # type: ignore[arg-type]
    )
    with pytest.raises(AbruzziError, match="No tokenizer is known"):
        recipe.play("target", f"{'final':0>20}", model=None, api_key=None)


def test_names_with_emoji_quotes_and_controls_are_written_as_toml() -> None:
    recipe = _Recipe(Connection())  # type: ignore[arg-type]
    recipe.play("target", "https://models.example.org/v1", model='🙂 "ä"\n\x7f', api_key=None)
    assert written(recipe)["endpoint"]["target"]["model"] == '🙂 "ä"\n\x7f'


def test_options_of_a_suite_and_yarn_of_a_checkpoint_are_written_into_the_recipe() -> None:
    recipe = _Recipe(Connection(artifact("own", "tokenizer"), artifact("final", "checkpoint")))  # type: ignore[arg-type]
    recipe.play("target", f"{'final':0>20}", model=None, api_key=None, yarn="4x1024")
    text = recipe.toml(["needle"], {"max_items": 3}, ["lengths=[500,2000]", "seed = 7"])
    load_recipe(text)
    found = tomllib.loads(text)
    assert found["stage"][0]["suites"]["needle"] == {"max_items": 3, "options": {"lengths": [500, 2000], "seed": 7}}
    assert found["endpoint"]["target"]["yarn"] == {"factor": 4.0, "original_max_position": 1024}


@pytest.mark.parametrize("said", ["lengths", "a=1\nb=2", "[stage]", "lengths=[1", ""])
def test_what_is_no_key_and_value_is_no_option(said: str) -> None:
    with pytest.raises(AbruzziError, match="not KEY=VALUE"):
        option_line(said)


@pytest.mark.parametrize("said", ["4", "x1024", "4x", "4x1e3", "4x1024 }"])
def test_yarn_is_a_factor_and_positions(said: str) -> None:
    with pytest.raises(AbruzziError, match="no FACTORxPOSITIONS"):
        yarn_line(said)
