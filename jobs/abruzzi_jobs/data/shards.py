"""Token shards on disk, and what stands in dataset.json.

A shard is two files: `<name>.bin`, little-endian uint16 or uint32 tokens, and `<name>.idx`, int64 document boundaries
(documents + 1 of them, the first 0, the last the number of tokens). Every document begins with <|endoftext|>: that one token
both ends the document before it and opens this one, so each token, the first too, is predicted from something.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abruzzi.contracts.errors import AbruzziError

DATASET_FILE = "dataset.json"
END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"


@dataclass(frozen=True, kw_only=True)
class Shard:
    name: str
    split: str
    """`train` or `heldout`."""
    domain: str
    """Of all its documents; empty where a shard mixes domains."""
    tokens: int
    """With the <|endoftext|> of each document."""
    documents: int
    text_bytes: int
    """UTF-8 bytes of its documents' text; <|endoftext|> counts none."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """dataset.json"""

    dtype: str
    vocab_size: int
    end_of_text: int
    pad: int
    tokenizer_digest: str
    bytes_per_token: float
    """Of the training text, <|endoftext|> not counted."""
    token_bytes: tuple[int, ...]
    """UTF-8 bytes that each token stands for: exact bits per byte need no decoding. Special tokens stand for none."""
    shards: tuple[Shard, ...]
    domains: dict[str, dict[str, float]] = field(default_factory=dict)
    """{domain: {"train_bytes", "train_documents", "heldout_bytes", "heldout_documents", "bytes_per_token"}}"""
    version: int = 1

    def of_split(self, split: str) -> tuple[Shard, ...]:
        return tuple(s for s in self.shards if s.split == split)

    def tokens(self, split: str) -> int:
        return sum(s.tokens for s in self.of_split(split))


def write_shard(directory: Path, shard: Shard, *, documents: Iterable[NDArray[np.integer]], dtype: str) -> None:
    """Writes both files. Each document is an array of its tokens, <|endoftext|> first."""
    boundaries = [0]
    with (directory / f"{shard.name}.bin").open("wb") as out:
        for document in documents:
            out.write(np.ascontiguousarray(document, dtype=np.dtype(dtype).newbyteorder("<")).tobytes())
            boundaries.append(boundaries[-1] + len(document))
    np.asarray(boundaries, dtype="<i8").tofile(directory / f"{shard.name}.idx")
    if boundaries[-1] != shard.tokens or len(boundaries) - 1 != shard.documents:
        raise ValueError(
            f"{shard.name}: wrote {boundaries[-1]} tokens of {len(boundaries) - 1} documents, the shard says {shard.tokens} of {shard.documents}"
        )


def read_shard(directory: Path, shard: Shard, *, dtype: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """(tokens, boundaries), both memory-mapped. Raises AbruzziError bad_data when a file is missing or its size is wrong."""
    bin_path, idx_path = directory / f"{shard.name}.bin", directory / f"{shard.name}.idx"
    kind = np.dtype(dtype).newbyteorder("<")
    for path, expected in ((bin_path, shard.tokens * kind.itemsize), (idx_path, (shard.documents + 1) * 8)):
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            seen = "is missing" if found is None else f"has {found} bytes"
            raise AbruzziError(
                "bad_data",
                f"{path.name}: the file {seen}, {DATASET_FILE} says {expected} bytes.",
                hint="Run the tokenize stage again, or fetch the dataset artifact again.",
            )
    if not shard.tokens:
        return np.zeros(0, kind), np.fromfile(idx_path, "<i8")
    # As plain arrays over the mapping: slices of np.memmap itself cost microseconds each.
    return np.memmap(bin_path, kind, "r").view(np.ndarray), np.memmap(idx_path, np.dtype("<i8"), "r").view(np.ndarray)


def write_info(directory: Path, info: DatasetInfo) -> None:
    (directory / DATASET_FILE).write_text(json.dumps(asdict(info), indent=1) + "\n", encoding="utf-8")


def read_info(directory: Path) -> DatasetInfo:
    """Raises AbruzziError bad_data when the file is missing or is of another shape."""
    path = directory / DATASET_FILE
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        raw["shards"] = tuple(Shard(**s) for s in raw["shards"])
        raw["token_bytes"] = tuple(raw["token_bytes"])
        return DatasetInfo(**raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AbruzziError(
            "bad_data",
            f"{path}: not a dataset's description ({error}).",
            hint="Give the stage the `dataset` output of a tokenize stage.",
        ) from error
