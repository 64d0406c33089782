"""Fine-tuning: another stage's weights and tokenizer, conversations as data; the loop is the one of pre-training.

The tokenizer gets the template's markers after its own vocabulary, and the embedding grows by as many rows where the model has no room for them. So
any tokenizer and any checkpoint of ours will do; what belongs to the new checkpoint is the stage's own output `tokenizer`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import SftStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.checkpoint import load_weights
from abruzzi_jobs.checkpoint.table import model_table
from abruzzi_jobs.data.corpus import Progress
from abruzzi_jobs.data.curation import evaluation_sets
from abruzzi_jobs.data.curation.decontamination import NgramIndex
from abruzzi_jobs.data.encoding import special_id, token_bytes
from abruzzi_jobs.data.shards import PAD
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.export.bases import read_base, write_base
from abruzzi_jobs.rl.critic.rubrics import settled_rubrics
from abruzzi_jobs.sft.declarations import Style
from abruzzi_jobs.sft.examples import Examples, build_examples
from abruzzi_jobs.sft.feed import ConversationFeed, PackedRows
from abruzzi_jobs.sft.markers import marker_sets, write_chat_tokenizer
from abruzzi_jobs.sft.preferences import own_preferences, taught_preferences
from abruzzi_jobs.sft.reviews import settled_reviews
from abruzzi_jobs.sft.rows import ConversationRow, Verdicts, gym_rows, made_rows, own_rows
from abruzzi_jobs.sft.template import ChatTemplate
from abruzzi_jobs.train.schedule import schedule_of_epochs
from abruzzi_jobs.train.training import Training, build_model

logger = logging.getLogger(__name__)

NOUNS = ("conversations", "trajectories")


class FineTuning(Training):
    def __init__(
        self, context: StageContext, reporter: Reporter, stage: SftStage, ranks: Ranks, progress: Progress
    ) -> None:
        folders = [context.scratch / f"{name}-{ranks.rank}" for name in ("tokenizer", "examples")]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        start = _start(context, stage, ranks.rank)
        table = _table(start, stage)
        markers = marker_sets()[stage.template.markers]
        # Whoever serves the model declares tools as most of its conversations did.
        declarations: Style = "json" if stage.template.json_fraction > 0.5 else "typescript"
        tokenizer = write_chat_tokenizer(start.tokenizer, folders[0], markers, declarations)
        table["vocab_size"] = max(table["vocab_size"], tokenizer.get_vocab_size())
        model = build_model(stage, ranks, table, seed=None)
        load_weights(start.checkpoint, model, name=start.name, seed_of_growth=context.spec.seed)
        examples = build_examples(
            _rows(context, stage, settled_reviews(context, ranks, NOUNS), ranks),
            ChatTemplate(tokenizer, markers),
            stage,
            index=_index(context, stage),
            out=folders[1],
            progress=progress,
        )
        length = {"sequence_length": stage.batch.sequence_length, "pad": special_id(tokenizer, PAD)}
        train, heldout = (
            PackedRows(split, token_bytes=token_bytes(tokenizer), **length)
            for split in (examples.train, examples.heldout)
        )
        schedule = schedule_of_epochs(stage.schedule, stage.batch, rows=len(train))
        feed = ConversationFeed(
            train, heldout, schedule, seed=context.spec.seed, rank=ranks.rank, world_size=ranks.world_size
        )
        super().__init__(
            context, reporter, stage, ranks, model=model, schedule=schedule, feed=feed,
            table={**context.spec.config, "model": table},
            origin=f"fine-tuning {start.name}",
        )  # fmt: skip
        if ranks.rank == 0:
            facts = _facts(examples, train)
            _say(facts)
            reporter.log({f"sft/{key}": float(value) for key, value in facts.items()}, step=0)
            vocabulary = {"vocab_size": tokenizer.get_vocab_size()}
            context.commit(ArtifactKind.TOKENIZER, "tokenizer", _files(folders[0]), vocabulary)
            context.commit(ArtifactKind.FILES, "examples", _files(folders[1]), {**facts, "fates": examples.fates})


@dataclass(frozen=True, slots=True)
class _Start:
    """Folders of what training begins from."""

    checkpoint: Path
    tokenizer: Path
    name: str


def _start(context: StageContext, stage: SftStage, rank: int) -> _Start:
    if stage.base is None:
        source = context.input("checkpoint")
        name = f"{source.manifest.name} of stage {source.manifest.stage_id!r}"
        return _Start(source.folder, context.input("tokenizer").folder, name)
    base = read_base(stage.base)
    start = _Start(context.scratch / f"base-checkpoint-{rank}", context.scratch / f"base-tokenizer-{rank}", base.name)
    for folder in (start.checkpoint, start.tokenizer):
        folder.mkdir(exist_ok=True)
    write_base(base, start.checkpoint, start.tokenizer)
    return start


def _table(start: _Start, stage: SftStage) -> dict[str, Any]:
    """The model's. Raises AbruzziError bad_data, invalid_config."""
    table = model_table(start.checkpoint, start.tokenizer)
    positions = int(table["max_position"])
    if stage.batch.sequence_length > positions and table.get("yarn") is None:
        raise AbruzziError(
            "invalid_config",
            f"Stage {stage.id!r}: batch.sequence_length is {stage.batch.sequence_length}, the checkpoint's model has {positions} positions.",
            hint=f"Set it to {positions} at most.",
        )
    return table


def _rows(
    context: StageContext, stage: SftStage, verdicts: dict[str, Verdicts], ranks: Ranks
) -> Iterator[ConversationRow]:
    for noun, said in verdicts.items():
        yield from made_rows(context.input(noun).folder, noun, said)
    for source in stage.data.sources:
        yield from own_rows(source, store=context.spec.store)
    yield from gym_rows([each for each in stage.data.gyms if each.form == "answers"], seed=context.spec.seed)
    yield from _preferences(context, stage, ranks)


def _preferences(context: StageContext, stage: SftStage, ranks: Ranks) -> Iterator[ConversationRow]:
    """Lessons of a critic."""
    taught = [each for each in stage.data.gyms if each.form == "preferences"]
    if not taught and not stage.data.preferences:
        return
    form, rubrics = stage.data.critic.form, settled_rubrics(context, stage.data.critic.rubrics, ranks)
    for source in stage.data.preferences:
        yield from own_preferences(source, rubrics, form, store=context.spec.store)
    for each in taught:
        yield from taught_preferences(each, rubrics, form, seed=context.spec.seed)


def _index(context: StageContext, stage: SftStage) -> NgramIndex:
    config = stage.data.decontamination
    sets = evaluation_sets.chosen(config.against, (), store=context.spec.store)
    return NgramIndex.build(((s.name, s.items()) for s in sets), words=config.ngram)


def _facts(examples: Examples, train: PackedRows) -> dict[str, Any]:
    return {
        "conversations": len(examples.train.lengths),
        "heldout": len(examples.heldout.lengths),
        "rows": len(train),
        "fill": round(train.fill, 4),
        "tokens": len(examples.train.tokens),
        "learned_tokens": int(examples.train.is_learned.sum()),
    }


def _say(facts: dict[str, Any]) -> None:
    logger.info(
        "%d conversations in %d packed rows (%.1f %% full), %s tokens, %s of them learned; %d held out",
        facts["conversations"], facts["rows"], 100 * facts["fill"], f"{facts['tokens']:,}",
        f"{facts['learned_tokens']:,}", facts["heldout"],
    )  # fmt: skip


def _files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir())}
