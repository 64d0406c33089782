"""What operations take on a machine, as `bench/plan_calibration.py` measures them and `abruzzi plan --calibration` reads them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, StrictInt

from abruzzi.contracts.training import Strict


class Operation(StrEnum):
    """Each with the meaning of its shape. Seconds are of one process that computes alone, but where several ranks are named."""

    MATMUL = "matmul"
    """(m, k, n): m x k times k x n."""
    GROUPED_MATMUL = "grouped_matmul"
    """(rows of all experts, experts, k, n)."""
    ATTENTION = "attention"
    """(sequences, length, heads, key dims, value dims): causal, forward."""
    ATTENTION_GRADIENT = "attention_gradient"
    DENSE_FORWARD = "dense_forward"
    """(tokens, hidden): what a dense layer takes beyond its products and attention: norms, rotation, SwiGLU, the calls themselves."""
    DENSE_INPUT_GRADIENT = "dense_input_gradient"
    DENSE_WEIGHT_GRADIENT = "dense_weight_gradient"
    MOE_FORWARD = "moe_forward"
    """(tokens, hidden): the same of a layer with experts: routing and sorting, too."""
    MOE_INPUT_GRADIENT = "moe_input_gradient"
    MOE_WEIGHT_GRADIENT = "moe_weight_gradient"
    EMBEDDING_FORWARD = "embedding_forward"
    """(tokens, hidden)."""
    EMBEDDING_INPUT_GRADIENT = "embedding_input_gradient"
    EMBEDDING_WEIGHT_GRADIENT = "embedding_weight_gradient"
    HEAD_FORWARD = "head_forward"
    """(tokens, hidden): final norm, head and cross-entropy beyond their products. Below nothing where a product is not done in the pass that it is
    counted in."""
    HEAD_INPUT_GRADIENT = "head_input_gradient"
    HEAD_WEIGHT_GRADIENT = "head_weight_gradient"
    MESSAGE = "message"
    """(bytes): from one pipeline rank to the next."""
    ALL_TO_ALL = "all_to_all"
    """(ranks, tokens of each, hidden): what a layer's forward takes more where ranks share its experts, all of them at once: rows to the experts and back,
    what sorts them, and the wait for the rank with the busiest experts."""
    ALL_TO_ALL_GRADIENT = "all_to_all_gradient"
    ALL_TO_ALL_WORK = "all_to_all_work"
    """(ranks, tokens of each, hidden): of that, what keeps a processor busy, in seconds of one process that computes alone."""
    ALL_TO_ALL_GRADIENT_WORK = "all_to_all_gradient_work"
    REDUCE = "reduce"
    """(ranks, bytes in all): to their owners, who have equal parts."""
    BROADCAST = "broadcast"
    """(ranks, bytes in all): from their owners."""
    NEWTON_SCHULZ = "newton_schulz"
    """(matrices, rows, columns, steps)."""
    UPDATE = "update"
    """(parameters): what an optimizer step takes beyond its Newton-Schulz of one matrix after the other, with all of them owned. Below nothing where
    matrices of one shape, which it takes together, gain more than the rest of it takes."""
    STEP = "step"
    """(ranks): what a step takes however small: counts, norms and maxima summed, the router's bias."""


class MeasuredOperation(Strict):
    op: Operation
    shape: tuple[StrictInt, ...]
    seconds: float


class Calibration(Strict):
    version: Literal[1]
    machine: str
    """For people."""
    cores: StrictInt = Field(gt=0)
    crowding: tuple[tuple[StrictInt, float], ...]
    """(processes that compute at once, speed of each beside one alone). More than were measured share what the most had."""
    memory_bytes: StrictInt = Field(gt=0)
    """Of the machine."""
    operations: tuple[MeasuredOperation, ...]
