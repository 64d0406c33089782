"""Shards through functions: the same bytes whoever makes them and whatever happens on the way, and nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import shard_lab

from abruzzi.contracts.errors import AbruzziError
from abruzzi.store.objects import DirectoryStore
from abruzzi_jobs.data.processing.function import FunctionSpec
from abruzzi_jobs.data.processing.indexed import IndexedShards
from abruzzi_jobs.data.processing.local import LocalProcesses
from abruzzi_jobs.data.processing.shard import ShardManifest, ShardTask, digest_of, process_shard, read_rows, write_rows

SHOUT = FunctionSpec(target="shard_lab:Shouting", version=1, config={"suffix": "!"}, seed=7)


def _tell(done: int, total: int, message: str) -> None:
    assert 0 <= done <= total
    assert message


def _tasks(folder: Path, names: tuple[str, ...] = ("a", "b", "c", "late")) -> list[ShardTask]:
    folder.mkdir(parents=True, exist_ok=True)
    tasks = []
    for name in names:
        path = folder / f"{name}.jsonl.zst"
        texts = [f"{'x' if n % 3 == 0 else 'y'} {name} {n}" for n in range(40)]
        digest, count = write_rows(path, ({"text": t, "source": name, "name": str(n)} for n, t in enumerate(texts)))
        assert count == 40
        tasks.append(ShardTask(name=f"out-{name}", parent=path, digest=digest))
    return tasks


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if not p.name.endswith(".partial")}


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    out = tmp_path / "expected"
    out.mkdir()
    LocalProcesses(1).run(SHOUT, _tasks(tmp_path / "raw"), out, _tell)
    return _contents(out)


def test_a_manifest_says_what_became_of_each_row(tmp_path: Path) -> None:
    task = _tasks(tmp_path, ("a",))[0]
    manifest = process_shard(SHOUT, task, tmp_path)
    assert manifest.fates["kept"]["documents"] == 26
    assert manifest.fates["lab.x"]["documents"] == 14
    assert manifest.notes["lab.letters"] == manifest.fates["kept"]["bytes"] - 26 * len("!7")
    assert manifest.examples["lab.x"][0] == {"source": "a", "name": "0", "text": "x a 0"}
    assert manifest.parents == {"a.jsonl.zst": task.digest}
    assert manifest.stage_hash == SHOUT.digest()
    assert set(manifest.files) == {"out-a.jsonl.zst", "out-a.end"}
    for name, entry in manifest.files.items():
        assert digest_of((tmp_path / name).read_bytes()) == entry["digest"]
    rows = list(read_rows((tmp_path / manifest.shard).read_bytes(), manifest.shard))
    assert [r["text"] for r in rows[:2]] == ["Y A 1!7", "Y A 2!7"]
    assert ShardManifest(**json.loads((tmp_path / "out-a.json").read_text())) == manifest


def test_configuration_seed_and_version_change_the_stage_hash() -> None:
    others = [
        FunctionSpec(target=SHOUT.target, version=2, config=SHOUT.config, seed=7),
        FunctionSpec(target=SHOUT.target, version=1, config={}, seed=7),
        FunctionSpec(target=SHOUT.target, version=1, config=SHOUT.config, seed=8),
    ]
    assert len({f.digest() for f in (SHOUT, *others)}) == 4


def test_a_file_that_a_function_needs_is_part_of_its_hash_and_verified(tmp_path: Path) -> None:
    task = _tasks(tmp_path, ("a",))[0]
    (tmp_path / "end").write_bytes(b"?")
    function = FunctionSpec(target=SHOUT.target, version=1, files={"end": digest_of(b"?")})
    shard = process_shard(function, task, tmp_path).shard
    assert next(read_rows((tmp_path / shard).read_bytes(), shard))["text"] == "Y A 1" + "0?"
    (tmp_path / "end").write_bytes(b"changed")
    with pytest.raises(AbruzziError, match=r"end: cut short or changed"):
        process_shard(function, ShardTask(name="again", parent=task.parent, digest=task.digest), tmp_path)


@pytest.mark.serial
def test_several_processes_write_the_same_bytes_also_when_one_is_killed(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "kill"
    marker.touch()
    monkeypatch.setenv(shard_lab.KILL, str(marker))
    out = tmp_path / "out"
    out.mkdir()
    told: list[tuple[int, int, str]] = []
    manifests = LocalProcesses(2).run(SHOUT, _tasks(tmp_path / "raw"), out, lambda *t: told.append(t))
    assert not marker.exists(), "no worker was killed"
    assert _contents(out) == expected
    assert [m.name for m in manifests] == ["out-a", "out-b", "out-c", "out-late"]
    assert told[-1][0] == told[-1][1]
    assert told[-1][2] == "processing 4 of 4 shards"


def _killed_at_the_last(work: str, tasks: list[ShardTask], out: Path, hold: Path) -> None:
    """A process that does `work` is killed once it is at the shard that comes late."""
    program = (
        "import json, sys; from pathlib import Path\n"
        "from abruzzi.store.objects import DirectoryStore\n"
        "from abruzzi_jobs.data.processing.function import FunctionSpec\n"
        "from abruzzi_jobs.data.processing.indexed import IndexedShards\n"
        "from abruzzi_jobs.data.processing.local import LocalProcesses\n"
        "from abruzzi_jobs.data.processing.shard import ShardTask\n"
        "f, ts, out = json.loads(sys.argv[1])\n"
        "FUNCTION, OUT, TELL = FunctionSpec(**f), Path(out), lambda *_: None\n"
        "TASKS = [ShardTask(name=n, parent=Path(p), digest=d) for n, p, d in ts]\n"
        f"if __name__ == '__main__':\n    {work}\n"
    )
    job = json.dumps([SHOUT.__dict__, [(t.name, str(t.parent), t.digest) for t in tasks], str(out)])
    environment = {**os.environ, shard_lab.HOLD: str(hold), "PYTHONPATH": str(Path(shard_lab.__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", program, job], env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not (hold / "waiting").exists():
            assert process.poll() is None, f"ended with {process.returncode}: {sorted(p.name for p in out.iterdir())}"
            assert time.monotonic() < deadline, sorted(p.name for p in out.iterdir())
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.serial
def test_after_kill_9_of_everything_the_rest_is_made_and_all_digests_are_equal(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    out, hold = tmp_path / "out", tmp_path / "hold"
    out.mkdir()
    hold.mkdir()
    tasks = _tasks(tmp_path / "raw")
    _killed_at_the_last("LocalProcesses(1).run(FUNCTION, TASKS, OUT, TELL)", tasks, out, hold)
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert "out-c.json" in before
    assert "out-late.json" not in before
    (out / "out-b.jsonl.zst").write_bytes(expected["out-b.jsonl.zst"][:-9])  # and what a bad disk does
    LocalProcesses(1).run(SHOUT, tasks, out, _tell)
    assert _contents(out) == expected
    for name, time_ns in before.items():
        if name.startswith(("out-a", "out-c")):
            assert (out / name).stat().st_mtime_ns == time_ns, f"{name} was made again"


@pytest.mark.serial
def test_the_indices_of_a_job_write_the_same_bytes_also_after_kill_9_of_one_whose_next_pod_starts_empty(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    objects, tasks = DirectoryStore(tmp_path / "store"), _tasks(tmp_path / "raw")
    first, killed, again, hold = (tmp_path / name for name in ("first", "killed", "again", "hold"))
    for folder in (first, killed, again, hold):
        folder.mkdir()
    store = f"DirectoryStore(Path({str(tmp_path / 'store')!r}))"
    _killed_at_the_last(
        f"IndexedShards({store}, 'shards/', index=1, count=2).make(FUNCTION, TASKS, OUT, TELL)", tasks, killed, hold
    )
    stored = {key: (tmp_path / "store" / key).stat().st_mtime_ns for key in objects.list("shards/")}
    assert sorted(Path(key).name for key in stored) == [n for n in expected if n.startswith("out-b")]
    waits: list[float] = []

    def others_go_on(seconds: float) -> None:
        waits.append(seconds)
        IndexedShards(objects, "shards/", index=1, count=2).make(SHOUT, tasks, again, _tell)

    indices = IndexedShards(objects, "shards/", index=0, count=2, sleep=others_go_on)
    manifests = indices.run(SHOUT, tasks, first, _tell)
    assert [m.name for m in manifests] == ["out-a", "out-b", "out-c", "out-late"]
    assert _contents(first) == expected
    assert len(waits) == 1
    for key, time_ns in stored.items():
        assert (tmp_path / "store" / key).stat().st_mtime_ns == time_ns, f"{key} was made again"
    indices.remove()
    assert list(objects.list("shards/")) == []


def test_what_lies_damaged_in_the_store_is_made_again_by_its_index_and_by_nobody_else(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    objects, tasks = DirectoryStore(tmp_path / "store"), _tasks(tmp_path / "raw")
    for index in (1, 0):
        out = tmp_path / f"of-{index}"
        out.mkdir()
        IndexedShards(objects, "shards/", index=index, count=2).make(SHOUT, tasks, out, _tell)
    [damaged] = [key for key in objects.list("shards/") if key.endswith("out-b.jsonl.zst")]
    objects.put(damaged, objects.get(damaged)[:-9])
    fresh, waits = tmp_path / "fresh", list[float]()
    fresh.mkdir()

    def its_index_comes_back(seconds: float) -> None:
        waits.append(seconds)
        empty = tmp_path / "empty"
        empty.mkdir()
        IndexedShards(objects, "shards/", index=1, count=2).make(SHOUT, tasks, empty, _tell)

    IndexedShards(objects, "shards/", index=0, count=2, sleep=its_index_comes_back).run(SHOUT, tasks, fresh, _tell)
    assert _contents(fresh) == expected
    assert len(waits) == 1


@pytest.mark.serial
def test_a_shard_that_kills_its_workers_ends_the_work_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shard_lab.KILL_ALWAYS, "1")
    with pytest.raises(AbruzziError, match=r"3 processes in turn died over this shard, the last with signal 9"):
        LocalProcesses(2).run(SHOUT, _tasks(tmp_path / "raw", ("a", "b")), tmp_path, _tell)


@pytest.mark.serial
def test_an_error_in_a_worker_and_a_stop_reach_the_caller(tmp_path: Path) -> None:
    tasks = _tasks(tmp_path / "raw", ("a", "b"))
    tasks[1].parent.write_bytes(tasks[1].parent.read_bytes()[:-10])
    with pytest.raises(AbruzziError, match=r"b\.jsonl\.zst: cut short or changed") as error:
        LocalProcesses(2).run(SHOUT, tasks, tmp_path, _tell)
    assert error.value.code == "bad_data"

    digest, _ = write_rows(tmp_path / "bug.jsonl.zst", iter([{"text": "bug", "source": "s"}]))
    tasks = [*_tasks(tmp_path / "more", ("a",)), ShardTask(name="b", parent=tmp_path / "bug.jsonl.zst", digest=digest)]
    with pytest.raises(AbruzziError, match=r"bug\.jsonl\.zst: LookupError"):
        LocalProcesses(2).run(SHOUT, tasks, tmp_path, _tell)

    def stop(done: int, total: int, message: str) -> None:
        raise AbruzziError("preempted", "told to stop")

    with pytest.raises(AbruzziError, match="told to stop"):
        LocalProcesses(2).run(SHOUT, _tasks(tmp_path / "more", ("a", "b")), tmp_path, stop)


def test_unfit_input_ends_the_work_before_it_begins(tmp_path: Path) -> None:
    tasks = _tasks(tmp_path / "raw", ("a", "b"))
    missing = ShardTask(name="m", parent=tmp_path / "nowhere.jsonl.zst", digest="sha256:0")
    (tmp_path / "empty.jsonl.zst").touch()
    empty = ShardTask(name="e", parent=tmp_path / "empty.jsonl.zst", digest=digest_of(b""))
    for bad, said in (
        ([*tasks, missing], "no such shard"),
        ([*tasks, empty], "the shard is empty"),
        ([], "no shard"),
        ([*tasks, tasks[0]], "Two shards"),
    ):
        with pytest.raises(AbruzziError, match=said):
            LocalProcesses(2).run(SHOUT, bad, tmp_path, _tell)
    assert not list(tmp_path.glob("out-*"))


def test_a_shard_without_rows_or_with_a_bad_line_is_named(tmp_path: Path) -> None:
    digest, _ = write_rows(tmp_path / "none.jsonl.zst", iter(()))
    with pytest.raises(AbruzziError, match=r"none\.jsonl\.zst: the shard has no row"):
        process_shard(SHOUT, ShardTask(name="o", parent=tmp_path / "none.jsonl.zst", digest=digest), tmp_path)
    digest, _ = write_rows(tmp_path / "bad.jsonl.zst", iter([{"text": "fine"}, {"text": ""}]))
    packed = (tmp_path / "bad.jsonl.zst").read_bytes()
    with pytest.raises(AbruzziError, match=r"bad:\d+: damaged"):
        list(read_rows(packed[:-6], "bad"))
