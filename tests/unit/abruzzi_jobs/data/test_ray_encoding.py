"""Shards as tasks of a real Ray (on this machine): the same files as one process makes, and damage is told as here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abruzzi.contracts.curation import CurationTables
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import TokenizerConfig
from abruzzi_jobs.data.curation.decontamination import NgramIndex
from abruzzi_jobs.data.curation.function import INDEX_FILE, curation_function
from abruzzi_jobs.data.processing.executor import Executor
from abruzzi_jobs.data.processing.local import LocalProcesses
from abruzzi_jobs.data.processing.ray_tasks import RayTasks
from abruzzi_jobs.data.processing.shard import ShardTask, digest_of, write_rows
from abruzzi_jobs.data.ray_encoding import RayEncoder
from abruzzi_jobs.data.text_shards import CORPUS_FILE, TextRecord, TextShardWriter
from abruzzi_jobs.data.tokenizer import build_dataset, load_tokenizer, train_tokenizer
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder

pytestmark = [pytest.mark.serial, pytest.mark.slow]  # Ray gives up what does not answer in its time
CONFIG = TokenizerConfig(vocab_size=300, train_bytes=50_000, shard_tokens=3_000)
TRICKY = "Ends <|endoftext|> inside, naïve café 日本語 🏔️ \u2028\t  spaces   \n\n tail"
DAMAGED = "train-00003.jsonl.zst"


def make_corpus(folder: Path) -> Path:
    """Many small shards of two domains."""
    fresh_folder(folder)
    shards: list[dict[str, Any]] = []
    sizes = {}
    for split, count in (("train", 240), ("heldout", 24)):
        writer = TextShardWriter(folder, split, shard_text_bytes=4_000)
        texts = [f"{TRICKY} {number} " * (number % 7 + 1) for number in range(count)]
        for number, text in enumerate(texts):
            writer.write(TextRecord(id=f"{split}-{number}", text=text, source="own", domain="ab"[number % 2]))
        shards += writer.close()
        sizes[f"{split}_bytes"] = sum(len(text.encode()) for text in texts)
    (folder / CORPUS_FILE).write_text(json.dumps({"shards": shards, **sizes}))
    return folder


def make_shards(folder: Path, executor: Executor) -> str:
    """Curated ones; what an executor says of a damaged shard."""
    fresh_folder(folder)
    rows = [{"text": f"Text {n} of {n % 5}.", "source": "s", "domain": "web", "name": str(n)} for n in range(60)]
    (folder / INDEX_FILE).write_bytes(
        index := NgramIndex.build([("one", ["text 3 of 3 text 8 of 3"])], words=13).to_bytes()
    )
    tables = CurationTables.model_validate({"normalise": True, "near_dedup": {}})
    function = curation_function(tables, index_digest=digest_of(index))
    parents = fresh_folder(folder / "parents")
    tasks = []
    for number in range(6):
        path = parents / f"{number}.jsonl.zst"
        digest, _ = write_rows(path, iter(rows[number * 10 : number * 10 + 10]))
        tasks.append(ShardTask(name=f"made-{number}", parent=path, digest=digest))
    executor.run(function, tasks[:2], folder, lambda *_: None)
    executor.run(function, tasks, folder, lambda *_: None)
    digest, _ = write_rows(parents / "bad.jsonl.zst", iter(()))
    with pytest.raises(AbruzziError) as caught:
        executor.run(
            function, [ShardTask(name="bad", parent=parents / "bad.jsonl.zst", digest=digest)], folder, lambda *_: None
        )
    return str(caught.value)


def encode_on_ray(corpus: Path, damaged: Path, tokenizer: Path, out: Path) -> dict[str, str]:
    """In a process of its own: Ray reads its token's settings when it is imported."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    try:
        encode, known = RayEncoder(ray), load_tokenizer(tokenizer)
        build_dataset(corpus, known, CONFIG, tokenizer_digest="d", out=out, encode=encode)
        nodes = len(encode.nodes)
        shards = make_shards(out.parent / "shards-there", RayTasks(ray))
        with pytest.raises(AbruzziError) as caught:
            build_dataset(
                damaged, known, CONFIG, tokenizer_digest="d", out=fresh_folder(damaged / "out"), encode=encode
            )
        return {"code": caught.value.code, "message": caught.value.message, "nodes": str(nodes), "shards": shards}
    finally:
        ray.shutdown()


def test_ray_makes_the_same_files_as_one_process_and_names_a_damaged_shard(tmp_path: Path) -> None:
    corpus, damaged = make_corpus(tmp_path / "corpus"), make_corpus(tmp_path / "damaged")
    (damaged / DAMAGED).write_bytes((damaged / DAMAGED).read_bytes()[:-20])
    tokenizer, here, there = (fresh_folder(tmp_path / name) for name in ("tokenizer", "here", "there"))
    build_dataset(corpus, train_tokenizer(corpus, CONFIG, out=tokenizer), CONFIG, tokenizer_digest="d", out=here)
    environment = {
        **os.environ,
        "HOME": str(fresh_folder(tmp_path / "home")),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-that-nobody-else-has",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, __file__, *map(str, (corpus, damaged, tokenizer, there))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    made = {name: path.read_bytes() for name, path in files_of(here).items()}
    assert len(made) > 6
    assert {name: path.read_bytes() for name, path in files_of(there).items()} == made
    told = json.loads(done.stdout.splitlines()[-1])
    assert make_shards(tmp_path / "shards-here", LocalProcesses(1)) == told["shards"]
    here, there = files_of(tmp_path / "shards-here"), files_of(tmp_path / "shards-there")
    assert len(here) == 6 + 1 + 6 * 3 + 1
    assert {n: p.read_bytes() for n, p in here.items()} == {n: p.read_bytes() for n, p in there.items()}
    assert (told["code"], told["nodes"]) == ("bad_data", "1")
    assert told["message"].startswith(f"{DAMAGED}:")


if __name__ == "__main__":
    print(json.dumps(encode_on_ray(*(Path(argument) for argument in sys.argv[1:]))))
