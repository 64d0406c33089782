"""Stages whose number of ranks may change: which numbers there are, what each is given, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from abruzzi.contracts.recipe import PretrainStage
from abruzzi.contracts.training import with_ranks


def stage(min_ranks: int | None = 2, **tables: Any) -> PretrainStage:
    given = {
        "id": "pretrain", "kind": "pretrain", "model": {"preset": "nano"}, "schedule": {"tokens": 1 << 20},
        "batch": {"sequences": 16, "sequence_length": 64}, "resources": {"ranks": 8}, **tables,
    }  # fmt: skip
    elastic = None if min_ranks is None else {"min_ranks": min_ranks}
    return PretrainStage.model_validate({**given, "elastic": elastic})


@pytest.mark.parametrize(
    ("made", "widths"),
    [
        (stage(None), (8,)),
        (stage(), (8, 4, 2)),  # 16 sequences are shared evenly by these
        (stage(8), (8,)),
        (stage(4, parallel={"pp": 2, "ep": 2}), (8, 4)),
        (stage(2, parallel={"pp": 2}), (8, 4, 2)),
        (stage(2, schedule={"tokens": 1 << 20, "anneal": [{"tokens": 4096, "sequences": 8}]}), (8, 4, 2)),
        (stage(2, batch={"sequences": 48, "sequence_length": 64}), (8, 6, 4, 3, 2)),
    ],
)
def test_it_can_run_with_whole_replicas_that_share_a_batch_evenly(made: PretrainStage, widths: tuple[int, ...]) -> None:
    assert made.widths() == widths


def test_fewer_ranks_compute_the_same_batch_in_more_passes_of_the_same_size() -> None:
    made = stage(2, parallel={"dp": 8})
    narrow = PretrainStage.model_validate(with_ranks(made.model_dump(mode="json"), 2))
    assert (narrow.resources.ranks, narrow.parallel.dp) == (2, 2)
    assert narrow.batch.sequences == made.batch.sequences
    assert narrow.batch.micro_sequences == 2, "what a rank had of the batch before"
    assert narrow.widths() == (2,)


def test_micro_batches_that_the_recipe_names_stay() -> None:
    made = stage(2, batch={"sequences": 16, "sequence_length": 64, "micro_sequences": 1})
    assert with_ranks(made.model_dump(mode="json"), 4)["batch"] == made.batch.model_dump(mode="json")


@pytest.mark.parametrize(
    ("min_ranks", "tables", "said"),
    [
        (9, {}, "elastic.min_ranks: 9 is more than resources.ranks 8"),
        (3, {}, "elastic.min_ranks: with 3 ranks, batch.sequences: 16 sequences cannot be split evenly"),
        (2, {"parallel": {"ep": 4}}, "elastic.min_ranks: with 2 ranks, parallel.ep: 4 does not divide the 2 ranks"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_the_reason(min_ranks: int, tables: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stage(min_ranks, **tables)
