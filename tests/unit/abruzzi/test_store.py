"""The object store and the commit protocol, on a directory and on a real S3 server."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3_server import S3Server

from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.contracts.stage import StageSpec, StoreConfig
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.store import (
    CorruptArtifact,
    ObjectStore,
    blob_key,
    check_free_space,
    check_key,
    commit_artifact,
    list_manifests,
    materialize,
    newest_verified_checkpoint,
    open_store,
    remove_artifact,
    verify_manifest,
)
from abruzzi.store.s3 import S3Store

PREFIX = "projects/default/runs/abcdefghjk/train/"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.s3)])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> StoreConfig:
    if request.param == "directory":
        return DirectoryConfig(root=str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3")
    return server.new_bucket()


@pytest.fixture
def store(config: StoreConfig) -> ObjectStore:
    return open_store(config)


def spec(config: StoreConfig, epoch: int = 1) -> StageSpec:
    return StageSpec(
        project_id="default",
        run_id="abcdefghjk",
        stage_id="train",
        attempt_id=f"abcdefghjk-train-{epoch}",
        epoch=epoch,
        kind=StageKind.PRETRAIN,
        config={},
        store=config,
        output_prefix=PREFIX,
    )


def commit(
    store: ObjectStore, config: StoreConfig, folder: Path, step: int, *, epoch: int = 1, text: str | None = None
) -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{step}.txt").write_text(text or f"weights of step {step}")
    (folder / "same.txt").write_text("the same in all")
    files = {"weights.txt": folder / f"{step}.txt", "same.txt": folder / "same.txt"}
    key, _ = commit_artifact(
        store, spec(config, epoch), kind=ArtifactKind.CHECKPOINT, name=f"step-{step:08d}", files=files, step=step
    )
    return key


def test_what_is_put_is_got_listed_and_deleted(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")
    store.put("a/one", b"1")
    store.put("a/two", tmp_path / "file")
    store.put("a/two", b"again")
    assert store.get("a/one") == b"1"
    assert store.get("a/two") == b"again"
    assert store.size("a/two") == 5
    assert list(store.list("a/")) == ["a/one", "a/two"]
    store.delete("a/one")
    store.delete("a/one")
    assert not store.exists("a/one")
    for missing in (store.get, store.size, store.open):
        with pytest.raises(NotFound):
            missing("a/one")


def test_put_if_absent_keeps_the_first(store: ObjectStore) -> None:
    assert store.put_if_absent("k", b"first") is True
    assert store.put_if_absent("k", b"second") is False
    assert store.get("k") == b"first"


def _race(task: tuple[str, dict[str, str], str, int]) -> bool:
    raw, credentials, key, writer = task
    os.environ.update(credentials)
    data = json.loads(raw)
    store = open_store(DirectoryConfig(**data) if data["kind"] == "directory" else S3Config(**data))
    return store.put_if_absent(key, f"writer {writer}".encode() * 1000)


def test_of_racing_writers_exactly_one_wins(store: ObjectStore, config: StoreConfig) -> None:
    credentials = {
        name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if name in os.environ
    }
    with ProcessPoolExecutor(4) as pool:
        for race in range(5):
            tasks = [(config.model_dump_json(), credentials, f"race/{race}", writer) for writer in range(4)]
            won = list(pool.map(_race, tasks))
            assert sum(won) == 1, won
            assert store.get(f"race/{race}") == f"writer {won.index(True)}".encode() * 1000


def test_a_committed_artifact_comes_back_verified(store: ObjectStore, config: StoreConfig, tmp_path: Path) -> None:
    key = commit(store, config, tmp_path / "in", 10)
    ((found, manifest),) = list_manifests(store, PREFIX)
    assert found == key
    verify_manifest(store, manifest, PREFIX)
    materialize(store, manifest, PREFIX, tmp_path / "out")
    assert (tmp_path / "out" / "weights.txt").read_text() == "weights of step 10"
    materialize(store, manifest, PREFIX, tmp_path / "out")


def test_committing_the_same_again_is_fine_and_something_else_is_a_conflict(
    store: ObjectStore, config: StoreConfig, tmp_path: Path
) -> None:
    assert commit(store, config, tmp_path / "in", 10) == commit(store, config, tmp_path / "in", 10)
    with pytest.raises(AbruzziError, match="already committed with other contents"):
        commit(store, config, tmp_path / "in", 10, text="other")


def test_a_crash_before_the_manifest_leaves_nothing_visible(
    store: ObjectStore, config: StoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(store), "put_if_absent", crash)
    with pytest.raises(KeyboardInterrupt):
        commit(store, config, tmp_path / "in", 10)
    monkeypatch.undo()
    assert list(list_manifests(store, PREFIX)) == []
    assert newest_verified_checkpoint(store, PREFIX, max_epoch=9).manifest is None
    commit(store, config, tmp_path / "in", 10)
    assert newest_verified_checkpoint(store, PREFIX, max_epoch=9).manifest is not None


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_checkpoint_is_found_out_and_the_one_before_it_used(
    store: ObjectStore, config: StoreConfig, tmp_path: Path, damage: str
) -> None:
    for step in (10, 20, 30):
        commit(store, config, tmp_path / "in", step)
    newest = newest_verified_checkpoint(store, PREFIX, max_epoch=1)
    assert newest.manifest is not None
    assert newest.manifest.step == 30
    key = blob_key(PREFIX, next(f.digest for f in newest.manifest.files if f.path == "weights.txt"))
    content = bytearray(store.get(key))
    content[3] ^= 1
    store.delete(key)
    if damage != "delete":
        store.put(key, bytes(content) if damage == "flip" else bytes(content[:-1]))
    found = newest_verified_checkpoint(store, PREFIX, max_epoch=1)
    assert found.manifest is not None
    assert found.manifest.step == 20
    [sentence] = found.corrupt.values()
    assert "weights.txt" in sentence
    with pytest.raises(CorruptArtifact):
        materialize(store, newest.manifest, PREFIX, tmp_path / "out")


def test_a_flipped_bit_is_found_wherever_it_is(store: ObjectStore, config: StoreConfig, tmp_path: Path) -> None:
    commit(store, config, tmp_path / "in", 10)
    ((_, manifest),) = list_manifests(store, PREFIX)
    key = blob_key(PREFIX, manifest.files[0].digest)
    original = store.get(key)
    for bit in range(0, len(original) * 8, 7):
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        store.put(key, bytes(damaged))
        with pytest.raises(CorruptArtifact):
            verify_manifest(store, manifest, PREFIX)


def test_resume_goes_back_by_as_many_checkpoints_as_asked_and_never_above_its_epoch(
    store: ObjectStore, config: StoreConfig, tmp_path: Path
) -> None:
    for step in (10, 20, 30):
        commit(store, config, tmp_path / "in", step)
    commit(store, config, tmp_path / "in", 40, epoch=2)
    steps = {skip: newest_verified_checkpoint(store, PREFIX, max_epoch=1, skip=skip).manifest for skip in range(5)}
    assert [m.step if m else None for m in steps.values()] == [30, 20, 10, 10, 10]
    newest = newest_verified_checkpoint(store, PREFIX, max_epoch=2).manifest
    assert newest is not None
    assert newest.step == 40


def test_retention_frees_only_what_no_other_manifest_names(
    store: ObjectStore, config: StoreConfig, tmp_path: Path
) -> None:
    keys = [commit(store, config, tmp_path / "in", step) for step in (10, 20)]
    manifests = dict(list_manifests(store, PREFIX))
    freed = remove_artifact(store, keys[0], manifests[keys[0]])
    assert freed == len("weights of step 10")
    verify_manifest(store, manifests[keys[1]], PREFIX)
    assert [key for key, _ in list_manifests(store, PREFIX)] == [keys[1]]


def test_a_manifest_that_is_no_manifest_is_passed_over(store: ObjectStore, config: StoreConfig, tmp_path: Path) -> None:
    commit(store, config, tmp_path / "in", 10)
    store.put(f"{PREFIX}e1/step-00000020/manifest.json", b'{"version": 1, "kind"')
    found = newest_verified_checkpoint(store, PREFIX, max_epoch=1).manifest
    assert found is not None
    assert found.step == 10


@pytest.mark.s3
def test_in_s3_an_object_of_the_users_is_read_under_any_name(s3: S3Server, tmp_path: Path) -> None:
    config = s3.new_bucket()
    store = open_store(config)
    store.put("plain", b"1")
    key = "year=2026/my notes (ü).txt"
    assert isinstance(store, S3Store)
    store._client.put_object(config.bucket, key, io.BytesIO(b"2"), 1)
    assert sorted(store.list("")) == ["plain", key]
    assert list(store.list("year=2026")) == [key]
    assert (store.get(key), store.size(key)) == (b"2", 1)
    with pytest.raises(AbruzziError, match="no key"):
        store.put(key, b"3")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a//b",
        "../a",
        "a/../b",
        "a/.",
        ".hidden",
        "a/.hidden",
        "a\\b",
        "a b",
        "a\n",
        "a/\0",
        "x" * 1000,
        "a/",
        "ü",
    ],
)
def test_a_bad_key_is_refused(key: str) -> None:
    with pytest.raises(AbruzziError, match="no key"):
        check_key(key)


@given(st.text(max_size=60))
def test_no_key_leads_out_of_the_directory(text: str) -> None:
    try:
        key = check_key(text)
    except AbruzziError:
        return
    assert (Path("/store") / key).resolve().is_relative_to("/store")
    assert ".." not in Path(key).parts


def test_a_link_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    store = open_store(DirectoryConfig(root=str(tmp_path / "store")))
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        store.get("link")


def test_a_full_disk_is_announced_before_it_is_full(tmp_path: Path) -> None:
    check_free_space(tmp_path, 1)
    with pytest.raises(AbruzziError, match="GiB free; the next checkpoint needs") as caught:
        check_free_space(tmp_path, 1 << 60, needed_bytes=1 << 30)
    assert caught.value.code == "disk_full"
    assert "keep_last" in (caught.value.hint or "")


def test_s3_needs_credentials_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(AbruzziError, match="AWS_ACCESS_KEY_ID is not set"):
        S3Store(S3Config(endpoint="localhost:1", bucket="b"))
