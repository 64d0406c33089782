"""What an artifact says of its rows: small JSON files beside them. Stages wrote them, so nothing in them is taken for granted. Blocks: for threads."""

from __future__ import annotations

import json
import re
from typing import Any

from abruzzi.artifacts.row_filter import shown
from abruzzi.artifacts.rows import Shard, nouns, too_large
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.dataset import DatasetOut, NounOut
from abruzzi.contracts.errors import NotFound
from abruzzi.store import ObjectStore

FACTS_BYTES = 8 << 20
_FACTS = re.compile(r"[a-z][a-z0-9_]{0,31}\.json")
_DESCRIBED_BY = {"train": "corpus", "heldout": "corpus", "cloze": "corpus", "tools": "catalogue"}
"""Others by a file of their own name."""
_COUNTED_AS = {"train": "train_documents", "heldout": "heldout_documents", "cloze": "cloze_items", "tools": "tools"}


def read_facts(objects: ObjectStore, manifest: Manifest, prefix: str, name: str) -> dict[str, Any]:
    """`<name>.json` of the artifact, such as corpus.json. Raises NotFound, CorruptArtifact, AbruzziError `too_large`."""
    entry = next((e for e in manifest.files if e.path == f"{name}.json"), None)
    if entry is None:
        raise NotFound("facts", name, hint=f"It has: {', '.join(_names(manifest)[:20]) or 'none'}.")
    if entry.size_bytes > FACTS_BYTES:
        raise too_large(manifest, f"{entry.path} has {entry.size_bytes} bytes")
    shard = Shard(objects, manifest, prefix, entry)
    try:
        facts = json.loads(objects.get(shard.checked()))
    except (ValueError, RecursionError) as error:
        shard.damaged(f"is no JSON ({error})")
    if not isinstance(facts, dict):
        shard.damaged("is no JSON object")
    return shown(facts, None)


def describe(objects: ObjectStore, manifest: Manifest, prefix: str) -> DatasetOut:
    """Nouns with their counts. Raises CorruptArtifact where a file that describes them is damaged."""
    names = _names(manifest)
    read: dict[str, dict[str, Any]] = {}
    found: list[NounOut] = []
    for noun, size_bytes in nouns(manifest).items():
        name = _DESCRIBED_BY.get(noun, noun)
        if name not in names:
            found.append(
                NounOut(noun=noun, rows=None, fates={}, teacher=None, described_by=None, size_bytes=size_bytes)
            )
            continue
        facts = read[name] = read[name] if name in read else read_facts(objects, manifest, prefix, name)
        found.append(_noun(noun, facts, name, size_bytes))
    return DatasetOut(nouns=found, facts=names)


def _names(manifest: Manifest) -> list[str]:
    return sorted(e.path.removesuffix(".json") for e in manifest.files if _FACTS.fullmatch(e.path))


def _noun(noun: str, facts: dict[str, Any], name: str, size_bytes: int) -> NounOut:
    teacher, fates = facts.get("teacher"), facts.get("fates")
    counted = facts.get(_COUNTED_AS.get(noun, "rows"))
    shards = facts.get("shards")
    if counted is None and isinstance(shards, list):
        counted = sum(
            shard["records"] for shard in shards if isinstance(shard, dict) and isinstance(shard.get("records"), int)
        )
    return NounOut(
        noun=noun,
        rows=counted if isinstance(counted, int) else None,
        fates={k: v for k, v in fates.items() if isinstance(v, int)} if isinstance(fates, dict) else {},
        teacher=teacher if isinstance(teacher, str) else None,
        described_by=name,
        size_bytes=size_bytes,
    )
