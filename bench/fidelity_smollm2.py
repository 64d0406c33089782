"""Takes every answer that SmolLM2 gave in a run of recipes/rephrase.toml, with the part it was asked to rewrite: bench/data/smollm2_rewrites.jsonl,
which bench/fidelity.py shows what it says of.

    abruzzi run recipes/rephrase.toml --wait && abruzzi artifacts pull … && python bench/fidelity_smollm2.py FOLDER
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from abruzzi_jobs.chat.calls import CALLS_FILE
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.data.text_shards import zstd_lines
from abruzzi_jobs.rephrase.rewriting import tidied

OUT = Path(__file__).parent / "data" / "smollm2_rewrites.jsonl"
_PART = re.compile(r"<text>\n(.*)\n</text>", re.DOTALL)


def main(folder: Path) -> None:
    rows = {call: row for row in read_rows(folder, "rewrites") for call in row["call_ids"]}
    found = []
    for shard in json.loads((folder / CALLS_FILE).read_text())["shards"]:
        with (folder / shard["name"]).open("rb") as packed:
            found += [json.loads(line) for line in zstd_lines(packed)]
    lines = []
    for call in sorted(found, key=lambda c: c["id"]):
        part = _PART.search(call["request"]["messages"][-1]["content"])
        if part is None or "response" not in call or call["id"] not in rows:
            continue
        row, said = rows[call["id"]], call["response"]
        lines.append(
            {
                "source": row["source"], "document": row["name"], "style": row["style"], "perspective": row["perspective"],
                "text": part[1], "context": row["source_text"], "rewrite": tidied(said["text"]),
                "truncated": "yes" if said["finish_reason"] == "length" else "", "generator": said["generator"],
                "prompt_version": row["prompt_version"],
            }
        )  # fmt: skip
    OUT.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Of a pulled corpus artifact.")
    main(parser.parse_args().folder)
