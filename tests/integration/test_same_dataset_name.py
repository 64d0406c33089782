"""Two runs that write a dataset of the same name at the same time, on a real platform: both succeed, and each has its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from abruzzi.contracts.states import ArtifactKind, RunState

pytestmark = pytest.mark.slow

RECIPE = """
version = 1
name = "same-name"

[[stage]]
id = "gate"
kind = "container"
[stage.container]
command = ["cat", "{gate}"]

[[stage]]
id = "corpus"
kind = "corpus"
needs = ["gate"]
[stage.data]
sources = ["{source}"]
held_out_fraction = 0.2
"""


class OneOfTwo:
    """A run with documents of its own, which waits at its gate until it is opened."""

    def __init__(self, disturbed: Any, folder: Path, word: str) -> None:
        folder.mkdir()
        self.word, self._gate, source = word, folder / "gate", folder / "texts.jsonl"
        os.mkfifo(self._gate)
        texts = [f"Document {n} says {word}. " * 10 for n in range(40)]
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        self.id: str = disturbed.submit(RECIPE.format(gate=self._gate, source=source))

    def opened_for_writing(self) -> int | None:
        """Once somebody reads at the gate, which is closed as soon as the descriptor is."""
        try:
            return os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None


def command(home: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "abruzzi.cli.main", *arguments, "--json"],
        env={**os.environ, "ABRUZZI_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_runs_that_write_one_dataset_name_at_once_both_succeed_and_each_has_its_own(
    disturbed: Any, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda word: OneOfTwo(disturbed, tmp_path / word, word), ("heron", "otter")))
    gates: dict[str, int] = {}
    for run in runs:
        disturbed.until(
            lambda run=run: gates.update({run.id: fd}) or True if (fd := run.opened_for_writing()) else False
        )
    for gate in gates.values():  # both stages begin now
        os.close(gate)
    for run in runs:
        ended = disturbed.wait_end(run.id)
        assert ended.state is RunState.SUCCEEDED, f"{ended.reason}\n{disturbed.last_words()}"

    with disturbed.client() as client:
        everything = {a.id: a for run in runs for a in client.artifacts.list(run.id, kind=ArtifactKind.CORPUS)}
        assert sorted(a.run_id for a in everything.values()) == sorted(run.id for run in runs)
        for run in runs:
            [mine] = client.artifacts.list(run.id, kind=ArtifactKind.CORPUS)
            assert (mine.name, mine.stage_id, mine.run_id) == ("corpus", "corpus", run.id)
            assert f"/{run.id}/" in mine.manifest_key
            texts = [row.row["text"] for row in client.artifacts.rows(mine.id, "train")]
            assert len(texts) > 10
            assert {run.word in text for text in texts} == {True}
            assert [a["id"] for a in command(disturbed.home, "artifacts", "list", run.id)] == [mine.id]
    assert len({a.digest for a in everything.values()}) == 2
    listed = {r["id"] for r in command(disturbed.home, "runs", "list")}
    assert listed >= {run.id for run in runs}
