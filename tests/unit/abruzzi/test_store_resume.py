"""From which checkpoint a stage goes on, after kills and divergences, and what retention must leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from abruzzi.contracts.artifact import ArtifactRef
from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.store import (
    ObjectStore,
    Resume,
    Setback,
    checkpoint_after_divergences,
    commit_artifact,
    data_to_pass_over,
    is_pinned,
    list_manifests,
    open_store,
    pin_artifact,
    remove_artifact,
    verify_manifest,
)
from abruzzi.store.resume import DATA_STEP, DIVERGENCE

PREFIX = "projects/default/runs/abcdefghjk/train/"


class Line:
    """A stage's outputs in a store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = DirectoryConfig(root=str(root / "store"))
        self.store: ObjectStore = open_store(self.config)

    def spec(self, epoch: int, **more: object) -> StageSpec:
        return StageSpec(
            project_id="default", run_id="abcdefghjk", stage_id="train", attempt_id=f"abcdefghjk-train-{epoch}", epoch=epoch,
            kind=StageKind.PRETRAIN, config={}, store=self.config, output_prefix=PREFIX, **more,  # type: ignore[arg-type]
        )  # fmt: skip

    def save(self, epoch: int, *steps: int) -> list[str]:
        keys = []
        for step in steps:
            file = self.root / "file"
            file.write_text(f"{epoch} {step}")
            key, _ = commit_artifact(
                self.store, self.spec(epoch), kind=ArtifactKind.CHECKPOINT, name=f"step-{step:08d}", files={"file": file}, step=step
            )  # fmt: skip
            keys.append(key)
        return keys

    def diverge(self, epoch: int, data_step: int) -> None:
        file = self.root / "note"
        file.write_text("x")
        commit_artifact(
            self.store, self.spec(epoch), kind=ArtifactKind.FILES, name=DIVERGENCE, files={"note": file}, meta={DATA_STEP: data_step}
        )  # fmt: skip

    def find(self, epoch: int, in_a_row: int = 0, *setbacks: Setback) -> tuple[int, int] | None:
        """(step, epoch)"""
        found = checkpoint_after_divergences(self.store, PREFIX, max_epoch=epoch, in_a_row=in_a_row, setbacks=setbacks)
        return None if found.manifest is None else (found.manifest.step or 0, found.manifest.epoch)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_one_step_in_two_epochs_is_one_step_back(line: Line) -> None:
    line.save(1, 10, 20, 30)
    line.save(2, 30)  # killed at 30, saved again
    assert line.find(3) == (30, 2)
    assert line.find(3, 1) == (20, 1)


def test_a_line_that_was_given_up_is_never_chosen_again(line: Line) -> None:
    line.save(1, 10, 20, 30)
    assert line.find(2, 1) == (20, 1)
    back = Setback(2, 20)
    assert line.find(3, 0, back) == (20, 1), "killed before it saved anything"
    line.save(2, 26)
    assert line.find(3, 0, back) == (26, 2), "killed after it did: its own, not the 30 that was given up"
    line.save(3, 40)
    assert line.find(4, 0, back) == (40, 3)


def test_a_second_divergence_in_a_row_goes_back_further_than_the_first(line: Line) -> None:
    line.save(1, 10, 20, 30)
    back = Setback(2, 20)
    line.save(2, 22, 25, 29)
    assert line.find(3, 2, back) == (10, 1)
    further = Setback(3, 10)
    assert line.find(4, 3, back, further) == (10, 1), "nothing is further back: again from there, on other data"


def test_a_divergence_of_another_place_goes_one_step_back_of_the_line_it_is_on(line: Line) -> None:
    line.save(1, 10, 20, 30)
    line.save(2, 40, 50)
    assert line.find(3, 1, Setback(2, 20)) == (40, 2)


def test_whoever_went_back_to_the_beginning_begins_again(line: Line) -> None:
    line.save(1, 10)
    assert line.find(3, 2, Setback(2, -1)) is None
    assert line.find(3, 0, Setback(2, -1)) is None


def test_the_data_of_a_divergence_is_passed_over_by_what_goes_on_from_before_it(line: Line) -> None:
    line.save(1, 10, 20)
    line.diverge(1, 36)
    line.save(2, 30)
    line.diverge(2, 50)
    line.save(3, 40)
    by_step = {m.step: m for _, m in list_manifests(line.store, PREFIX) if m.kind is ArtifactKind.CHECKPOINT}

    def after(step: int | None, *, epoch: int = 4) -> int | None:
        return data_to_pass_over(line.store, PREFIX, by_step[step] if step else None, max_epoch=epoch)

    assert after(40) is None, "its loader has passed it over already"
    assert after(30) == after(20) == after(None) == 50
    assert after(20, epoch=1) == 36
    elsewhere = by_step[40].model_copy(update={"run_id": "zzzzzzzzzz", "epoch": 9})
    assert data_to_pass_over(line.store, PREFIX, elsewhere, max_epoch=4) == 50, "a branch, set back to its beginning"


def test_lineage_names_the_checkpoint_that_an_attempt_went_on_from(line: Line) -> None:
    (key,) = line.save(1, 10)
    found: Resume = checkpoint_after_divergences(line.store, PREFIX, max_epoch=1, in_a_row=0)
    assert found.manifest is not None
    resume = ArtifactRef(kind=ArtifactKind.CHECKPOINT, manifest_key=key, digest=found.manifest.digest())
    given = ArtifactRef(kind=ArtifactKind.DATASET, manifest_key="x/manifest.json", digest="sha256:" + "0" * 64)
    spec = line.spec(2, resume=resume, inputs={"dataset": given})
    _, made = commit_artifact(
        line.store,
        spec,
        kind=ArtifactKind.CHECKPOINT,
        name="step-00000020",
        files={"file": line.root / "file"},
        step=20,
    )
    assert set(made.parents) == {resume.digest, given.digest}


def test_retention_leaves_what_a_branch_stands_on(line: Line) -> None:
    first, second = line.save(1, 10, 20)
    manifests = dict(list_manifests(line.store, PREFIX))
    pin_artifact(line.store, first, by="branchrun0")
    assert remove_artifact(line.store, first, manifests[first]) == 0
    assert remove_artifact(line.store, second, manifests[second]) > 0
    assert [key for key, _ in list_manifests(line.store, PREFIX)] == [first]
    verify_manifest(line.store, manifests[first], PREFIX)


def test_what_retention_has_taken_cannot_be_pinned(line: Line) -> None:
    (key,) = line.save(1, 10)
    remove_artifact(line.store, key, dict(list_manifests(line.store, PREFIX))[key])
    with pytest.raises(NotFound):
        pin_artifact(line.store, key, by="branchrun0")
    assert not is_pinned(line.store, key)


def test_a_pin_that_comes_in_the_middle_of_a_removal_stops_it(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = line.save(1, 10)
    manifest = dict(list_manifests(line.store, PREFIX))[key]
    delete = line.store.delete

    def pinned_just_before(deleted: str) -> None:
        if deleted == key:
            pin_artifact(line.store, key, by="branchrun0")  # which still sees the manifest
        delete(deleted)

    monkeypatch.setattr(line.store, "delete", pinned_just_before)
    assert remove_artifact(line.store, key, manifest) == 0
    assert line.store.exists(key)
    verify_manifest(line.store, manifest, PREFIX)
