"""The object store and the commit protocol, on a directory and on a real S3 server."""

from __future__ import annotations

import errno
import io
import json
import mmap
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3_server import S3Server
from tenacity import wait_none

from abruzzi.contracts.errors import AbruzziError, Conflict, NotFound
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.contracts.stage import StageSpec, StoreConfig
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.store import (
    CorruptArtifact,
    DirectoryStore,
    ObjectStore,
    blob_key,
    check_free_space,
    check_key,
    commit_artifact,
    list_manifests,
    manifest_key,
    materialize,
    newest_verified_checkpoint,
    open_store,
    read_manifest,
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


@pytest.mark.parametrize("size", [(4 << 20) - 1, 4 << 20, (4 << 20) + 1, (17 << 20) + 4095])
@pytest.mark.parametrize("begin", [0, 1], ids=["of a page", "of no page"])
def test_large_contents_come_back_whole_whatever_their_size_and_wherever_in_memory_they_begin(
    tmp_path: Path, size: int, begin: int
) -> None:
    memory = mmap.mmap(-1, begin + size)
    memory[:] = random.Random(size).randbytes(begin + size)
    store, content = DirectoryStore(tmp_path), memoryview(memory)[begin:]
    store.put("one", content)
    store.put_below("two/", content, lambda: "two/found")
    assert store.get("one") == store.get("two/found") == bytes(content)


def test_where_a_file_system_stops_writing_past_the_page_cache_the_rest_goes_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    write = os.write

    def refusing(descriptor: int, piece: memoryview) -> int:
        if pieces:
            raise OSError(errno.EINVAL, "Invalid argument")
        pieces.append(write(descriptor, piece))
        return pieces[-1]

    monkeypatch.setattr(os, "write", refusing)
    content = mmap.mmap(-1, 40 << 20)
    content[:] = random.Random(1).randbytes(len(content))
    DirectoryStore(tmp_path).put("one", memoryview(content))
    monkeypatch.undo()
    assert 0 < pieces[0] < len(content)
    assert DirectoryStore(tmp_path).get("one") == content[:]


def test_what_is_put_is_got_listed_and_deleted(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")
    store.put("a/one", b"1")
    store.put("a/two", tmp_path / "file")
    store.put("a/two", b"again")
    assert store.get("a/one") == b"1"
    assert store.get("a/two") == b"again"
    assert store.size("a/two") == 5
    with store.open("a/two", start=2) as stream:
        assert stream.read() == b"ain"
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


WRITERS, RACES = 4, 8


class _Racing:
    """What a writing process keeps between its races."""

    barrier: Barrier
    config: StoreConfig

    @classmethod
    def enter(cls, barrier: Barrier, raw: str, credentials: dict[str, str]) -> None:
        os.environ.update(credentials)
        data = json.loads(raw)
        cls.barrier = barrier
        cls.config = DirectoryConfig(**data) if data["kind"] == "directory" else S3Config(**data)


def _race(task: tuple[str, int]) -> bool:
    key, writer = task
    store = open_store(_Racing.config)
    _Racing.barrier.wait(240)
    return store.put_if_absent(key, f"writer {writer}".encode() * 1000)


def _race_to_commit(task: tuple[str, str, int]) -> str:
    folder, name, writer = task
    source = Path(folder) / f"{name}-{writer}"
    source.write_text(f"{name} by writer {writer}")
    store = open_store(_Racing.config)
    put_if_absent = store.put_if_absent

    def at_once(key: str, content: bytes | Path) -> bool:
        _Racing.barrier.wait(240)  # all have stored their files; now for the manifest
        return put_if_absent(key, content)

    store.put_if_absent = at_once  # type: ignore[method-assign]
    try:
        _, manifest = commit_artifact(
            store, spec(_Racing.config), kind=ArtifactKind.FILES, name=name, files={"file": source}
        )
    except Conflict as error:
        return error.code
    return manifest.files[0].digest


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.s3)])
def racing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[StoreConfig, ProcessPoolExecutor]]:
    """A store whose conditional write is atomic (moto's is not), and processes that begin together."""
    with ExitStack() as stack:
        if request.param == "s3":
            server: S3Server = request.getfixturevalue("s3")
            if not server.is_real:
                server = stack.enter_context(S3Server(real=True))
            config: StoreConfig = server.new_bucket()
        else:
            config = DirectoryConfig(root=str(tmp_path / "store"))
        credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        arguments = (get_context().Barrier(WRITERS), config.model_dump_json(), credentials)
        pool = stack.enter_context(ProcessPoolExecutor(WRITERS, initializer=_Racing.enter, initargs=arguments))
        yield config, pool


