"""The tokenizer is byte-level, exact and the same each time; its shards say the bytes they stand for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import CorpusData, TokenizerConfig
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.shards import END_OF_TEXT, read_info, read_shard
from abruzzi_jobs.data.sources import resolve
from abruzzi_jobs.data.text_shards import read_split
from abruzzi_jobs.data.tokenizer import (
    build_dataset,
    end_of_text_id,
    file_digest,
    load_tokenizer,
    token_bytes,
    train_tokenizer,
)
from abruzzi_jobs.data.tokens import TokenDataset

TRICKY = "Ends <|endoftext|> and <|pad|> inside, naïve café 日本語 🏔️ \u2028\t  spaces   \n\n\n tail " * 3
CONFIG = TokenizerConfig(vocab_size=700, train_bytes=200_000, shard_tokens=20_000)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    own = tmp_path_factory.mktemp("own")
    (own / "tricky.jsonl").write_text(
        "".join(json.dumps({"text": f"{n} {TRICKY}", "domain": "Odd / näme"}) + "\n" for n in range(40))
    )
    names = ("mendeleev", "python-docs", str(own))
    config = CorpusData(sources=names, held_out_fraction=0.1, min_document_bytes=1)
    build_corpus([resolve(n, text_field="text") for n in names], config, out=folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer_folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(corpus, CONFIG, out=folder)
    return folder


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_comes_back_and_its_tokens_know_their_bytes(tokenizer_folder: Path, text: str) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    assert int(token_bytes(tokenizer)[ids].sum()) == len(text.encode())
    assert end_of_text_id(tokenizer) not in ids


def test_training_gives_the_same_file_with_any_number_of_threads(
    corpus: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from abruzzi.contracts.recipe import TokenizerConfig;"
        "from abruzzi_jobs.data.tokenizer import train_tokenizer;"
        "train_tokenizer(Path(sys.argv[1]), TokenizerConfig.model_validate_json(sys.argv[3]), out=Path(sys.argv[2]))"
    )
    for threads in ("1", "3"):
        out = tmp_path / threads
        out.mkdir()
        command = [sys.executable, "-c", program, str(corpus), str(out), CONFIG.model_dump_json()]
        subprocess.run(command, check=True, env={**os.environ, "RAYON_NUM_THREADS": threads})
        assert file_digest(out / "tokenizer.json") == file_digest(tokenizer_folder / "tokenizer.json")


def test_the_dataset_gives_back_every_documents_text_in_order(
    corpus: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    info = build_dataset(
        corpus, tokenizer, CONFIG, tokenizer_digest=file_digest(tokenizer_folder / "tokenizer.json"), out=tmp_path
    )
    assert read_info(tmp_path) == info
    assert info.dtype == "uint16"
    assert len(info.of_split("train")) > 2
    for split in ("train", "heldout"):
        found: list[str] = []
        for shard in info.of_split(split):
            tokens, boundaries = read_shard(tmp_path, shard, dtype=info.dtype)
            assert (tokens[boundaries[:-1]] == info.end_of_text).all()
            pieces = [tokens[a + 1 : b].tolist() for a, b in pairwise(boundaries)]
            found += [tokenizer.decode(p) for p in pieces]
            lengths = np.array(info.token_bytes)
            assert shard.text_bytes == int(lengths[np.asarray(tokens)].sum())
        assert sorted(found) == sorted(r.text for r in read_split(corpus, split))
        if split == "train":
            assert found == [r.text for r in read_split(corpus, split)]
    assert {s.domain for s in info.of_split("heldout")} == {"knowledge", "web", "Odd / näme"}
    assert all(s.name.isascii() and "/" not in s.name for s in info.shards)
    train = [r.text for r in read_split(corpus, "train")]
    assert info.bytes_per_token == pytest.approx(
        sum(len(t.encode()) for t in train) / sum(len(tokenizer.encode(t, add_special_tokens=False).ids) for t in train)
    )
    assert TokenDataset(tmp_path, sequence_length=32).num_sequences > 100


def test_two_encodings_are_the_same_bytes(corpus: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        build_dataset(
            corpus, load_tokenizer(tokenizer_folder), CONFIG, tokenizer_digest="sha256:" + "0" * 64, out=tmp_path / name
        )
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_small_text_gives_a_smaller_vocabulary_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.jsonl").write_text("".join(json.dumps({"text": f"tiny text {n}"}) + "\n" for n in range(30)))
    config = CorpusData(sources=(str(tmp_path / "own"),), min_document_bytes=1)
    (tmp_path / "c").mkdir()
    build_corpus([resolve(str(tmp_path / "own"), text_field="text")], config, out=tmp_path / "c")
    (tmp_path / "t").mkdir()
    tokenizer = train_tokenizer(tmp_path / "c", TokenizerConfig(vocab_size=4096), out=tmp_path / "t")
    assert 258 <= tokenizer.get_vocab_size() < 400
    assert tokenizer.token_to_id(END_OF_TEXT) == 0


def test_no_text_and_no_tokenizer_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(AbruzziError, match="no training text") as error:
        train_tokenizer(corpus, TokenizerConfig(train_bytes=1), out=tmp_path)
    assert error.value.code == "bad_data"
    with pytest.raises(AbruzziError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(AbruzziError, match="not a tokenizer"):
        load_tokenizer(tmp_path)
