"""Documents as tokens, batch by batch, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.text_shards import TextRecord, read_text_shard
from abruzzi_jobs.data.token_text import special_ids

_BATCH_DOCUMENTS = 128

Encoded = tuple[str, NDArray[np.int64]]
"""(domain, tokens) of one document."""
Encode = Callable[[Tokenizer, Sequence[Path]], Iterator[tuple[Path, list[Encoded]]]]
"""Documents of text shards, part by part, each with its shard, in their order. Raises AbruzziError bad_data."""


def encode_here(tokenizer: Tokenizer, shards: Sequence[Path]) -> Iterator[tuple[Path, list[Encoded]]]:
    """In this process, on all threads that `tokenizers` takes."""
    for shard in shards:
        for documents in encode_records(tokenizer, read_text_shard(shard)):
            yield shard, documents


def encode_records(tokenizer: Tokenizer, records: Iterable[TextRecord]) -> Iterator[list[Encoded]]:
    """Raises AbruzziError bad_data where tokens do not stand for exactly the bytes of their text."""
    lengths, remaining = token_bytes(tokenizer), iter(records)
    while batch := list(islice(remaining, _BATCH_DOCUMENTS)):
        yield [
            (record.domain, tokens) for record, tokens in zip(batch, _encode(tokenizer, batch, lengths), strict=True)
        ]


def token_bytes(tokenizer: Tokenizer) -> NDArray[np.int32]:
    """[vocabulary]: UTF-8 bytes that each token stands for; special tokens stand for none.

    In a byte-level vocabulary each character is one byte.
    """
    lengths = np.zeros(tokenizer.get_vocab_size(), dtype=np.int32)
    for token, number in tokenizer.get_vocab().items():
        lengths[number] = len(token)
    lengths[special_ids(tokenizer)] = 0
    return lengths


def special_id(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise AbruzziError("bad_data", f"{token} is not in the vocabulary.", hint="Run the tokenize stage again.")
    return number


def _encode(tokenizer: Tokenizer, records: list[TextRecord], lengths: NDArray[np.int32]) -> Iterator[NDArray[np.int64]]:
    encodings = tokenizer.encode_batch_fast([r.text for r in records], add_special_tokens=False)
    for record, encoding in zip(records, encodings, strict=True):
        tokens = np.asarray(encoding.ids, dtype=np.int64)
        expected = len(record.text.encode())
        if int(lengths[tokens].sum()) != expected:
            raise AbruzziError(
                "bad_data",
                f"document {record.id} of {record.source}: its tokens stand for {int(lengths[tokens].sum())} bytes, it has {expected}.",
                hint="The tokenizer is not byte-level: run the tokenize stage again.",
            )
        yield tokens