def test_of_racing_writers_exactly_one_wins(racing: tuple[StoreConfig, ProcessPoolExecutor]) -> None:
    config, pool = racing
    store = open_store(config)
    for race in range(RACES):
        won = list(pool.map(_race, [(f"race/{race}", writer) for writer in range(WRITERS)]))
        assert sum(won) == 1, won
        assert store.get(f"race/{race}") == f"writer {won.index(True)}".encode() * 1000


def test_of_racing_commits_of_different_contents_one_stands_and_the_others_are_told(
    racing: tuple[StoreConfig, ProcessPoolExecutor], tmp_path: Path
) -> None:
    config, pool = racing
    store = open_store(config)
    for race in range(RACES):
        ends = list(pool.map(_race_to_commit, [(str(tmp_path), f"race-{race}", w) for w in range(WRITERS)]))
        assert sorted(ends)[:-1] == ["artifact_exists"] * (WRITERS - 1), ends
        manifest = read_manifest(store, manifest_key(PREFIX, 1, f"race-{race}"))
        assert manifest.files[0].digest == sorted(ends)[-1]
        verify_manifest(store, manifest, PREFIX)


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
def test_a_server_that_is_away_is_a_service_that_is_away_whatever_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with S3Server() as server:
        store = S3Store(server.new_bucket())
        store.put("a/b", b"1" * (64 << 20))  # more than sockets buffer
        stream = store.open("a/b")
        assert stream.read(10) == b"1" * 10
        server.stop()
        with stream, pytest.raises(AbruzziError) as broken:
            stream.read()
        asked = {
            "get": lambda: store.get("a/b"),
            "put": lambda: store.put("a/b", b"2"),
            "put a file": lambda: store.put("a/b", tmp_path / "file"),
            "put if absent": lambda: S3Store.put_if_absent.__wrapped__(store, "a/b", b"2"),  # type: ignore[attr-defined]
            "exists": lambda: store.exists("a/b"),
            "list": lambda: list(store.list("a/")),
            "delete": lambda: store.delete("a/b"),
        }
        for name, ask in asked.items():
            with pytest.raises(AbruzziError) as away:
                ask()
            assert (away.value.code, away.value.status) == ("store_away", 503), name
        assert (broken.value.code, broken.value.status) == ("store_away", 503)


class _Answers(BaseHTTPRequestHandler):
    """A server that gives the answers of a list, then 200."""

    codes: ClassVar[list[int]] = []
    asked: ClassVar[list[str]] = []

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.headers["If-None-Match"])
        self.send_response(self.codes.pop(0) if self.codes else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("codes", "ends"), [([409, 503, 409], True), ([409, 412], False), ([412], False), ([403], "store_error")]
)
def test_a_conflict_of_the_moment_is_asked_again_and_is_no_word_that_the_object_is_there(
    monkeypatch: pytest.MonkeyPatch, codes: list[int], ends: bool | str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setattr(S3Store.put_if_absent.retry, "wait", wait_none())  # type: ignore[attr-defined]
    monkeypatch.setattr(_Answers, "codes", list(codes))
    monkeypatch.setattr(_Answers, "asked", [])
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            store = S3Store(S3Config(endpoint=f"127.0.0.1:{server.server_port}", bucket="bucket", secure=False))
            if isinstance(ends, str):
                with pytest.raises(AbruzziError) as refused:
                    store.put_if_absent("k", b"1")
                assert refused.value.code == ends
            else:
                assert store.put_if_absent("k", b"1") is ends
        finally:
            server.shutdown()
            thread.join()
    assert set(_Answers.asked) == {"*"}
    assert len(_Answers.asked) == len(codes) + (ends is True)


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
