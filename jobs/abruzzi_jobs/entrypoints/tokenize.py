"""Stage `tokenize`: a corpus in, a tokenizer and a dataset out. Given a tokenizer too, it encodes with that one, and hands it on."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import TokenizeStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.data.encoding import Encode, encode_here
from abruzzi_jobs.data.ray_encoding import RayEncoder, ray_cluster
from abruzzi_jobs.data.ray_session import ENV_ADDRESS
from abruzzi_jobs.data.tokenizer import TOKENIZER_FILE, build_dataset, file_digest, load_tokenizer, train_tokenizer
from abruzzi_jobs.entrypoints.progress import StageProgress
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder

logger = logging.getLogger(__name__)

GIVEN = "tokenizer"
"""The optional input."""


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError bad_data for a damaged corpus or one without text."""
    if context.rank != 0:
        return
    stage = TokenizeStage.model_validate(context.spec.config)
    if stage.resources.threads is not None:
        os.environ["RAYON_NUM_THREADS"] = str(stage.resources.threads)  # read when tokenizers first needs threads
    corpus = context.input("corpus").folder
    progress = StageProgress(context, reporter, "tokenize")
    trained, encoded = fresh_folder(context.scratch / "tokenizer"), fresh_folder(context.scratch / "dataset")
    if GIVEN in context.spec.inputs:
        tokenizer = _take_over(context.input(GIVEN).folder, stage, trained)
    else:
        tokenizer = train_tokenizer(corpus, stage.tokenizer, out=trained, progress=progress)
    digest = file_digest(trained / TOKENIZER_FILE)
    with _encoder(stage) as encode:
        info = build_dataset(
            corpus, tokenizer, stage.tokenizer, tokenizer_digest=digest, out=encoded, progress=progress, encode=encode
        )
        if isinstance(encode, RayEncoder):
            logger.info("%s", encode.describe())
    facts = {
        "vocab_size": info.vocab_size,
        "bytes_per_token": round(info.bytes_per_token, 4),
        "train_tokens": info.tokens("train"),
        "heldout_tokens": info.tokens("heldout"),
    }
    reporter.log({f"tokenize/{key}": float(value) for key, value in facts.items()}, step=0)
    progress.commit(ArtifactKind.TOKENIZER, "tokenizer", files_of(trained), meta={"vocab_size": info.vocab_size})
    progress.commit(ArtifactKind.DATASET, "dataset", files_of(encoded), meta={**facts, "tokenizer_digest": digest})


def _take_over(given: Path, stage: TokenizeStage, out: Path) -> Tokenizer:
    """Raises AbruzziError bad_data where it has more tokens than the recipe says: models are sized by that."""
    tokenizer = load_tokenizer(given)
    size, most = tokenizer.get_vocab_size(), stage.tokenizer.vocab_size
    if size > most:
        raise AbruzziError(
            "bad_data",
            f"tokenizer.vocab_size: the stage's given tokenizer has {size} tokens, more than {most}.",
            hint=f"Set tokenizer.vocab_size = {size} here too.",
        )
    for path in given.iterdir():
        shutil.copyfile(path, out / path.name)
    logger.info("encoding with the tokenizer that the stage was given, of %d tokens", size)
    return tokenizer


@contextmanager
def _encoder(stage: TokenizeStage) -> Iterator[Encode]:
    """Ray where the recipe asks for it and there is a cluster of it. A laptop has none, and makes the same."""
    if stage.resources.framework != "ray" or ENV_ADDRESS not in os.environ:
        yield encode_here
        return
    with ray_cluster() as encode:
        yield encode
