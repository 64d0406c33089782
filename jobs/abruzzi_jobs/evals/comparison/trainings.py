"""Trainings as a study reads them: each from the state of its last checkpoint, with the FLOPs that the planner counts for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from abruzzi.client.stage import StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.training import ModelConfig, OptimizerConfig
from abruzzi.plan.flops import flops_per_token, newton_schulz_flops
from abruzzi.plan.parameters import count_parameters

STATE_FILE = "state.json"
DATASET = "dataset"
"""The input without an arm: with it the largest attention logit of each checkpoint is measured on held-out text."""


@dataclass(frozen=True, kw_only=True)
class Training:
    arm: str
    seed: str
    tokens: int
    flops: float
    """Forward and backward, of the whole training."""
    optimizer_flops: float
    """Newton-Schulz, of the whole training; 0 for AdamW."""
    loss: float
    """On held-out text at its end, nats a token."""
    parameters: int
    active_parameters: int
    """That one token meets, embeddings included."""
    max_logit: float | None = None


def read_trainings(context: StageContext, arms: Sequence[str]) -> list[Training]:
    """Inputs are called `<arm>.<anything>.<seed>`. Raises AbruzziError bad_data for an input of no arm or a state that says too little."""
    dataset = context.input(DATASET).folder if DATASET in context.spec.inputs else None
    found = []
    for name in sorted(context.spec.inputs):
        if name == DATASET:
            continue
        arm = name.partition(".")[0]
        if arm not in arms:
            raise AbruzziError(
                "bad_data",
                f"The input {name!r} belongs to no arm; there are {', '.join(arms)}.",
                hint='Inputs are called "<arm>.<budget>.<seed>", and "dataset" for the largest logits.',
            )
        logit = None
        if dataset is None:
            state = context.input_part(name, [STATE_FILE]).path(STATE_FILE)
        else:
            from abruzzi_jobs.evals.comparison.logits import largest_logit  # needs torch, the rest does not

            whole = context.input(name)
            state, logit = whole.path(STATE_FILE), largest_logit(whole.folder, dataset)
        found.append(training_of(name, json.loads(state.read_text(encoding="utf-8")), max_logit=logit))
    return found


def training_of(name: str, state: Mapping[str, Any], *, max_logit: float | None = None) -> Training:
    """From a checkpoint's state.json. `name`: of the input. Raises AbruzziError bad_data without a held-out loss."""
    config = state["config"]
    model = ModelConfig.model_validate(config["model"])
    optimizer = OptimizerConfig.model_validate(config["optimizer"])
    if state.get("valid_loss") is None:
        raise AbruzziError(
            "bad_data",
            f"The training {name!r} has no held-out loss.",
            hint="Set data.held_out_fraction above 0 in the corpus stage, and leave telemetry.held_out_every_steps away from 0.",
        )
    tokens, steps = int(state["tokens"]), int(state["step"])
    orthogonal = 0.0 if optimizer.kind == "adamw" else newton_schulz_flops(model, optimizer.newton_schulz_steps)
    counted = count_parameters(model)
    return Training(
        arm=name.partition(".")[0],
        seed=name.rpartition(".")[2],
        tokens=tokens,
        flops=flops_per_token(model, int(config["batch"]["sequence_length"])) * tokens,
        optimizer_flops=orthogonal * steps,
        loss=float(state["valid_loss"]),
        parameters=counted.total,
        active_parameters=counted.active,
        max_logit=max_logit,
    )
