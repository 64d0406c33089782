"""A stage for the browser tests that commits artifacts with rows: a corpus, rewrites, tools, trajectories, conversations, rollouts and attacks, by their
real writers.

Environment: ROWS (rewrites), WAITING (conversations about which people decide).
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from browser import data_rows

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import CorpusData
from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.data.sources import resolve
from abruzzi_jobs.safety.run import write as write_attacks
from abruzzi_jobs.synthesis.catalogue import write_catalogue

TEXTS = 120
NOUNS = ("corpus", "tools", "trajectories", "conversations", "rollouts", "redteam")


def corpus(context: StageContext, folder: Path) -> None:
    own = context.scratch / "texts.jsonl"
    documents = [{"text": f"Document {n} of a small corpus. " + "It says little. " * (n % 7), "domain": data_rows.DOMAINS[n % 3]} for n in range(TEXTS)]  # fmt: skip
    own.write_text("".join(json.dumps(document) + "\n" for document in [*documents, documents[0], {"text": "short"}]))
    sources = [resolve(str(own), text_field="text", store=context.spec.store)]
    build_corpus(sources, CorpusData(sources=(str(own),), min_document_bytes=20), out=folder)
    write(folder, "rewrites", data_rows.rewrites(int(os.environ.get("ROWS", "1200"))))
    (folder / "calls.json").write_text(json.dumps(data_rows.calls()))


def tools(folder: Path) -> None:
    made = [
        ToolSpec(
            name=f"multiply_{n}", description=f"Multiplies two numbers, and adds {n}.", source="mcp:calculator@1.0", licence="MIT",
            input_schema={"type": "object", "required": ["a", "b"], "properties": {
                "a": {"type": "integer", "description": "The first factor.", "minimum": 0},
                "b": {"type": "integer", "description": "The second factor."},
                "unit": {"type": "string", "enum": ["none", "percent"], "default": "none"},
            }},
        )
        for n in range(40)
    ]  # fmt: skip
    write_catalogue(folder, made, quarantined=[{"server": "mcp-liar", "version": "0.1", "reason": "server_lied"}])
    points = [
        {"x": math.cos(n) * n, "y": math.sin(n) * n, "name": tool.name, "source": tool.source}
        for n, tool in enumerate(made)
    ]
    (folder / "coverage.json").write_text(json.dumps({"version": 1, "points": points}))


def write(folder: Path, noun: str, rows: Iterable[dict[str, Any]]) -> None:
    writer = RowShardWriter(folder, noun, shard_bytes=200_000)
    for row in rows:
        writer.write(row)
    writer.close()


def main() -> int:
    context = StageContext.from_env()
    with Reporter.from_context(context) as reporter:
        folders = {name: context.scratch / name for name in NOUNS}
        for name, folder in folders.items():
            if name != "tools":
                folder.mkdir()
        corpus(context, folders["corpus"])
        tools(folders["tools"])
        write(folders["trajectories"], "trajectories", data_rows.trajectories())
        write(folders["conversations"], "conversations", data_rows.conversations(int(os.environ.get("WAITING", "3"))))
        write(folders["rollouts"], "rollouts", data_rows.rollouts())
        write_attacks(folders["redteam"], list(data_rows.attacks()), None, short={}, seed=1)
        for iteration in range(1, 21):
            reporter.log(data_rows.rl_metrics(iteration), step=iteration)
        reporter.log(
            {"chat/judge/calls": 96.0, "chat/judge/prompt_tokens": 39_360.0, "chat/judge/seconds": 230.0}, step=1
        )
        for name, folder in folders.items():
            files = {path.name: path for path in folder.iterdir()}
            context.commit(ArtifactKind(name), name, files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
