"""Near-duplicates: our corpus stage against datatrove's four MinHash stages, end to end, on the same documents with the same parameters.

    python bench/minhash.py [--out FILE] [--rounds 5] [--documents 5000]

Both read the same JSON lines (real code and documentation, and copies of a third of it with few to many words changed), on two processes,
each as a command of its own, start-up included, in turns. Ours is `curate` and `build_corpus` with nothing but `near_dedup`: it also
divides into train and held-out and writes packed shards. datatrove lives in `.bench-envs/datatrove`, made by uv at the first run; it runs
as shipped (spaCy's tokenizer for English) and, to be fair, with `str.split` in its place ("lean").
Recall is that of pairs whose exact Jaccard similarity of word 5-grams, by brute force over all pairs, is at least the threshold: a pair is
found when not both of it are kept. Targets: at least 5 times datatrove end to end, recall at least 0.99 and at most half a point below datatrove's, signatures at
least 10 MB/s a core. `ok` asks the first of the lean variant, too, which is more than the target says.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rival_environments import environment

from abruzzi.contracts.recipe import CorpusData
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.curation.run import curate
from abruzzi_jobs.data.minhash import MinHash
from abruzzi_jobs.data.processing.local import LocalProcesses
from abruzzi_jobs.data.shingles import shingles
from abruzzi_jobs.data.sources import SHIPPED, resolve
from abruzzi_jobs.data.text_shards import read_split

DATATROVE = "datatrove==0.10.1"
NEEDS = ("spacy>=3.8", "tokenizers", "xxhash<4", "orjson", "nltk", "tldextract", "regex", "fasteners")
RIVAL = Path(__file__).with_name("minhash_datatrove.py")
PARAMETERS = MinHash()
WORKERS = 2
SIGN_ROUNDS = 5
SHARDS = 8
PIECE_CHARACTERS = 4000
CHANGED = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.3)
"""Share of words that a copy has changed."""
SOURCES = ("python-docs", "python-stdlib", "sympy")
TARGET_RATIO, TARGET_RECALL, TARGET_MB_S = 5.0, 0.99, 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--ours", nargs=2, type=Path, metavar=("INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        return ours(*options.ours)
    from interleaved import machine, report  # with torch, which the timed command does without

    python = environment("datatrove", [DATATROVE, *NEEDS])
    with tempfile.TemporaryDirectory(prefix="minhash-") as folder:
        result = measure(Path(folder), python, options)
    result["machine"] = machine(threads=WORKERS)
    report(result, out=options.out)
    return 0 if result["ok"] else 1


def measure(folder: Path, python: Path, options: argparse.Namespace) -> dict[str, Any]:
    from interleaved import summary

    corpus = folder / "corpus"
    texts = write_corpus(corpus, options.documents)
    size = sum(len(t.encode()) for t in texts)
    shape = [str(n) for n in (PARAMETERS.bands, PARAMETERS.rows, PARAMETERS.shingle_words)]
    commands = {
        "abruzzi": [sys.executable, __file__, "--ours"],
        "datatrove": [str(python), str(RIVAL), "dedup"],
        "datatrove lean": [str(python), str(RIVAL), "dedup"],
    }
    tails = {"abruzzi": [], "datatrove": [*shape, str(WORKERS)], "datatrove lean": [*shape, str(WORKERS), "--lean"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    loads = []
    for number in range(options.rounds):
        names = list(commands) if number % 2 == 0 else list(reversed(commands))
        for name in names:
            out = folder / name
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            loads.append(os.getloadavg()[0])
            started = time.perf_counter()
            run([*commands[name], str(corpus), str(out), *tails[name]])
            seconds[name].append(time.perf_counter() - started)
    pairs = similar_pairs(texts, PARAMETERS.threshold)
    alike = {n for pair in similar_pairs(texts, 0.5) for n in pair}
    kept = {"abruzzi": ours_kept(folder / "abruzzi"), **{n: kept_by_datatrove(folder / n) for n in list(commands)[1:]}}
    found = {name: sum(not (a in k and b in k) for a, b in pairs) / len(pairs) for name, k in kept.items()}
    wrong = {name: len(set(range(len(texts))) - k - alike) for name, k in kept.items()}
    signing, signed = sign(python, folder, texts, shape)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    ratio = {name: median[name] / median["abruzzi"] for name in list(commands)[1:]}
    rates = {name: signed / 1e6 / statistics.median(s) for name, s in signing.items()}
    return {
        "corpus": {"documents": len(texts), "text_bytes": size, "sources": SOURCES, "shards": SHARDS},
        "parameters": {**asdict(PARAMETERS), "workers": WORKERS},
        "versions": {"datatrove": DATATROVE},
        "end_to_end": {name: summary(s) for name, s in seconds.items()},
        "times_faster": ratio,
        "similar_pairs": len(pairs),
        "recall": found,
        "kept": {name: len(k) for name, k in kept.items()},
        "removed_without_a_partner_of_half_similarity": wrong,
        "signatures_mb_per_second_a_core": rates,
        "signed_bytes": signed,
        "signatures": {name: summary(s) for name, s in signing.items()},
        "load_average_at_each_start": loads,
        "targets": {"times_faster": TARGET_RATIO, "recall": TARGET_RECALL, "signatures_mb_per_second": TARGET_MB_S},
        "ok": min(ratio.values()) >= TARGET_RATIO
        and found["abruzzi"] >= TARGET_RECALL
        and found["abruzzi"] >= found["datatrove"] - 0.005
        and rates["abruzzi"] >= TARGET_MB_S,
    }


def ours(source: Path, out: Path) -> int:
    pattern = f"{source}/*.jsonl"
    near = {"threshold": PARAMETERS.threshold, "shingle_words": PARAMETERS.shingle_words}
    near |= {"bands": PARAMETERS.bands, "rows": PARAMETERS.rows}
    config = CorpusData.model_validate(
        {"sources": [pattern], "dedup": "none", "min_document_bytes": 0, "near_dedup": near}
    )
    sources = [resolve(pattern, text_field="text")]
    curated = curate(sources, config, work=out / "work", executor=LocalProcesses(WORKERS))
    (out / "corpus").mkdir()
    build_corpus(curated.sources, config, out=out / "corpus", curation=curated.report)
    return 0


def write_corpus(folder: Path, documents: int) -> list[str]:
    """Two thirds are pieces of real documents, a third copies of some of them with words changed. A text begins with its number."""
    rng = random.Random(11)
    pieces: list[str] = []
    for name in SOURCES:
        for document in SHIPPED[name].read():
            text = document.text.encode("utf-8", "replace").decode()
            pieces += [text[i : i + PIECE_CHARACTERS] for i in range(0, len(text) - PIECE_CHARACTERS, PIECE_CHARACTERS)]
    rng.shuffle(pieces)
    texts = pieces[: documents * 2 // 3]
    words = sorted({w for t in texts[:200] for w in t.split()})
    while len(texts) < documents:
        share = rng.choice(CHANGED)
        original = texts[rng.randrange(documents * 2 // 3)]
        texts.append(" ".join(rng.choice(words) if rng.random() < share else w for w in original.split(" ")))
    rng.shuffle(texts)
    texts = [f"document{n:06d}\n{t}" for n, t in enumerate(texts)]
    folder.mkdir()
    for shard in range(SHARDS):
        with (folder / f"{shard:03d}.jsonl").open("w", encoding="utf-8") as out:
            for number in range(shard * len(texts) // SHARDS, (shard + 1) * len(texts) // SHARDS):
                out.write(json.dumps({"id": str(number), "text": texts[number]}, ensure_ascii=False) + "\n")
    return texts


def similar_pairs(texts: list[str], threshold: float) -> list[tuple[int, int]]:
    """All pairs by exact Jaccard similarity of their sets of shingles: brute force over an inverted index."""
    cut = shingles(texts, words=PARAMETERS.shingle_words)
    sets = [np.unique(cut.hashes[a:b]) for a, b in zip(cut.starts[:-1], cut.starts[1:], strict=True)]
    sizes = np.array([len(s) for s in sets])
    owners = np.repeat(np.arange(len(sets)), sizes)
    hashes, column = np.unique(np.concatenate(sets), return_inverse=True)
    order = np.argsort(column, kind="stable")
    holders, starts = owners[order], np.searchsorted(column[order], np.arange(len(hashes) + 1))
    ends = np.cumsum(sizes)
    found = []
    for number in range(len(sets)):
        columns = column[ends[number] - sizes[number] : ends[number]]
        common = np.zeros(len(sets), np.int64)
        for c in columns[starts[columns + 1] - starts[columns] > 1]:
            common[holders[starts[c] : starts[c + 1]]] += 1
        common[: number + 1] = 0
        union = sizes + sizes[number] - common
        found += [
            (number, int(other))
            for other in np.flatnonzero(common >= threshold * np.maximum(union, 1))
            if common[other]
        ]
    return found


def ours_kept(out: Path) -> set[int]:
    return {_number(r.text) for split in ("train", "heldout") for r in read_split(out / "corpus", split)}


def kept_by_datatrove(out: Path) -> set[int]:
    found = set()
    for path in (out / "kept").glob("*.jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            found |= {_number(json.loads(line)["text"]) for line in lines}
    return found


def _number(text: str) -> int:
    return int(text[len("document") : len("document000000")])


def sign(python: Path, folder: Path, texts: list[str], shape: list[str]) -> tuple[dict[str, list[float]], int]:
    """(seconds of signing a sample of the texts on one core, bytes of the sample); each program in its own process, one after the other."""
    texts = texts[: max(50, len(texts) // SHARDS)]
    sample = folder / "sample"
    sample.mkdir()
    (sample / "000.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    seconds: dict[str, list[float]] = {"abruzzi": []}
    for number in range(SIGN_ROUNDS + 1):
        started = time.perf_counter()
        PARAMETERS.signatures(texts)
        if number:
            seconds["abruzzi"].append(time.perf_counter() - started)
    for name, more in (("datatrove", []), ("datatrove lean", ["--lean"])):
        command = [str(python), str(RIVAL), "sign", str(sample), *shape, str(SIGN_ROUNDS), *more]
        seconds[name] = [float(line) for line in run(command).splitlines()[-SIGN_ROUNDS:]]
    return seconds, sum(len(t.encode()) for t in texts)


def run(command: list[str]) -> str:
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])}… ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
