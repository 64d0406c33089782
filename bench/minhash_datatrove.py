"""The rival of bench/minhash.py, run by its own environment: datatrove's four MinHash stages over JSON lines.

    python minhash_datatrove.py dedup INPUT OUTPUT BANDS ROWS WORDS WORKERS [--lean]
    python minhash_datatrove.py sign INPUT BANDS ROWS WORDS ROUNDS [--lean]

`--lean` takes `str.split` in the place of datatrove's spaCy tokenizer for English; its text is simplified before that.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import minhash
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter


class Split:
    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


if "--lean" in sys.argv:
    sys.argv.remove("--lean")
    minhash.load_word_tokenizer = lambda language: Split()


def configuration(bands: str, rows: str, words: str) -> minhash.MinhashConfig:
    return minhash.MinhashConfig(n_grams=int(words), num_buckets=int(bands), hashes_per_bucket=int(rows))


def dedup(source: str, target: str, bands: str, rows: str, words: str, workers: str) -> None:
    config = configuration(bands, rows, words)
    shards = len(list(Path(source).glob("*.jsonl")))
    work = Path(target) / "work"
    reader = JsonlReader(source, glob_pattern="*.jsonl")
    stages = (
        (shards, [reader, minhash.MinhashDedupSignature(str(work / "sigs"), config=config)]),
        (int(bands), [minhash.MinhashDedupBuckets(str(work / "sigs"), str(work / "buckets"), config=config)]),
        (1, [minhash.MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config)]),
        (shards, [reader, minhash.MinhashDedupFilter(str(work / "remove")), JsonlWriter(str(Path(target) / "kept"))]),
    )
    for number, (tasks, pipeline) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=int(workers), logging_dir=str(work / f"logs-{number}")
        ).run()


def sign(source: str, bands: str, rows: str, words: str, rounds: str) -> None:
    """Prints seconds of each round over all texts, on one core."""
    step = minhash.MinhashDedupSignature("/nonexistent", config=configuration(bands, rows, words))
    texts = [json.loads(line)["text"] for p in sorted(Path(source).glob("*.jsonl")) for line in p.open()]
    for number in range(int(rounds) + 1):
        started = time.perf_counter()
        for text in texts:
            shingles = step.get_shingles(text)
            if shingles.size:
                step.get_signature(shingles)
        if number:
            print(json.dumps(time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    {"dedup": dedup, "sign": sign}[sys.argv[1]](*sys.argv[2:])
