"""An artifact of 100 000 rows as the dashboard reads it: its first page, filters, a search, a deep link near its end.

.venv/bin/python bench/rows.py [--rows 100000] [--out FILE]

Every question goes through the service behind GET /v1/artifacts/{id}/rows, with the page's own parameters (50 rows, texts cut at 300 characters), and
follows `next_cursor` as the page does until it has a page or the end. The rival is what a user without it does: unpack everything and parse each line.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interleaved import interleaved_seconds, machine, report, summary

from abruzzi.artifacts.row_filter import Condition, RowFilter
from abruzzi.artifacts.rows import Place, read_rows
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.store import commit_artifact, open_store
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.data.row_shards import read_rows as read_all

PREFIX = "projects/default/runs/0123456789/rephrase/"
NOUN = "rewrites"
PAGE, CUT, ROUNDS = 50, 300, 5


def make(folder: Path, count: int) -> Manifest:
    """Rows of the size of rewrites: a source text, a rewrite, faults and scores."""
    draw = random.Random(0)
    words = [
        f"{a}{b}" for a in ("lo", "ka", "mi", "ters", "un", "vel") for b in ("ne", "rat", "sing", "do", "lem", "a")
    ]

    def text(length: int) -> str:
        return " ".join(draw.choices(words, k=length))

    out = folder / "rows"
    out.mkdir()
    writer = RowShardWriter(out, NOUN)
    for number in range(count):
        rejected = number % 4 == 3
        fate = "negation" if number == count - 3 else "number" if rejected else "kept"
        faults = [{"kind": fate, "layer": "rules", "detail": text(8)}] if rejected else []
        writer.write(
            {
                "id": f"{number:032x}", "fate": fate, "source": "bench", "licence": "CC0-1.0", "generator": "bench", "is_llm": True, "domain": "web",
                "name": f"document {number}", "style": "plain", "source_text": text(60), "text": text(60), "faults": faults, "scores": {"novelty": draw.random()},
            }
        )  # fmt: skip
    writer.close()
    spec = StageSpec(
        project_id="default", run_id="0123456789", stage_id="rephrase", attempt_id="0123456789-rephrase-1", epoch=1, kind=StageKind.REPHRASE,
        config={}, store=DirectoryStore(root=str(folder / "store")), output_prefix=PREFIX,
    )  # fmt: skip
    files = {path.name: path for path in out.iterdir()}
    _, manifest = commit_artifact(open_store(spec.store), spec, kind=ArtifactKind.CORPUS, name="corpus", files=files)
    return manifest


def main(count: int, out: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="abruzzi-rows-") as name:
        folder = Path(name)
        manifest = make(folder, count)
        objects = open_store(DirectoryStore(root=str(folder / "store")))
        requests: dict[str, int] = {}

        def ask(what: str, start: Place | None = None, **wanted: Any) -> Callable[[], None]:
            def run() -> None:
                place, found, asked = start or Place(), [], 0
                while place is not None and len(found) < PAGE:
                    matching = RowFilter(cut=CUT, **wanted)
                    page = read_rows(
                        objects, manifest, PREFIX, NOUN, start=place, limit=PAGE - len(found), matching=matching
                    )
                    place, asked = page.next, asked + 1
                    found += page.found
                requests[what] = asked

            return run

        def everything() -> None:
            sum(1 for row in read_all(folder / "rows", NOUN) if row["fate"] == "negation")

        began = time.perf_counter()
        ask("first page, cold")()
        cold = time.perf_counter() - began
        link: Place | None = Place()  # anywhere in the second shard is as far in as any: shards before it are not read
        while link is not None and not link.shard:
            link = read_rows(objects, manifest, PREFIX, NOUN, start=link, limit=PAGE, matching=RowFilter()).next
        questions = {
            "first page": ask("first page"),
            "a page at a deep link": ask("a page at a deep link", link),
            "filter: every fourth row": ask("filter: every fourth row", fates=frozenset({"number"})),
            "filter: one row near the end": ask("filter: one row near the end", fates=frozenset({"negation"})),
            "condition on a key: none": ask(
                "condition on a key: none", conditions=(Condition("faults.kind", "entity"),)
            ),
            "search: one document near the end": ask("search: one document near the end", text=f"document {count - 3}"),
            "rival: all rows read and parsed": everything,
        }
        seconds = interleaved_seconds(questions, rounds=ROUNDS, warmup=1)
        described = json.loads((folder / "rows" / f"{NOUN}.json").read_text())
        report(
            {
                "what": "an artifact of many rows, as the dashboard reads it",
                "rows": count,
                "shards": len(described["shards"]),
                "packed_bytes": sum(shard["size_bytes"] for shard in described["shards"]),
                "first_page_cold_s": cold,
                "seconds": {what: summary(found) for what, found in seconds.items()},
                "requests": requests,
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": machine(threads=1),
            },
            out=out,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    main(given.rows, given.out)
