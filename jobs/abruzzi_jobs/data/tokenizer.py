"""A byte-level BPE tokenizer trained on the corpus, and the token shards made with it.

256 bytes, two special tokens, the rest merges. Text is never normalised, so tokens give back its bytes exactly, and text that
spells a special token is encoded as the characters it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import TokenizerConfig
from abruzzi_jobs.data.corpus import Progress, silent
from abruzzi_jobs.data.documents import choice
from abruzzi_jobs.data.encoding import Encode, encode_here, special_id, token_bytes
from abruzzi_jobs.data.shards import END_OF_TEXT, PAD, DatasetInfo, Shard, write_info, write_shard
from abruzzi_jobs.data.text_shards import read_corpus, read_split, shards_of

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_SCALE = 1 << 30


def train_tokenizer(corpus: Path, config: TokenizerConfig, *, out: Path, progress: Progress = silent) -> Tokenizer:
    """Trains on about `train_bytes` of the training text, whole documents chosen by their ids, and writes both files into `out`.

    The vocabulary is smaller than asked for where the text has no more pairs to merge. Raises AbruzziError bad_data when there
    is no training text.
    """
    total = int(read_corpus(corpus)["train_bytes"])
    share = min(1.0, config.train_bytes / max(total, 1))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        max_token_length=64,
    )
    texts = _sample(corpus, share, lambda done: progress(done, int(total * share), "training the tokenizer"))
    first = next(texts, None)
    if first is None:
        raise AbruzziError(
            "bad_data",
            f"{corpus}: no training text for the tokenizer ({total} bytes in all).",
            hint="Give the corpus more text, or raise tokenizer.train_bytes.",
        )
    tokenizer.train_from_iterator(_chain(first, texts), trainer=trainer)
    tokenizer.save(str(out / TOKENIZER_FILE))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    (out / TOKENIZER_CONFIG_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return load_tokenizer(out)


def load_tokenizer(directory: Path) -> Tokenizer:
    """Raises AbruzziError bad_data when the file is no tokenizer or lacks our special tokens."""
    path = directory / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise AbruzziError(
            "bad_data",
            f"{path}: not a tokenizer ({error}).",
            hint="Give the stage the `tokenizer` output of a tokenize stage.",
        ) from error
    for token in (END_OF_TEXT, PAD):
        if tokenizer.token_to_id(token) is None:
            raise AbruzziError(
                "bad_data", f"{path}: {token} is not in the vocabulary.", hint="Run the tokenize stage again."
            )
    tokenizer.encode_special_tokens = True
    return tokenizer


def end_of_text_id(tokenizer: Tokenizer) -> int:
    return special_id(tokenizer, END_OF_TEXT)


def build_dataset(
    corpus: Path,
    tokenizer: Tokenizer,
    config: TokenizerConfig,
    *,
    tokenizer_digest: str,
    out: Path,
    progress: Progress = silent,
    encode: Encode = encode_here,
) -> DatasetInfo:
    """Encodes both splits into shards in `out` and writes dataset.json. Held-out shards hold one domain each.

    `encode` may do it elsewhere: what is written depends on the order of the documents only.

    Raises AbruzziError bad_data where tokens do not stand for exactly the bytes of their text.
    """
    described = read_corpus(corpus)
    dtype = "uint16" if tokenizer.get_vocab_size() <= 1 << 16 else "uint32"
    writer = _ShardWriter(out, tokenizer, dtype=dtype, limit=config.shard_tokens)
    total = int(described["train_bytes"]) + int(described["heldout_bytes"])
    done = 0
    split_of = {shard: split for split in ("train", "heldout") for shard in shards_of(corpus, split)}
    for shard, documents in encode(tokenizer, list(split_of)):
        split = split_of[shard]
        for domain, tokens in documents:
            writer.add(split, domain, tokens)
            done += int(writer.lengths[tokens].sum())
        progress(done, total, f"encoding {split}")
    shards = writer.close()
    train_tokens = sum(s.tokens - s.documents for s in shards if s.split == "train")
    info = DatasetInfo(
        dtype=dtype,
        vocab_size=tokenizer.get_vocab_size(),
        end_of_text=special_id(tokenizer, END_OF_TEXT),
        pad=special_id(tokenizer, PAD),
        tokenizer_digest=tokenizer_digest,
        bytes_per_token=sum(s.text_bytes for s in shards if s.split == "train") / max(train_tokens, 1),
        token_bytes=tuple(int(n) for n in writer.lengths),
        shards=shards,
        domains=writer.domains(),
    )
    write_info(out, info)
    return info


def file_digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


class _ShardWriter:
    def __init__(self, out: Path, tokenizer: Tokenizer, *, dtype: str, limit: int) -> None:
        self.lengths = token_bytes(tokenizer)
        self._out, self._dtype, self._limit = out, dtype, limit
        self._eot = np.array([special_id(tokenizer, END_OF_TEXT)], dtype=np.int64)
        self._waiting: dict[tuple[str, str], list[NDArray[np.int64]]] = defaultdict(list)
        self._sizes: dict[tuple[str, str], int] = defaultdict(int)
        self._stems: dict[tuple[str, str], str] = {}
        self._written: dict[tuple[str, str], int] = defaultdict(int)
        self._shards: list[Shard] = []
        self._counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, split: str, domain: str, tokens: NDArray[np.int64]) -> None:
        key = (split, domain if split == "heldout" else "")
        self._waiting[key].append(np.concatenate([self._eot, tokens]))
        self._sizes[key] += len(tokens) + 1
        counts = self._counts[domain]
        counts[f"{split}_documents"] += 1
        counts[f"{split}_tokens"] += len(tokens)
        counts[f"{split}_bytes"] += int(self.lengths[tokens].sum())
        if self._sizes[key] >= self._limit:
            self._flush(key)

    def close(self) -> tuple[Shard, ...]:
        for key in list(self._waiting):
            self._flush(key)
        return tuple(self._shards)

    def domains(self) -> dict[str, dict[str, float]]:
        result: dict[str, dict[str, float]] = {}
        for domain, counts in sorted(self._counts.items()):
            tokens = counts["train_tokens"] + counts["heldout_tokens"]
            size = counts["train_bytes"] + counts["heldout_bytes"]
            result[domain] = {**dict(sorted(counts.items())), "bytes_per_token": size / max(tokens, 1)}
        return result

    def _flush(self, key: tuple[str, str]) -> None:
        documents = self._waiting.pop(key, [])
        self._sizes[key] = 0
        if not documents:
            return
        split, domain = key
        stem = self._stems.setdefault(key, self._stem(split, domain))
        shard = Shard(
            name=f"{stem}-{self._written[key]:05d}",
            split=split,
            domain=domain,
            tokens=sum(map(len, documents)),
            documents=len(documents),
            text_bytes=int(sum(self.lengths[d].sum() for d in documents)),
        )
        write_shard(self._out, shard, documents=documents, dtype=self._dtype)
        self._written[key] += 1
        self._shards.append(shard)

    def _stem(self, split: str, domain: str) -> str:
        """A file name for a domain, which may be any text of the user's."""
        if not domain:
            return split
        stem = f"{split}-{re.sub(r'[^a-z0-9]+', '-', domain.lower()).strip('-')[:40] or 'domain'}"
        return stem if stem not in self._stems.values() else f"{stem}-{len(self._stems)}"


def _sample(corpus: Path, share: float, tell: Any) -> Iterator[str]:
    done = 0
    for record in read_split(corpus, "train"):
        if choice(f"tokenizer\0{record.id}", _SCALE) < share * _SCALE:
            done += len(record.text)
            tell(done)
            yield record.text


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
